"""What a round proves, computed from what pinned clients were told and from both nodes' rows. Pure.

Two writers, by the clock: the old primary acknowledged a write after the new one had acknowledged its first. All clients
share one machine's monotonic clock, so the times compare. By content: a row that the new primary acknowledged is in the
old history as well, a row that the old one acknowledged is not in its own history, a row of the old history was made
after the first one of the new history, or both acknowledged on one timeline. Behind a closed way the old primary may
live on and make rows that nobody hears of: there only an acknowledged row counts, and the others are `unheard`. One that
lives on may also answer late for a write that the standby had confirmed before it was cut off: the new primary holds that
row from before its own first, so it is nobody's second write, and is counted as `late`.
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


@dataclass(frozen=True)
class Judgement:
    """`margin`: seconds from the old primary's last acknowledgement to the new one's first; None without both.

    `unheard`: rows that the old primary made after the new one's first, acknowledged to nobody. `late`: acknowledged by
    it after that, and held by the new one from before.
    """

    two_writers: int
    content: tuple[str, ...]
    lost: int
    true_loss: float
    margin: float | None
    unheard: int = 0
    late: int = 0


def judge(
    old: Sequence[Ack], new: Sequence[Ack], old_rows: Rows | None, new_rows: Rows, *, lives_on: bool = False
) -> Judgement:
    """Judge a round. `old_rows` is None where the old primary's history could not be read.

    lives_on: the fence lets the old primary live where nobody hears it.
    """
    first_new = min((ack.acked for ack in new), default=None)
    after = [ack for ack in old if first_new is not None and ack.acked > first_new]
    late = [ack for ack in after if lives_on and new_rows.wrote.get(ack.ref) == ack.node]
    last_old = max((ack.acked for ack in old if ack not in late), default=None)
    lost = [ack for ack in old if ack.ref not in new_rows.made]
    newer = _newer(new, old_rows, new_rows)
    unheard = len(newer - {ack.ref for ack in old}) if lives_on else 0
    wrong = _content(old, new, old_rows, new_rows)
    if old and len(newer) > unheard:
        wrong.append(f"{len(newer) - unheard} rows of the old history were made after the first of the new one")
    return Judgement(
        two_writers=len(after) - len(late),
        content=tuple(wrong),
        lost=len(lost),
        true_loss=max((last_old - ack.acked for ack in lost), default=0.0) if last_old is not None else 0.0,
        margin=first_new - last_old if first_new is not None and last_old is not None else None,
        unheard=unheard,
        late=len(late),
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
    return wrong


def _newer(new: Sequence[Ack], old_rows: Rows | None, new_rows: Rows) -> set[str]:
    """Rows of the old history that another node made after the first row of the new primary."""
    if old_rows is None or not new:
        return set()
    writer = new[0].node
    first = min((made for ref, made in new_rows.made.items() if new_rows.wrote[ref] == writer), default=None)
    return {ref for ref, made in old_rows.made.items() if first is not None and old_rows.wrote[ref] != writer and made > first}
