"""Whether people have said yes. Pure: the rule, the answers and the time decide, nothing else.

Must never happen: a gate opens because of silence over an irreversible change, because of one person counted twice,
or because of somebody who may not answer. `judge` is the only place that opens a gate. And nothing acts on a word that
was given for another hour: `judge` does not count an approval that is older than the gate's `valid_for`, and `expired`
tells right before an act that the ones that opened the gate have become so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flows.events import Answer, ApprovalGiven
from runbooks.model import Approval, Mode
from tasks.durations import format_duration, show_seconds


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


@dataclass(frozen=True)
class Standing:
    """An approval that opened a gate: by whom, when its oldest word was given, when the step last acted on it."""

    by: tuple[str, ...]
    given: datetime
    used: datetime | None = None
    preapproved: bool = False


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


def expired(rule: Approval, approval: Standing, now: datetime) -> str | None:
    """Why an approval does not let a step act any more, or None. `valid_for` counts from the oldest word in it.

    A step that has acted on it may go on: then it counts from its last act, lest a step of many phases asks at each.
    """
    since = max(approval.given, approval.used or approval.given)
    if approval.preapproved or now - since <= rule.valid_for:
        return None
    who = ", ".join(approval.by) or "nobody's answer"
    used = f", it last acted at {approval.used:%H:%M:%S} UTC" if approval.used else ""
    return (
        f"approval of {approval.given:%Y-%m-%d %H:%M:%S} UTC by {who} is {show_seconds(now - approval.given)} old{used}, "
        f"and counts for {format_duration(rule.valid_for)}"
    )


def oldest_word(answers: Sequence[ApprovalGiven], by: Sequence[str], closed: datetime) -> datetime:
    """When the oldest of the answers that opened a gate was given: each person's last before it closed."""
    people = {name.strip().casefold() for name in by}
    last = {answer.by.strip().casefold(): answer.given_at for answer in answers if answer.given_at <= closed}
    return min((at for name, at in last.items() if name in people), default=closed)


def judge(
    rule: Approval, answers: Sequence[ApprovalGiven], asked: Asked, now: datetime
) -> Waiting | Approved | Refused:
    """Decide a gate. One counted deny refuses; `quorum` different people must approve; silence is `on_timeout`.

    An answer that came before the gate opened counts; of several by one person the last one counts; an approval older
    than `valid_for` counts for nothing, a deny does not age.
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
    fresh = [answer for answer in last.values() if now - answer.given_at <= rule.valid_for]
    approved = tuple(answer.by for answer in fresh)
    if len(approved) >= rule.quorum:
        return Approved(approved, "; ".join(answer.reason for answer in fresh if answer.reason))
    if now < asked.deadline:
        return Waiting(rule.quorum - len(approved), asked.deadline)
    if rule.on_timeout == "proceed":
        return Approved(approved, "nobody answered in time and the runbook lets it proceed")
    said = f"{len(approved)} of {rule.quorum} people" if approved else "nobody"
    return Refused((), f"{said} answered in time, so nothing was done")
