"""What was lost, for the report: the range that each step told, who accepted it, and transaction by transaction where known."""

from __future__ import annotations

from pydantic import ValidationError

from flows.gates import Stake, show_accepted
from flows.report_parts import LossRange, LostTransactions
from flows.state import ExecutionState, StepRecord
from runbooks.plan import Plan, PlannedStep, may_lose
from tasks.contract import Lost


def losses(plan: Plan, state: ExecutionState) -> tuple[LossRange, ...]:
    """Every range that a finished step told, oldest first; a promotion that was begun counts too."""
    found = [_range(plan, state, step) for step in plan.steps]
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one.at))


def lost_transactions(plan: Plan, state: ExecutionState) -> tuple[LostTransactions, ...]:
    """What each step listed as lost."""
    told = [(step.id, state.step(step.id).finished, lost_of(step, state.step(step.id))) for step in plan.steps]
    return tuple(LostTransactions(step=name, at=at, lost=lost) for name, at, lost in told if lost is not None and at is not None)


def lost_of(step: PlannedStep, record: StepRecord) -> Lost | None:
    """What a finished step listed as lost, from the journal alone; None where it lists nothing."""
    if step.action_type is None or record.output is None:
        return None
    try:
        return step.action_type.lost(step.action_type.state_type().model_validate(record.output))
    except ValidationError:  # a state of another version
        return None


def _range(plan: Plan, state: ExecutionState, step: PlannedStep) -> LossRange | None:
    record = state.step(step.id)
    at = record.finished or record.acted_at
    if record.loss is None or at is None or (may_lose(step) and not record.acting):
        return None
    told = LossRange(step=step.id, at=at, at_least=record.loss.at_least, at_most=record.loss.at_most)
    return told.model_copy(update=_judged(plan, state, step, record)) if may_lose(step) else told


def _judged(plan: Plan, state: ExecutionState, step: PlannedStep, record: StepRecord) -> dict[str, object]:
    """A promotion against the RPO, and who accepted what is above it."""
    at = record.finished or record.acted_at
    if record.loss is None or at is None:
        return {}
    stake = Stake(record.loss, at, plan.rpo)
    closed = state.gate(step.gates[0]).closed if step.gates else None
    accepts = closed.accepts_loss if closed is not None and closed.by else None
    return {
        "promoted": True,
        "within_rpo": None if plan.rpo is None else not stake.over(stake.seen),
        "accepted": show_accepted(accepts) if accepts is not None else "",
        "accepted_by": closed.by if closed is not None and accepts is not None else (),
    }
