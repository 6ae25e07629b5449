"""What is written when a step ends, and when people are asked."""

from __future__ import annotations

from typing import Any

from flows.events import GateOpened, Status, StepFinished
from flows.messages import Look, Revoke
from flows.turn import Attempt, Turn
from runbooks.plan import GateRule, PlannedStep, is_change


def finish(turn: Turn, step: PlannedStep, status: Status, detail: str, look: Look | None = None, **more: Any) -> None:
    """End a step with a status; its attempt, if any, is over and may call nothing more."""
    number = turn.state.step(step.id).attempt
    attempt = turn.core.attempts.get(step.id)
    output = look.state.model_dump(mode="json") if look is not None else None
    if attempt is not None:
        turn.set(step.id, None)
        turn.commands.append(Revoke(step.id, attempt.number, "the step has ended"))
    turn.write(
        StepFinished(at=turn.now, step=step.id, attempt=number, status=status, detail=detail, output=output, **more)
    )


def failed(turn: Turn, step: PlannedStep, status: Status, reason: str, code: str = "") -> None:
    """A step did not do what it should; `_settle_failures` does what the runbook says about it."""
    attempt = turn.core.attempts.get(step.id)
    accepted = step.on_failure == "continue" or step.on_failure in turn.plan.by_id
    finish(turn, step, status, reason, attempt.last if attempt else None, code=code, accepted=accepted)


def last_words(step: PlannedStep, attempt: Attempt) -> str:
    """What a step that timed out was last seen doing, or what was in its way."""
    seen = ""
    if attempt.trouble:
        seen = f"; last trouble: {attempt.trouble}"
    elif attempt.last is not None:
        seen = f"; last seen: {attempt.last.explain}"
    hung = " (a call hangs)" if attempt.busy else ""
    return f"not done after {step.timeout.total_seconds():g}s{hung}{seen}"


def open_gate(turn: Turn, gate: GateRule, step: PlannedStep, look: Look | None) -> None:
    """Ask people, with the evidence that is known now; a gate that waits already is not asked again."""
    record = turn.state.gate(gate.name)
    if record.waiting:
        return
    evidence = [look.describe] if look is not None and look.describe else []
    for name, known in turn.state.steps.items():
        planned = turn.plan.by_id[name]
        if known.status is Status.done and not is_change(planned) and known.detail:
            evidence.append(f"{name}: {known.detail}")
    turn.write(
        GateOpened(at=turn.now, gate=gate.name, question=gate.rule.title or step.title, covers=gate.covers,
                   evidence=tuple(evidence), deadline=turn.now + gate.rule.timeout, manual=step.manual is not None)
    )  # fmt: skip
