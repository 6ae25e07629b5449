"""What a journal tells of earlier executions: the events that say how long things took, within bounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Past:
    """The events of an execution that tell how long things took: raw, for another version may have written them."""

    execution: str
    bodies: tuple[str, ...]


PAST_KINDS = (
    "execution-started", "step-started", "step-finished", "gate-opened", "gate-closed", "decision-opened", "decision-closed",
)  # fmt: skip
PAST_EXECUTIONS, PAST_EVENTS = 1_000, 20_000
"""Bounds of one look at the past: executions of any runbook looked at, events read."""


def grouped(rows: Iterable[tuple[str, str]]) -> list[Past]:
    """Rows of (execution, body), those of an execution together, as executions in the same order."""
    return [Past(name, tuple(body for _, body in some)) for name, some in groupby(rows, key=lambda row: row[0])]
