"""Whether people have said yes. Pure: the rule, the answers and the time decide, nothing else.

Must never happen: a gate opens because of silence over an irreversible change, because of one person counted twice,
because of somebody who may not answer, or over a loss above the RPO that nobody accepted. `judge` is the only place that
opens a gate. And nothing acts on a word that was given for another hour: `judge` does not count an approval that is
older than the gate's `valid_for`, and `expired` tells right before an act that the ones that opened it have become so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flows.events import Answer, ApprovalGiven, ExecutionStarted, GateOpened
from runbooks.model import Approval, Mode
from tasks.contract import Loss
from tasks.durations import LONGEST, format_duration, parse_duration, show_seconds

UNKNOWN = LONGEST
"""A loss that nobody can bound, and the acceptance of any."""


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
    accepts_loss: timedelta | None = None
    """The least that any of them accepted; None: nothing above the RPO."""


@dataclass(frozen=True)
class Refused:
    """Closed for good: who said no, or why nobody's word counts."""

    by: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Stake:
    """What acting behind a gate may lose: the loss as it was seen at a time, and how much the runbook allows."""

    loss: Loss
    seen: datetime
    rpo: timedelta | None
    """None: the runbook sets no bound, so nobody has to accept anything."""

    def at_most(self, now: datetime) -> timedelta:
        """The upper end of the range now; UNKNOWN where there is none."""
        if self.loss.at_most is None:
            return UNKNOWN
        grown = max(timedelta(0), now - self.seen) if self.loss.grows else timedelta(0)
        return min(UNKNOWN, timedelta(seconds=self.loss.at_most) + grown)

    def over(self, now: datetime) -> bool:
        """Whether more may be lost than the RPO allows."""
        return self.rpo is not None and self.at_most(now) > self.rpo

    def accepted(self, loss: timedelta | None, now: datetime) -> bool:
        """Whether acting now loses no more than the RPO allows or a person accepted."""
        return not self.over(now) or (loss is not None and loss >= self.at_most(now))


@dataclass(frozen=True)
class Asked:
    """The circumstances of one gate: when it opened, its deadline, who started the run, in which mode, what is at stake."""

    opened: datetime
    deadline: datetime
    initiator: str
    mode: Mode
    stake: Stake | None = None


def asked_of(opened: GateOpened, started: ExecutionStarted) -> Asked:
    """The circumstances of a gate that is open."""
    rpo = timedelta(seconds=started.rpo) if started.rpo is not None else None
    stake = Stake(opened.loss, opened.at, rpo) if opened.loss is not None else None
    return Asked(opened.at, opened.deadline, started.initiator, started.mode, stake)


def read_accepted(text: str) -> timedelta:
    """Read what a person accepts: '90s', '5m', or 'unknown' for any amount; raises ValueError."""
    return UNKNOWN if text.strip().lower() == "unknown" else parse_duration(text)


def show_accepted(loss: timedelta) -> str:
    """Write it as it was typed."""
    return "unknown" if loss >= UNKNOWN else format_duration(loss)


def show_loss(stake: Stake, now: datetime) -> str:
    """The range in words: '0 s to 4.20 s (rpo 1m)'."""
    low = f"{stake.loss.at_least:.3g} s" if stake.loss.at_least < 60 else show_seconds(timedelta(seconds=stake.loss.at_least))
    high = "an unknown amount" if stake.at_most(now) >= UNKNOWN else show_seconds(stake.at_most(now))
    rpo = f"rpo {format_duration(stake.rpo)}" if stake.rpo is not None else "no rpo"
    return f"{low} to {high} ({rpo})"


def not_accepted(stake: Stake | None, loss: timedelta | None, now: datetime) -> str | None:
    """Why an approval that accepts so much does not count over this loss, or None."""
    if stake is None or stake.accepted(loss, now):
        return None
    said = "names no loss" if loss is None else f"accepts only {show_accepted(loss)}"
    return f"it {said}, and the loss is {show_loss(stake, now)} now; accept at least that, such as {enough(stake, now)}"


def enough(stake: Stake, now: datetime) -> str:
    """What to type to accept this loss, with a minute to spare where it grows."""
    bound = stake.at_most(now)
    if bound >= UNKNOWN:
        return "unknown"
    spare = timedelta(minutes=1) if stake.loss.grows else timedelta(0)
    return format_duration(timedelta(seconds=-(-(bound + spare).total_seconds() // 1)))


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
    rule: Approval, answers: Sequence[ApprovalGiven], asked: Asked, now: datetime, heard: datetime | None = None
) -> Waiting | Approved | Refused:
    """Decide a gate. One counted deny refuses; `quorum` different people must approve; silence is `on_timeout`.

    An answer that came before the gate opened counts; of several by one person the last one counts; an approval older
    than `valid_for` counts for nothing, a deny does not age. Over a loss above the RPO an approval counts only if it
    accepts as much as may be lost now. What a drill loses is drill data.

    heard: until when all answers are known, `now` unless given. Must never happen: an answer that was given in time is
    taken for silence because it was read late.
    """
    if asked.mode in rule.preapprove:
        return Approved((), f"preapproved in mode {asked.mode.value}", UNKNOWN)
    last: dict[str, ApprovalGiven] = {}
    for answer in answers:
        if answer.given_at <= max(asked.deadline, asked.opened) and may_answer(rule, answer.by, asked, now) is None:
            last[answer.by.strip().casefold()] = answer
    denied = [answer for answer in last.values() if answer.answer is Answer.deny]
    if denied:
        said = f": {denied[0].reason}" if denied[0].reason else ""
        return Refused(tuple(answer.by for answer in denied), f"{denied[0].by} said no{said}")
    fresh = [answer for answer in last.values() if now - answer.given_at <= rule.valid_for]
    counted = [answer for answer in fresh if not_accepted(asked.stake, answer.accepts_loss, now) is None]
    approved = tuple(answer.by for answer in counted)
    if len(approved) >= rule.quorum:
        reason = "; ".join(answer.reason for answer in counted if answer.reason)
        return Approved(approved, reason, _least(answer.accepts_loss for answer in counted))
    if (heard or now) < asked.deadline:
        return Waiting(rule.quorum - len(approved), asked.deadline)
    if rule.on_timeout == "proceed" and (asked.stake is None or not asked.stake.over(now)):
        return Approved(approved, "nobody answered in time and the runbook lets it proceed")
    said = f"{len(approved)} of {rule.quorum} people" if approved else "nobody"
    if len(fresh) > len(counted) and asked.stake is not None:
        return Refused((), f"nobody accepted the loss of {show_loss(asked.stake, now)}, so nothing was done")
    return Refused((), f"{said} answered in time, so nothing was done")


def _least(accepted: Iterable[timedelta | None]) -> timedelta | None:
    least = UNKNOWN
    for one in accepted:
        if one is None:
            return None
        least = min(least, one)
    return least
