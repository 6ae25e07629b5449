"""Start an execution, or take one over: the only two ways to get an engine."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from flows.acquiring import Acquiring, Leased, Tell
from flows.clock import Clock
from flows.core import Core
from flows.engine import Engine, Opened
from flows.events import Event, ExecutionStarted, LeaseTaken, Marked, Override, Resumed, Status, Verdict
from flows.holders import me
from flows.journal import EVERYTHING, Halted, InboxEntry, Journal
from flows.preparing import needs_lease
from flows.state import ExecutionState, fold
from runbooks.loader import load_text
from runbooks.model import Mode
from runbooks.plan import Plan, look_up_in
from runbooks.planner import plan as make_plan
from runbooks.problems import Problem, RunbookError
from runbooks.references import inside
from tasks.contract import Change, Mark


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


def new_id() -> str:
    """A fresh execution id: short enough to say aloud."""
    return secrets.token_hex(4)


def start(
    journal: Journal, request: Request, clock: Clock, environ: Mapping[str, str] | None = None, *, tell: Tell = lambda _: None
) -> Engine:
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
        leased = Acquiring(journal, holder, clock, live=plan.mode is Mode.live, tell=tell).start(targets)
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
    journal: Journal, execution: str, by: str, clock: Clock, environ: Mapping[str, str] | None = None,
    *, tell: Tell = lambda _: None,
) -> Engine:  # fmt: skip
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
        targets = tuple(dict.fromkeys([*known_targets(plan, environ), *_held_before(execution, rows)]))
        _demand_no_halt(journal, targets)
        leased = Acquiring(journal, holder, clock, live=plan.mode is Mode.live, tell=tell).take_over(targets)
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


def _held_before(execution: str, rows: Sequence[tuple[int, Event]]) -> list[str]:
    """What steps learned to change, and took when they began: a rollback goes back to it, too."""
    taken = [event.targets for _, event in rows if isinstance(event, LeaseTaken)]
    return [target for targets in taken for target in targets if target != f"execution:{execution}"]


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


def our_version() -> str:
    """The installed version."""
    try:
        return version("failover-runbooks")
    except PackageNotFoundError:
        return "0+unknown"
