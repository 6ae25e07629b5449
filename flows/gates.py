"""Whether people have said yes. Pure: the rule, the answers and the time decide, nothing else.

Must never happen: a gate opens because of silence over an irreversible change, because of one person counted twice,
or because of somebody who may not answer. `judge` is the only place that opens a gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flows.events import Answer, ApprovalGiven
from runbooks.model import Approval, Mode


@dataclass(frozen=True)
class Waiting:
    """Not decided: so many more people, at the latest until the deadline."""

    missing: int
    until: datetime


@dataclass(frozen=True)
class Approved:
    """Open: who said yes, and how that came."""

    by: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Refused:
    """Closed for good: who said no, or why nobody's word counts."""

    by: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Asked:
    """The circumstances of one gate: when it opened, its deadline, who started the run, in which mode."""

    opened: datetime
    deadline: datetime
    initiator: str
    mode: Mode


def may_answer(rule: Approval, by: str, asked: Asked, now: datetime) -> str | None:
    """Why this person's answer does not count, or None. Names compare without case and outer blanks."""
    name = by.strip().casefold()
    if not name:
        return "an answer needs a name"
    if rule.exclude_initiator and name == asked.initiator.strip().casefold():
        return f"{by} started the run and may not answer"
    allowed = {person.strip().casefold() for person in rule.approvers}
    if not allowed or name in allowed:
        return None
    if name in {person.strip().casefold() for person in rule.escalate_to}:
        if now >= escalates_at(asked):
            return None
        return f"{by} may answer from {escalates_at(asked):%H:%M:%S} UTC on, when it escalates"
    return f"{by} is not one of {', '.join(rule.approvers)}"


def escalates_at(asked: Asked) -> datetime:
    """When `escalate_to` may answer as well: after half of the timeout."""
    return asked.opened + (asked.deadline - asked.opened) / 2


def judge(
    rule: Approval, answers: Sequence[ApprovalGiven], asked: Asked, now: datetime
) -> Waiting | Approved | Refused:
    """Decide a gate. One counted deny refuses; `quorum` different people must approve; silence is `on_timeout`.

    An answer that came before the gate opened counts; of several by one person the last one counts.
    """
    if asked.mode in rule.preapprove:
        return Approved((), f"preapproved in mode {asked.mode.value}")
    last: dict[str, ApprovalGiven] = {}
    for answer in answers:
        if answer.given_at <= max(asked.deadline, asked.opened) and may_answer(rule, answer.by, asked, now) is None:
            last[answer.by.strip().casefold()] = answer
    denied = [answer for answer in last.values() if answer.answer is Answer.deny]
    if denied:
        said = f": {denied[0].reason}" if denied[0].reason else ""
        return Refused(tuple(answer.by for answer in denied), f"{denied[0].by} said no{said}")
    approved = tuple(answer.by for answer in last.values())
    if len(approved) >= rule.quorum:
        return Approved(approved, "; ".join(answer.reason for answer in last.values() if answer.reason))
    if now < asked.deadline:
        return Waiting(rule.quorum - len(approved), asked.deadline)
    if rule.on_timeout == "proceed":
        return Approved(approved, "nobody answered in time and the runbook lets it proceed")
    said = f"{len(approved)} of {rule.quorum} people" if approved else "nobody"
    return Refused((), f"{said} answered in time, so nothing was done")
