"""The lab's own programs (`python -m deployments.lab.…`) as children, and the list of everything that was started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import processes
from .addresses import Addresses
from .processes import Child

MARK = "FAILOVER_LAB_FOLDER"  # in the environment of every program of a lab: how `down` knows them after a crash


def environment(addresses: Addresses, password: str) -> dict[str, str]:
    """Build what the lab's programs get: their lab, the password, and this very copy of the package."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "AWS_", "PYTHON"))}
    return inherited | {
        MARK: str(addresses.folder),
        "FAILOVER_LAB": str(addresses.number),
        "FAILOVER_LAB_PASSWORD": password,
        "PYTHONPATH": package_path(),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "*",
        "no_proxy": "*",
    }


def package_path() -> str:
    """Where `deployments` was imported from; whatever else the caller's PYTHONPATH named comes after it."""
    return os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])


@dataclass
class Programs:
    """Starts programs and keeps the state file: pid and start time of everything that lives."""

    addresses: Addresses
    environment: Mapping[str, str]
    living: dict[int, Child] = field(default_factory=dict)

    def start(self, name: str, module: str, *arguments: str) -> Child:
        """Start `python -m deployments.lab.<module>`; its output goes to logs/<name>.log."""
        argv = [sys.executable, "-m", f"deployments.lab.{module}", "--lab", str(self.addresses.number), *arguments]
        folder = self.addresses.folder
        log = folder / "logs" / f"{name}.log"
        return self.adopt(name, processes.start(argv, log=log, cwd=folder, env=self.environment))

    def adopt(self, name: str, popen: subprocess.Popen[bytes]) -> Child:
        """Take charge of a started process: it is in the state file until it ends."""
        child = Child(name, popen)
        self.living[child.pid] = child
        child.exited_hooks.append(lambda: self._ended(child))
        self._write()
        return child

    def named(self, name: str) -> Child | None:
        return next((child for child in self.living.values() if child.name == name), None)

    def _ended(self, child: Child) -> None:
        del self.living[child.pid]
        self._write()

    def _write(self) -> None:
        me = processes.identity(os.getpid())
        rows = [{"name": "supervisor", "pid": me.pid, "started": me.started}] + [
            {"name": child.name, "pid": child.pid, "started": child.identity.started} for child in self.living.values()
        ]
        write_atomically(self.addresses.folder / "state.json", json.dumps(rows))


def write_atomically(file: Path, text: str) -> None:
    """Replace a file so that a reader sees the old text or the new one, never a part."""
    if file.parent.exists():
        fresh = file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(file)
