"""References stand in `with`, `when`, `manual` and `targets` only: anywhere else people would read them as they are."""

from __future__ import annotations

from runbooks.findings import Findings
from runbooks.paths import Path
from runbooks.values import texts

_STEP_PARTS = ("with", "when", "manual")


def check_stray_references(findings: Findings) -> None:
    """Note every reference outside the places that fill references in."""
    for path, text in texts(findings.tree.value, ()):
        if "${" in text and not _filled_in(path):
            findings.add(path, "no reference is filled in here; write plain text")


def _filled_in(path: Path) -> bool:
    return path[0] == "targets" or (path[0] == "steps" and len(path) > 2 and path[2] in _STEP_PARTS)
