"""Whether people have overridden a fence that could not hold: they accept that two nodes may take writes. Pure.

Must never happen: one person's word, a word in advance, a word without a reason, or an old word lets a promotion pass
an unfenced primary. `judge` is the only place that overrides a fence; `failover override` is the only way to say so:
no gate, no `preapprove`, no `--approve`, no form and no default of one gives such a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flows.events import OverrideGiven
from flows.journal import Received, SaidOverride

PEOPLE = 2
"""Different people who must say so: one tired person at 3 a.m. is not enough, and neither is whoever started the run."""
LASTS = timedelta(minutes=15)
"""How long a word counts: what was true of the outage when it was given may not be true much later."""


@dataclass(frozen=True)
class Overridden:
    """Two people have said so: who, and why, in the order they said it."""

    by: tuple[str, ...]
    reason: str


def wrong_with(by: str, reason: str) -> str | None:
    """Why such a word can never count, or None."""
    if not by.strip():
        return "an override needs a name"
    if not reason.strip():
        return "an override needs a reason: what makes you sure that the old primary takes no writes, or why two may"
    return None


def counted(said: Sequence[OverrideGiven], first_failed: datetime | None, now: datetime) -> tuple[OverrideGiven, ...]:
    """The words that count now, one a person (the last), oldest first.

    Given in advance they do not: `first_failed` is when this fence was first seen not to hold. Names compare without
    case and outer blanks.
    """
    last: dict[str, OverrideGiven] = {}
    for one in said:
        early = first_failed is None or one.given_at < first_failed
        if not early and now - one.given_at <= LASTS and wrong_with(one.by, one.reason) is None:
            last[one.by.strip().casefold()] = one
    return tuple(sorted(last.values(), key=lambda one: one.given_at))


def judge(said: Sequence[OverrideGiven], first_failed: datetime | None, now: datetime) -> Overridden | None:
    """Decide: two different people, each with a reason, each after the fence failed and not long ago; else None."""
    words = counted(said, first_failed, now)
    if len(words) < PEOPLE:
        return None
    return Overridden(tuple(one.by.strip() for one in words), "; ".join(f"{one.by.strip()}: {one.reason.strip()}" for one in words))


def said_so_far(
    adopted: Sequence[OverrideGiven], waiting: Sequence[Received], step: str
) -> tuple[OverrideGiven, ...]:
    """What people said about a fence: what the engine adopted, and what still lies in the inbox."""
    letters = [
        OverrideGiven(at=one.at, step=step, by=one.said.by, how=one.said.how, reason=one.said.reason, given_at=one.at,
                      entry=one.number)
        for one in waiting
        if isinstance(one.said, SaidOverride) and one.said.step == step
    ]  # fmt: skip
    return (*adopted, *letters)


def loudly(by: Sequence[str], reason: str) -> str:
    """The sentence that stands wherever an overridden fence matters."""
    return f"FENCE OVERRIDDEN by {' and '.join(by)} ({reason}): two nodes may take writes"
