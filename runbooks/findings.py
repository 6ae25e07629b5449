"""Collect problems and warnings with their places, and suggest the name that was meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from runbooks.paths import Path, clip, show_path, step_name
from runbooks.problems import Place, Problem
from runbooks.yaml_tree import Tree

MOST_SUGGESTIONS = 300
MOST_CANDIDATES = 200


class Names:
    """Suggest the nearest known name, within bounds: a file of a thousand wrong names must not take minutes."""

    def __init__(self) -> None:
        self._left = MOST_SUGGESTIONS

    def nearest(self, word: str, known: Iterable[str]) -> str:
        """'; did you mean 'x'?' or what there is, as the end of a message."""
        names = sorted(known) if self._left > 0 else []
        if not names:
            return ""
        self._left -= 1
        if len(word) <= 63 and len(names) <= MOST_CANDIDATES:
            lower = {name.lower(): name for name in names}
            if found := get_close_matches(word.lower(), lower, n=1, cutoff=0.6):
                return f"; did you mean '{lower[found[0]]}'?"
        return f"; known: {', '.join(names[:12])}" + (", …" if len(names) > 12 else "")


@dataclass
class Findings:
    """What was found in one file, in the order in which it was found."""

    tree: Tree
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    names: Names = field(default_factory=Names)

    def add(self, path: Path, message: str, *, key: bool = False, at: Path | None = None) -> None:
        """Note a problem of the value at `path` (or of its key); `at`: another path where it stands in the file."""
        self.problems.append(self._problem(path, message, key, at))

    def warn(self, path: Path, message: str, *, key: bool = False) -> None:
        """Note something that is allowed and probably not meant."""
        self.warnings.append(self._problem(path, message, key, None))

    def whole(self, message: str) -> None:
        """Note a problem of the file as a whole."""
        self.problems.append(Problem(Place(self.tree.file), "", message))

    def _problem(self, path: Path, message: str, key: bool, at: Path | None) -> Problem:
        where = at or path
        place = self.tree.key_place(where) if key else self.tree.place(where)
        return Problem(place, show_path(path, step_name(self.tree.value, path)), message)


def shorten(value: Any, longest: int = 60) -> str:
    """Show a value in a message: text in quotes, lists and mappings by what they are."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return f"'{clip(value, longest)}'"
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number of more than 18 digits"  # writing it out could fail
    return str(value)
