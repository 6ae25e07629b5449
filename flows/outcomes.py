"""What is written when a step ends, and when people are asked."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flows.clock import recovery_deadline
from flows.events import GateOpened, Status, StepFinished
from flows.fencing import warnings
from flows.forecast import forecast, people_budget
from flows.losses import loss_behind, lost_lines, tell_loss
from flows.messages import Look, Revoke
from flows.turn import IN_DOUBT, Attempt, Turn
from runbooks.model import Mode
from runbooks.plan import GateRule, PlannedStep, change_type, is_change
from tasks.durations import show_seconds


def finish(turn: Turn, step: PlannedStep, status: Status, detail: str, look: Look | None = None, **more: Any) -> None:
    """End a step with a status; its attempt, if any, is over and may call nothing more."""
    number = turn.state.step(step.id).attempt
    attempt = turn.core.attempts.get(step.id)
    output = look.state.model_dump(mode="json") if look is not None else None
    if attempt is not None:
        turn.set(step.id, None)
        turn.commands.append(Revoke(step.id, attempt.number, "the step has ended"))
    turn.write(
        StepFinished(at=turn.now, step=step.id, attempt=number, status=status, detail=detail, output=output,
                     loss=look.loss if look is not None else None, **more)
    )  # fmt: skip


def failed(turn: Turn, step: PlannedStep, status: Status, reason: str, code: str = "") -> None:
    """A step did not do what it should; `settle_failures` does what the runbook says about it.

    Must never happen: an irreversible step in doubt that nobody could look at is passed over without a person.
    """
    attempt = turn.core.attempts.get(step.id)
    accepted = step.on_failure == "continue" or step.on_failure in turn.plan.by_id
    if attempt is not None and _is_unseen(turn, step, attempt):
        accepted, code = False, IN_DOUBT
        reason = f"in doubt: announced before ({turn.state.step(step.id).describe}), and it cannot be seen whether it happened: {reason}"
    finish(turn, step, status, reason, attempt.last if attempt else None, code=code, accepted=accepted)


def _is_unseen(turn: Turn, step: PlannedStep, attempt: Attempt) -> bool:
    """Whether an earlier attempt announced what cannot be undone, and this one has not had a single look at it."""
    change = change_type(step)
    return change is not None and not change.reversible and turn.state.step(step.id).acting and attempt.seen is None


def last_words(step: PlannedStep, attempt: Attempt) -> str:
    """What a step that timed out was last seen doing, or what was in its way."""
    seen = ""
    if attempt.trouble:
        seen = f"; last trouble: {attempt.trouble}"
    elif attempt.last is not None:
        seen = f"; last seen: {attempt.last.explain}"
    hung = " (a call hangs)" if attempt.busy else ""
    return f"not done after {step.timeout.total_seconds():g}s{hung}{seen}"


def open_gate(turn: Turn, gate: GateRule, step: PlannedStep, look: Look | None, again: str = "") -> None:
    """Ask people, with the evidence that is known now; a gate that waits already is not asked again.

    again: why the approval that was there does not count any more.
    """
    record = turn.state.gate(gate.name)
    if record.waiting:
        return
    loss = loss_behind(turn, gate, step, look)
    deadline = turn.now + gate.rule.timeout
    evidence = (*_evidence(turn, gate, step, look), *lost_lines(turn, gate, step))  # last: where room is short, a list gives way
    if loss is not None:
        evidence = (*evidence[:1], tell_loss(turn, loss, deadline), *evidence[1:])
    if again:
        evidence = (f"asked again: {again}", *evidence)
    turn.write(
        GateOpened(at=turn.now, gate=gate.name, question=gate.rule.title or step.title, covers=gate.covers, again=again,
                   evidence=evidence, deadline=deadline, manual=step.manual is not None, loss=loss)
    )  # fmt: skip


def _evidence(turn: Turn, gate: GateRule, step: PlannedStep, look: Look | None) -> tuple[str, ...]:
    """What will change, what is past undoing, what was found out, what waiting costs, what going costs."""
    lines = list(warnings(turn.state))
    lines += [f"now: {look.describe}"] if look is not None and look.describe else []
    for name in gate.covers:
        other, change = turn.plan.by_id[name], change_type(turn.plan.by_id[name])
        if name != step.id and change is not None and turn.state.step(name).status is None:
            lines.append(f"then: {other.title} ({name})" + ("" if change.reversible else ", which cannot be undone"))
    for name, known in turn.state.steps.items():
        if known.status is Status.done and not is_change(turn.plan.by_id[name]) and known.detail:
            lines.append(f"{name}: {known.detail}")
    if turn.plan.mode is not Mode.dry_run and turn.state.clock_start is not None:
        lines.append(time_left(turn, gate, turn.state.clock_start))
    return tuple(lines)


def time_left(turn: Turn, gate: GateRule, impact: datetime) -> str:
    """What waiting costs: time since the impact, what is left of the RTO, until when an answer keeps it."""
    left = recovery_deadline(turn.state, turn.plan) - turn.now
    rto = f"{show_seconds(left)} of the RTO left" if left > timedelta(0) else f"the RTO passed {show_seconds(-left)} ago"
    ready = forecast(turn.plan, turn.state, turn.now).recovery
    if ready is None:
        return f"time: {show_seconds(turn.now - impact)} since the impact, {rto}"
    at_once = ready - people_budget(gate.rule)
    last_call = recovery_deadline(turn.state, turn.plan) - (at_once - turn.now)
    answer_by = f"answer by {last_call:%H:%M:%S} UTC to keep it" if last_call > turn.now else "it will be missed"
    expected = f"answered now, recovery is expected {show_seconds(at_once - impact)} after the impact"
    return f"time: {show_seconds(turn.now - impact)} since the impact, {rto}; {expected}; {answer_by}"
