"""Start an execution, or take one over: the only two ways to get an engine."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version

from flows.clock import Clock, uptime
from flows.core import Core
from flows.engine import Engine, Opened
from flows.events import Event, ExecutionStarted, LeaseTaken, Marked, Override, Resumed, Status, Verdict
from flows.holders import Drills, is_dead, me
from flows.journal import EVERYTHING, Busy, Halted, Held, Holder, InboxEntry, Journal
from flows.lease_keeper import LEASE
from flows.preparing import needs_lease
from flows.state import ExecutionState, fold
from runbooks.loader import load_text
from runbooks.model import Mode
from runbooks.plan import Plan, look_up_in
from runbooks.planner import plan as make_plan
from runbooks.problems import Problem, RunbookError
from runbooks.references import inside
from tasks.contract import Change, Mark

NAMELESS = 1.0
"""Seconds to wait for the first event of an execution, which is written right behind its leases."""


class TargetBusy(Exception):
    """Somebody else holds what this run would change."""

    def __init__(self, busy: Busy, doing: str = "") -> None:
        self.busy = busy
        at = f", at step {doing}" if doing else ""
        super().__init__(
            f"{busy.target} is held by execution {busy.holder.execution} on {busy.holder.host} (pid {busy.holder.pid}) "
            f"since {busy.since:%Y-%m-%d %H:%M:%S} UTC{at}"
        )


class CannotResume(Exception):
    """The execution is finished, unknown, or was planned by something else than us."""


@dataclass(frozen=True)
class Request:
    """What somebody asks for: a plan, who asks and through which channel, and what is already known."""

    plan: Plan
    initiator: str
    channel: str
    reason: str = ""
    impact: datetime | None = None
    said: tuple[InboxEntry, ...] = ()
    """Approvals given in advance."""
    execution: str | None = None


@dataclass(frozen=True)
class Leased:
    """What was acquired: target → token, and the uptime right before it was asked for."""

    tokens: Mapping[str, int] = field(default_factory=dict)
    asked: float = field(default_factory=uptime)


def new_id() -> str:
    """A fresh execution id: short enough to say aloud."""
    return secrets.token_hex(4)


def start(journal: Journal, request: Request, clock: Clock, environ: Mapping[str, str] | None = None) -> Engine:
    """Write the execution's first event, with its leases held; give the engine that carries it out.

    Raises RunbookError when a secret that a step needs is missing, TargetBusy when somebody else holds a target, and
    JournalError.
    """
    if journal.copy_of is not None:
        raise CannotResume(f"{journal.place} is a copy of {journal.copy_of}; a new execution needs a journal of its own: name another file")
    plan, now = request.plan, clock.now()
    execution = request.execution or new_id()
    holder = me(execution)
    targets = known_targets(plan, environ)
    leased = Leased()
    if plan.mode is not Mode.dry_run:
        _demand_no_halt(journal, targets)
        drills = Drills(journal, execution) if plan.mode is Mode.live else None
        got = _acquire(journal, holder, targets, drills, clock)
        if isinstance(got, Busy):
            raise TargetBusy(got, where_is(journal, got.holder.execution))
        leased = got
    runbook = plan.runbook
    events: list[Event] = [
        ExecutionStarted(
            at=now, version=our_version(), runbook=runbook.name, title=runbook.title, service=runbook.service,
            file=plan.file, text=plan.text, plan_hash=plan.hash, mode=plan.mode, inputs=dict(plan.inputs),
            rto=plan.rto.total_seconds(), rpo=plan.rpo.total_seconds() if plan.rpo is not None else None,
            initiator=request.initiator, channel=request.channel, reason=request.reason, host=holder.host,
            pid=holder.pid, boot=holder.boot,
        )
    ]  # fmt: skip
    if leased.tokens:
        events.append(LeaseTaken(at=now, targets=dict(leased.tokens)))
    if request.impact is not None:
        events.append(Marked(at=now, mark=Mark.impact, when=request.impact))
    number = journal.append(execution, 0, events)
    for said in request.said:
        journal.put(execution, said, now)
    opened = Opened(execution, Core(plan, fold(events), checks=True), number, holder, leased.tokens, leased.asked)
    return Engine(opened, journal, clock, environ=environ)


def resume(
    journal: Journal, execution: str, by: str, clock: Clock, environ: Mapping[str, str] | None = None
) -> Engine:
    """Take an execution over from whoever carried it out; finished steps are kept, the others look first.

    A dead holder on this machine is told by its process; any other holder's leases are waited for (at most 15 s and as
    long as nobody renews them). Raises CannotResume, TargetBusy and JournalError.
    """
    rows = journal.read(execution)
    if not rows:
        raise CannotResume(f"there is no execution {execution} in {journal.place}")
    _demand_its_place(journal, execution, [event for _, event in rows])
    state = fold(event for _, event in rows)
    plan = replan(state)
    if state.verdict in {Verdict.recovered, Verdict.no_action, Verdict.would, Verdict.rolled_back}:
        raise CannotResume(f"execution {execution} has ended: {state.verdict.value}; start a new one")
    holder = me(execution)
    leased = Leased()
    if plan.mode is not Mode.dry_run:
        targets = known_targets(plan, environ)
        _demand_no_halt(journal, targets)
        leased = _take_over(journal, holder, targets, Drills(journal, execution) if plan.mode is Mode.live else None, clock)
        rows = journal.read(execution)  # again: it may have gone on while we waited
        state = fold(event for _, event in rows)
    now = clock.now()
    again = tuple(step.id for step in plan.steps if _goes_again(plan, state, step.id))
    events: list[Event] = [
        Resumed(at=now, version=our_version(), by=by, host=holder.host, pid=holder.pid, boot=holder.boot, again=again)
    ]
    if leased.tokens:
        events.append(LeaseTaken(at=now, targets=dict(leased.tokens)))
    number = journal.append(execution, rows[-1][0], events)
    opened = Opened(execution, Core(plan, fold(events, state), checks=True), number, holder, leased.tokens, leased.asked)
    return Engine(opened, journal, clock, environ=environ)


def _demand_its_place(journal: Journal, execution: str, events: Sequence[Event]) -> None:
    """Must never happen: a copy goes on unnamed, or a journal goes on with what went on in a copy (break_glass.py)."""
    over = next((event for event in reversed(events) if isinstance(event, Override)), None)
    if journal.copy_of is not None:
        if over is not events[-1]:
            raise CannotResume(
                f"{journal.place} is a copy of {journal.copy_of}; when that is dead, "
                f"`failover resume {execution} --journal {journal.place} --override NAME --reason WHY` goes on with it"
            )
    elif over is not None:
        raise CannotResume(
            f"execution {execution} went on in {over.file} on {over.host} (override by {over.by}), and is here to be read only; "
            "go on with that file, or start a new execution"
        )


def _demand_no_halt(journal: Journal, targets: tuple[str, ...]) -> None:
    for halt in journal.halts():
        if halt.target in {EVERYTHING, *targets}:
            raise Halted(f"{halt}; `failover release` lifts it")


def replan(state: ExecutionState) -> Plan:
    """The plan of an execution, from the journal alone; raises CannotResume when it would not be the same plan."""
    started = state.started
    if started is None:
        raise CannotResume("its first event is missing")
    plan = make_plan(load_text(started.text, started.file), mode=started.mode, inputs=started.inputs)
    if plan.hash != started.plan_hash:
        raise CannotResume(
            f"it was planned by version {started.version}, and {our_version()} would do something else; "
            f"resume it with {started.version}"
        )
    return plan


def _goes_again(plan: Plan, state: ExecutionState, step: str) -> bool:
    """A failure starts again unless it was accepted; so does what a person's or nobody's no held back."""
    record = state.step(step)
    if record.overridden:  # the word is taken back as long as nobody built on it: the fence is tried again first
        leaning = [state.step(one.id).status for one in plan.steps if step in one.fenced_by]
        return not all(status in {Status.done, Status.already} for status in leaning)
    bad = record.status in {Status.failed, Status.timed_out, Status.errored, Status.refused}
    return bad and not record.accepted


def known_targets(plan: Plan, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What the plan's changes touch, as far as it is known before the first step ran.

    Raises RunbookError naming every secret of any step that cannot be read: better now than in the middle.
    """
    look_up = look_up_in({}, {name: name for name in ("id", "mode", "service", "runbook", "started_at", "initiator")}, environ)
    targets: list[str] = []
    problems: list[Problem] = []
    for step in plan.steps:
        references = list(inside(step.arguments))
        for reference in references:
            if reference.secret:
                try:
                    look_up(reference)
                except LookupError as error:
                    problems.append(Problem(step.place, f"step {step.id}", str(error)))
        if not problems and needs_lease(plan.mode, step):
            action = step.action_so_far(look_up)  # what only earlier steps tell seldom names what is changed
            if isinstance(action, Change):
                targets.extend(action.targets)
    if problems:
        raise RunbookError(problems)
    return tuple(dict.fromkeys(targets))


