"""The runbooks that are shipped, and how a name or a path on the command line leads to a file."""

from __future__ import annotations

import re
from pathlib import Path

from runbooks.findings import Names
from runbooks.problems import Place, Problem, RunbookError

_NAME = re.compile(r"^name:[ \t]*['\"]?([a-z][a-z0-9_-]{0,62})['\"]?[ \t]*(?:#.*)?$", re.MULTILINE)
MOST_FILES = 500
"""So many files of a folder are asked for their names at most."""
FOLDER = Path(__file__).with_name("library")
SUFFIXES = (".yaml", ".yml")


def shipped() -> dict[str, Path]:
    """Every shipped runbook by name."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.yaml"))}


def find(name_or_path: str) -> Path:
    """The file that a name or a path means; raises RunbookError with the nearest name.

    What ends in .yaml or .yml, holds a slash or is a file is a path; anything else is the name of a shipped runbook.
    """
    path = Path(name_or_path)
    if "/" in name_or_path or path.suffix in SUFFIXES or _is_file(path):
        return path
    known = shipped()
    if name_or_path not in known:
        near = Names().nearest(name_or_path, known)
        raise RunbookError([Problem(Place(name_or_path[:60]), "", f"is no file and no shipped runbook{near}")])
    return known[name_or_path]


def within_reach(file: Path) -> frozenset[str]:
    """Names of the runbooks that one in this file may name: the shipped ones and those in its own folder.

    A neighbour's name is read from its text, without judging the rest of it: it may be broken just now.
    """
    found = set(shipped())
    try:
        beside = sorted(one for one in file.parent.iterdir() if one.suffix in SUFFIXES and one.is_file())[:MOST_FILES]
    except OSError:
        beside = []
    for one in beside:
        try:
            text = one.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        found.update(match[1] for match in _NAME.finditer(text))
    return frozenset(found)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
