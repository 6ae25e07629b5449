"""Anchors: the head of an execution as a short text that stands outside the journal, so that a cut-off end shows.

    7f3a12cd#42:9c1e0d52f7aa03b4        execution # number of its last event : first 16 digits of its mac

Whoever has one knows later whether event 42 is still there and still the same. It says nothing about what came after.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.journal_chain import SHORT, Finding, Row

if TYPE_CHECKING:
    from flows.journal import Journal

_ANCHOR = re.compile(rf"\b([0-9A-Za-z][\w.-]*)#([1-9]\d*):([0-9a-f]{{{SHORT}}})\b")
LARGEST = 10_000_000
"""Bytes of a file that is searched for anchors."""


@dataclass(frozen=True)
class Anchor:
    """Event `number` of an execution had a seal that begins so."""

    execution: str
    number: int
    seal: str

    def __str__(self) -> str:
        """As people copy it."""
        return f"{self.execution}#{self.number}:{self.seal}"


def anchor_of(row: Row) -> Anchor:
    """The anchor of a row."""
    return Anchor(row.execution, row.number, row.seal[:SHORT])


def anchor(journal: Journal, execution: str) -> str:
    """The head of an execution as text, for a message, an artifact, a report; '' when it has no event.

    One read of the journal: call it from a thread that may wait. Raises JournalError.
    """
    head = journal.head(execution)
    return str(anchor_of(head)) if head else ""


def anchors_in(text: str) -> list[Anchor]:
    """Every anchor in a text, whatever stands around it."""
    return [Anchor(execution, int(number), seal) for execution, number, seal in _ANCHOR.findall(text)]


def differs(kept: Anchor, row: Row | None, where: str) -> Finding | None:
    """What an anchor shows, given the row of its number; None when that row is the one it was made of."""
    if row is None:
        return Finding(kept.execution, f"event {kept.number} is missing; it was there when {where} was written")
    if not row.seal.startswith(kept.seal):
        return Finding(kept.execution, f"event {kept.number} is not the one of {where}")
    return None


def check(kept: Iterable[tuple[Anchor, str]], rows: Iterable[Row]) -> list[Finding]:
    """What anchors, each with where it was found, show about rows."""
    known = {(row.execution, row.number): row for row in rows}
    found = (differs(one, known.get((one.execution, one.number)), where) for one, where in kept)
    return list(dict.fromkeys(finding for finding in found if finding is not None))


def beside(folder: Path, place: str, known: Iterable[str]) -> list[tuple[Anchor, str]]:
    """The anchors in the reports and the copies for hands in a folder.

    Several journals may have written there: an execution that this journal does not know counts only in a file that
    names this journal's place.
    """
    executions, kept = set(known), []
    for path in sorted([*folder.glob("reports/*.md"), *folder.glob("reports/*.json"), *folder.glob("eject/*.txt")]):
        try:
            text = path.read_text(encoding="utf-8") if path.stat().st_size <= LARGEST else ""
        except (OSError, UnicodeError):
            continue
        kept += [(one, str(path)) for one in anchors_in(text) if one.execution in executions or place in text]
    return kept