def _acquire(journal: Journal, holder: Holder, targets: Sequence[str], drills: Drills | None, clock: Clock) -> Leased | Busy:
    """Take the leases of the execution and of all targets, or none. A drill in a live run's way is asked to make way.

    That takes as long as the act that the drill has out, usually none, and no longer than its lease lasts. drills: those
    that a live run met; None for others, who ask nobody.
    """
    began = uptime()
    while True:
        asked = uptime()
        got = journal.acquire([f"execution:{holder.execution}", *targets], holder, LEASE, clock.now())
        if isinstance(got, Held):
            return Leased(got.tokens, asked)
        is_drill = drills.hold(got, clock.now()) if drills is not None else False
        patience = NAMELESS if is_drill is None else LEASE.total_seconds() + 1 if is_drill else 0
        if asked - began >= patience:
            return got
        time.sleep(0.02)


def _take_over(journal: Journal, holder: Holder, targets: Sequence[str], drills: Drills | None, clock: Clock) -> Leased:
    """Acquire, waiting for leases that nobody renews; at most one TTL, because a renewed lease has a live holder."""
    give_up = clock.now() + LEASE + timedelta(seconds=1)
    ends: dict[str, str] = {}
    while True:
        got = _acquire(journal, holder, targets, drills, clock)
        if isinstance(got, Leased):
            return got
        if is_dead(got.holder):
            journal.break_lease(got.holder, clock.now())
            continue
        renewed = ends.setdefault(got.target, got.ends) != got.ends
        if renewed or clock.now() > give_up:  # somebody lives
            raise TargetBusy(got, where_is(journal, got.holder.execution))
        time.sleep(0.2)


def where_is(journal: Journal, execution: str) -> str:
    """The steps an execution is at, for people who find it in their way."""
    state = fold(event for _, event in journal.read(execution))
    return ", ".join(name for name, record in state.steps.items() if record.started and record.status is None)


def our_version() -> str:
    """The installed version."""
    try:
        return version("failover-runbooks")
    except PackageNotFoundError:
        return "0+unknown"
