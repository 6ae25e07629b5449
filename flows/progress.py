"""Starting what is ready, ending what is over, and saying in time that the RTO is at risk."""

from __future__ import annotations

from dataclasses import replace

from flows.attempts import send_look
from flows.clock import recovery_deadline
from flows.events import ExecutionFinished, Forecasted, Interrupted, Status, StepFinished, StepStarted
from flows.forecast import CAREFUL, EXPECTED, forecast
from flows.messages import Revoke
from flows.outcomes import open_gate
from flows.rollback import is_left
from flows.rules import condition_holds, manual_gate, verdict_of
from flows.state import StepRecord
from flows.turn import Attempt, Phase, Turn
from runbooks.model import Mode
from runbooks.plan import PlannedStep


def start_ready(turn: Turn) -> bool:
    """Start or skip every step whose time has come; True when that may have made others ready."""
    started = False
    for step in turn.plan.steps:
        record = turn.state.step(step.id)
        if record.status is not None or step.id in turn.core.attempts or turn.state.gate(step.id).waiting:
            continue
        if all(turn.state.step(name).lets_go_on for name in step.after):
            started = _start(turn, step, record) or started
    return started


def _start(turn: Turn, step: PlannedStep, record: StepRecord) -> bool:
    """Start or skip a step whose time has come; True when something that comes after may be ready now."""
    skip = _reason_to_skip(turn, step)
    if skip is not None:
        ends = next((turn.state.step(name).ends for name in step.after if turn.state.step(name).ends), "")
        turn.write(StepFinished(at=turn.now, step=step.id, attempt=0, status=Status.skipped, detail=skip, ends=ends))
        return True
    number = record.attempt + 1
    if step.manual is not None and turn.plan.mode is Mode.dry_run:
        turn.write(
            StepFinished(at=turn.now, step=step.id, attempt=number, status=Status.would,
                         detail=f"would ask a person: {step.manual}")
        )  # fmt: skip
        return True
    turn.write(StepStarted(at=turn.now, step=step.id, attempt=number))
    if step.manual is not None:
        open_gate(turn, manual_gate(step), step, None)
        return False
    turn.set(step.id, Attempt(number, turn.now + step.timeout))
    send_look(turn, step.id)
    return False


def _reason_to_skip(turn: Turn, step: PlannedStep) -> str | None:
    for name in step.after:
        if turn.state.step(name).ends:
            return turn.state.step(name).ends
    if turn.plan.mode is Mode.drill and step.drill == "skip":
        return "left out in a drill"
    if step.handles and not any(turn.state.step(name).accepted for name in step.handles):
        return f"only runs when {' or '.join(step.handles)} fails"
    for condition in step.when:
        if not condition_holds(condition, turn.state, turn.plan):
            return f"{condition.subject} is not {' or '.join(map(str, condition.values))}"
    return None


def stop_attempts(turn: Turn) -> None:
    """Asked to stop: attempts that changed nothing end at once, those that acted are observed once more."""
    if not turn.stopping:
        return
    for name, attempt in list(turn.core.attempts.items()):
        waiting = attempt.phase in {Phase.gated, Phase.looking} and not turn.state.step(name).acting
        if waiting or (attempt.phase is Phase.verifying and not attempt.busy and attempt.due != turn.now):
            turn.set(name, None)
            turn.commands.append(Revoke(name, attempt.number, "stopped"))


def tell_forecast(turn: Turn) -> None:
    """Say once that recovery is expected after the RTO, and once that the RTO has passed."""
    if turn.plan.mode is Mode.dry_run or turn.state.started is None:
        return
    deadline = recovery_deadline(turn.state, turn.plan)
    told = {known.verdict for known in turn.state.forecasts}
    share = EXPECTED if turn.now > deadline else CAREFUL  # it is at risk when one run in ten would be late
    recovery = forecast(turn.plan, turn.state, turn.now, share).recovery
    if recovery is None or _recovered(turn):
        return
    if turn.now > deadline and "missed" not in told:
        turn.write(Forecasted(at=turn.now, verdict="missed", recovery=recovery))
    elif recovery > deadline and not told:
        turn.write(Forecasted(at=turn.now, verdict="at-risk", recovery=recovery))


def _recovered(turn: Turn) -> bool:
    return all(turn.state.step(name).status in {Status.done, Status.already} for name in turn.plan.runbook.recovered_when)


def end(turn: Turn) -> None:
    """End the execution, or this process's part in it, when nothing is under way and nobody is asked."""
    open_questions = any(record.waiting for record in turn.state.gates.values()) or any(
        record.closed is None for record in turn.state.decisions.values()
    )
    if turn.plan.mode is Mode.dry_run and turn.core.checking and turn.state.preflight is None and not turn.stopping:
        return  # what it finds is what a dry run is for
    if turn.core.attempts or turn.core.undoing is not None or (open_questions and not turn.stopping):
        return
    if turn.stopping and turn.state.stop is not None and not _all_finished(turn):
        turn.write(Interrupted(at=turn.now, reason=turn.state.stop.reason))
    else:
        verdict, detail = verdict_of(turn.plan, turn.state)
        turn.write(ExecutionFinished(at=turn.now, verdict=verdict, detail=detail))
    turn.core = replace(turn.core, ended=True)


def _all_finished(turn: Turn) -> bool:
    """Of a rollback that was stopped half-way nothing is: its verdict would say that everything was brought back."""
    return not is_left(turn) and all(turn.state.step(step.id).status is not None for step in turn.plan.steps)
