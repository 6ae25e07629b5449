"""What a person who watches needs to know, made from plan and state: now, next, who decides, how much time is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from flows.clock import recovered_at, recovery_deadline, time_at_work
from flows.events import Answer, Choice, Event, Status
from flows.fencing import warnings
from flows.forecast import expected, forecast
from flows.gates import asked_of, not_accepted, show_accepted
from flows.overrides import loudly
from flows.state import ExecutionState, GateRecord, StepRecord
from runbooks.model import Mode
from runbooks.plan import Plan, PlannedStep
from tasks.durations import show_seconds, show_time


@dataclass(frozen=True)
class Question:
    """Something that people are asked now."""

    name: str
    """What `failover approve EXECUTION NAME` calls it."""
    text: str
    evidence: tuple[str, ...]
    covers: tuple[str, ...]
    deadline: datetime
    choices: tuple[Choice, ...] = ()
    """For a failed step; empty means approve or deny."""
    default: Choice | None = None
    loses: bool = False
    """More may be lost behind it than the RPO allows: who approves is asked how much they accept."""


@dataclass(frozen=True)
class StepView:
    """One line of the table."""

    step: str
    status: str
    budget: str
    actual: str
    """Time at work: people's time counts in no budget, as in the report."""
    text: str
    expected: str = ""
    """What the forecast counts on, and from where: '4.40 s from 7 runs' or 'budget'."""


@dataclass(frozen=True)
class View:
    """Everything on the screen, at one moment."""

    warnings: tuple[str, ...]
    """Fences that people overrode: above everything else."""
    clock: str
    """Time since the impact, what is left of the RTO, the forecast."""
    late: bool
    now: tuple[str, ...]
    next: tuple[str, ...]
    questions: tuple[Question, ...]
    steps: tuple[StepView, ...]


def view(plan: Plan, state: ExecutionState, at: datetime, last_seen: Mapping[str, str]) -> View:
    """Describe an execution at a time. last_seen: what running steps were last seen doing."""
    running = [step.id for step in plan.steps if _runs(state.step(step.id))]
    after = [
        step.id for step in plan.steps
        if state.step(step.id).started is None and state.step(step.id).status is None
        and all(name in running or state.step(name).lets_go_on for name in step.after)
    ]  # fmt: skip
    clock, late = _clock(plan, state, at)
    steps = tuple(_line(plan, step, state, at, last_seen.get(step.id, "")) for step in plan.steps)
    return View(warnings(state), clock, late, tuple(running), tuple(after), questions(state, at), steps)


def questions(state: ExecutionState, at: datetime) -> tuple[Question, ...]:
    """Everything that people are asked at a time: gates, manual steps, failed steps."""
    asked = [
        Question(name, gate.opened.question, (*_too_little(gate, state), *gate.opened.evidence), gate.opened.covers,
                 gate.opened.deadline, loses=_is_over(gate, state, at))
        for name, gate in state.gates.items()
        if gate.waiting and gate.opened
    ]
    asked += [
        Question(name, f"{name} failed: {one.opened.reason}", (), (name,), one.opened.deadline, one.opened.options, one.opened.default)
        for name, one in state.decisions.items()
        if one.closed is None
    ]
    return tuple(asked)


def _is_over(gate: GateRecord, state: ExecutionState, at: datetime) -> bool:
    stake = asked_of(gate.opened, state.started).stake if gate.opened and state.started else None
    return stake is not None and stake.over(at)


def _too_little(gate: GateRecord, state: ExecutionState) -> tuple[str, ...]:
    """Approvals that do not count, because they accept less than may be lost."""
    if gate.opened is None or state.started is None:
        return ()
    stake = asked_of(gate.opened, state.started).stake
    yes = [one for one in gate.answers if one.answer is Answer.approve]
    wrong = [(one.by, not_accepted(stake, one.accepts_loss, max(one.given_at, gate.opened.at))) for one in yes]
    return tuple(f"{by} said yes, which does not count: {why}" for by, why in wrong if why is not None)


def _runs(record: StepRecord) -> bool:
    return record.started is not None and record.status is None


def _clock(plan: Plan, state: ExecutionState, at: datetime) -> tuple[str, bool]:
    if plan.mode is Mode.dry_run or state.clock_start is None:
        return "dry run: nothing is changed", False
    recovered = recovered_at(state, plan)
    since = f"{show_seconds((recovered or at) - state.clock_start)} since impact"
    deadline = recovery_deadline(state, plan)
    if recovered is not None:
        return f"recovered after {show_seconds(recovered - state.clock_start)} of {show_seconds(plan.rto)}", recovered > deadline
    left = deadline - at
    expected = forecast(plan, state, at).recovery
    told = f"forecast {show_seconds(expected - state.clock_start)}" if expected else "no forecast: a step has failed"
    over = left < timedelta(0)
    rest = f"{show_seconds(-left)} OVER the RTO" if over else f"{show_seconds(left)} left of RTO {show_seconds(plan.rto)}"
    return f"{since} | {rest} | {told}", over or (expected is not None and expected > deadline)


