"""What was lost, for the report: the range that each step told, against the RPO, and who accepted it."""

from __future__ import annotations

from flows.gates import Stake, show_accepted
from flows.report_parts import LossRange
from flows.state import ExecutionState, StepRecord
from runbooks.plan import Plan, PlannedStep, may_lose


def losses(plan: Plan, state: ExecutionState) -> tuple[LossRange, ...]:
    """Every range that a finished step told, oldest first; a promotion that was begun counts too."""
    found = [_range(plan, state, step) for step in plan.steps]
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one.at))


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
