"""What synchronous_standby_names demands of standbys, and when too few are left to meet it. Pure.

The argument. A commit that waits is acknowledged once k of the named standbys have confirmed it; FIRST and ANY differ in
which ones, not in how many. So when fewer than k members could still confirm anything, no such commit is acknowledged.
Of n members that is so once n - k + 1 are known to confirm nothing more; and because any k and any n - k + 1 of n have
one in common, whatever was acknowledged before is on at least one of those.

What must never count, and the line that prevents it: a member that nobody knows of (`*` matches every standby:
`members_known`), a member that could not be asked (it is not in `silent`), a name written twice (`members` is a set, as
PostgreSQL counts a standby once).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

# Words as PostgreSQL's syncrep_scanner.l takes them; a standby's name is compared without regard to case.
_WORD = re.compile(r'\s*(?:"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>[A-Za-z_][A-Za-z0-9_$]*)|(?P<number>[0-9]+)|(?P<sign>[*,()]))')


@dataclass(frozen=True)
class Rule:
    """Of which standbys how many must confirm a commit. Names in lower case; `*` stands for any name."""

    method: Literal["first", "any"]
    count: int
    members: frozenset[str]

    @property
    def members_known(self) -> bool:
        """Whether nobody else can confirm a commit."""
        return "*" not in self.members

    def is_lost(self, silent: Collection[str]) -> bool:
        """Whether commits that wait can be acknowledged no more, once the standbys in `silent` confirm nothing."""
        return self.members_known and len(self.members - {name.lower() for name in silent}) < self.count

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.count} ({', '.join(sorted(self.members))})"


def parse_rule(text: str) -> Rule | None:
    """Read synchronous_standby_names as PostgreSQL does; None where it is empty or PostgreSQL would refuse it."""
    try:
        words = list(_words(text))
    except ValueError:
        return None
    method: Literal["first", "any"] = "any" if words[:1] == [("keyword", "any")] else "first"
    if words[:1] in ([("keyword", "any")], [("keyword", "first")]):
        words = words[1:]
        if not _is_counted(words):
            return None
    if not _is_counted(words):
        return _of(method, 1, words)
    return _of(method, int(words[0][1]), words[2:-1])


def _is_counted(words: list[tuple[str, str]]) -> bool:
    return len(words) > 3 and words[0][0] == "number" and words[1] == ("sign", "(") and words[-1] == ("sign", ")")


def _of(method: Literal["first", "any"], count: int, words: list[tuple[str, str]]) -> Rule | None:
    names, commas = words[::2], words[1::2]
    well_formed = len(words) % 2 == 1 and all(one == ("sign", ",") for one in commas)
    if count < 1 or not well_formed or any(kind not in ("name", "number") for kind, _ in names):
        return None
    return Rule(method, count, frozenset(name.lower() for _, name in names))


def _words(text: str) -> Iterator[tuple[str, str]]:
    """Give each word with its kind: keyword, name, number, sign. Raises ValueError where something is none of them."""
    place, text = 0, text.rstrip()
    while place < len(text):
        found = _WORD.match(text, place)
        if found is None or not text.isascii():
            raise ValueError(text)
        place = found.end()
        kind, word = found.lastgroup or "", found[found.lastgroup or 0]
        if kind == "plain":
            yield ("keyword" if word.lower() in ("any", "first") else "name"), word.lower()
        elif kind == "quoted":
            yield "name", word.replace('""', '"')
        else:
            yield ("name" if word == "*" else kind), word
