"""What a round proves, computed from what pinned clients were told and from both nodes' rows. Pure.

Two writers, by the clock: the old primary acknowledged a write after the new one had acknowledged its first. All clients
share one machine's monotonic clock, so the times compare. By content: a row that the new primary acknowledged is in the
old history as well, a row that the old one acknowledged is not in its own history, a row of the old history was made
after the first one of the new history, or both acknowledged on one timeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.failover.pinned import Ack


@dataclass(frozen=True)
class Rows:
    """One node's history: for each ref when the server made the row (epoch seconds) and which node wrote it."""

    made: Mapping[str, float]
    wrote: Mapping[str, str]
    duplicated: int = 0

    def by(self, node: str) -> list[float]:
        return [self.made[ref] for ref, who in self.wrote.items() if who == node]


@dataclass(frozen=True)
class Judgement:
    """`margin`: seconds from the old primary's last acknowledgement to the new one's first; None without both."""

    two_writers: int
    content: tuple[str, ...]
    lost: int
    true_loss: float
    margin: float | None


def judge(old: Sequence[Ack], new: Sequence[Ack], old_rows: Rows | None, new_rows: Rows) -> Judgement:
    """Judge a round. `old_rows` is None where the old primary's history could not be read."""
    first_new = min((ack.acked for ack in new), default=None)
    last_old = max((ack.acked for ack in old), default=None)
    late = [ack for ack in old if first_new is not None and ack.acked > first_new]
    lost = [ack for ack in old if ack.ref not in new_rows.made]
    return Judgement(
        two_writers=len(late),
        content=tuple(_content(old, new, old_rows, new_rows)),
        lost=len(lost),
        true_loss=max((last_old - ack.acked for ack in lost), default=0.0) if last_old is not None else 0.0,
        margin=first_new - last_old if first_new is not None and last_old is not None else None,
    )


def _content(old: Sequence[Ack], new: Sequence[Ack], old_rows: Rows | None, new_rows: Rows) -> list[str]:
    wrong = []
    if new_rows.duplicated:
        wrong.append(f"{new_rows.duplicated} rows are there twice")
    if missing := sum(ack.ref not in new_rows.made for ack in new):
        wrong.append(f"{missing} writes that the new primary acknowledged are not on it")
    if {ack.timeline for ack in old} & {ack.timeline for ack in new}:
        wrong.append("both acknowledged on one timeline")
    if old_rows is None:
        return wrong
    if both := sum(ack.ref in old_rows.made for ack in new):
        wrong.append(f"{both} writes that the new primary acknowledged are in the old history")
    if missing := sum(ack.ref not in old_rows.made for ack in old):
        wrong.append(f"{missing} writes that the old primary acknowledged are not in its own history")
    first = min(new_rows.by(new[0].node), default=None) if new else None
    if old and first is not None and (newer := sum(made > first for made in old_rows.by(old[0].node))):
        wrong.append(f"{newer} rows of the old history were made after the first of the new one")
    return wrong