def _line(plan: Plan, step: PlannedStep, state: ExecutionState, at: datetime, last_seen: str) -> StepView:
    record = state.step(step.id)
    waiting = any(state.gate(name).waiting for name in (*step.gates, step.id)) and _runs(record)
    status = record.status.value if record.status else ("waits" if waiting else "runs" if record.started else "")
    took = time_at_work(state, plan, step.id, at)
    text = record.detail if record.status else last_seen
    if record.status in {Status.done, Status.rolled_back} and record.describe:
        text = record.describe
    return StepView(step.id, status, show_seconds(step.budget), show_seconds(took) if took is not None else "", text, expected(step, state.history))


def line(event: Event) -> str | None:
    """An event as one line for a log; None for what people need not read."""
    from flows import events as e

    match event:
        case e.ExecutionStarted():
            return f"start {event.runbook} ({event.mode.value}) for {event.service}, rto {show_seconds(timedelta(seconds=event.rto))}"
        case e.Resumed():
            return f"resumed by {event.by} on {event.host}"
        case e.Override():
            return f"OVERRIDE by {event.by}: goes on unleased, from the copy {event.file} of {event.journal}: {event.reason}"
        case e.Preflighted():
            lines = "".join(f"\n    {one.result.upper()} {one}" for one in event.checks if one.result != "ok")
            fine = sum(one.result == "ok" for one in event.checks)
            return f"preflight: {fine} of {len(event.checks)} things that the changes need are there{lines}"
        case e.StepStarted():
            again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
            return f"{event.step}: starts{again}"
        case e.GateOpened():
            evidence = "".join(f"\n    {one}" for one in event.evidence)
            return f"GATE {event.gate}: {event.question} (until {show_time(event.deadline, event.at)}){evidence}"
        case e.ApprovalGiven():
            accepts = f", accepting a loss of {show_accepted(event.accepts_loss)}" if event.accepts_loss is not None else ""
            return f"gate {event.gate}: {event.by} says {event.answer.value}{accepts}{': ' + event.reason if event.reason else ''}"
        case e.GateClosed():
            return f"gate {event.gate}: {'approved' if event.approved else 'refused'}{': ' + event.reason if event.reason else ''}"
        case e.Acting():
            return f"{event.step}: {event.describe}"
        case e.Acted(refused=str()):
            return f"{event.step}: refused: {event.refused}"
        case e.StepFinished():
            return f"{event.step}: {event.status.value.upper()}  {event.detail}"
        case e.DecisionOpened():
            options = "|".join(option.value for option in event.options)
            return f"{event.step} FAILED: {event.reason}; decide {options} (until {show_time(event.deadline, event.at)}, else {event.default.value})"
        case e.DecisionClosed():
            return f"{event.step}: {event.by} decides {event.choice.value}{': ' + event.reason if event.reason else ''}"
        case e.OverrideGiven():
            return f"{event.step}: {event.by} would pass this fence unfenced: {event.reason}"
        case e.FenceOverridden():
            return f"{event.step}: {loudly(event.by, event.reason)}"
        case e.Marked():
            return f"{event.mark.value} at {event.when:%H:%M:%S.%f} UTC"[:-7] + " UTC"
        case e.Forecasted():
            return f"RTO {event.verdict}: recovery is expected at {event.recovery:%H:%M:%S} UTC"
        case e.HistoryLearned():
            skipped = "".join(f"\n    not counted: {one}" for one in event.skipped)
            return f"forecast: learned from {event.executions} earlier executions{skipped}"
        case e.StopAsked():
            return f"stop: {event.by}: {event.reason}; no further change starts"
        case e.RollbackStarted():
            left = "".join(f"\n    not undone: {name}: {why}" for name, why in event.left.items())
            return f"rolling back: {', '.join(event.steps) or 'nothing'}{left}"
        case e.Undoing():
            return f"{event.step}: undoing"
        case e.Interrupted():
            return f"interrupted: {event.reason}"
        case e.ExecutionFinished():
            return f"{event.verdict.value.upper()}: {event.detail}"
        case e.Noted():
            return f"note by {event.by}: {event.text}"
        case _:
            return None
