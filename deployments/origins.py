"""Whether our modules are ours: a folder's own `tasks.py` must never take the place of `tasks`."""

from __future__ import annotations

import importlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tasks", "runbooks", "flows", "deployments")


class ForeignModule(ImportError):
    """A package of ours came from somewhere else."""


def check_origins() -> None:
    """Raise ForeignModule when one of our packages does not lie beside this one."""
    for name in PACKAGES:
        module = importlib.import_module(name)
        found = Path(module.__file__ or "").resolve()
        if found != ROOT / name / "__init__.py":
            raise ForeignModule(f"'{name}' comes from {found}, expected {ROOT / name}; set PYTHONSAFEPATH=1 or rename it")
