"""What was lost, for the report: the range of each promotion, against the RPO, and who accepted it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from pydantic import BaseModel, ConfigDict

from flows.gates import Stake, show_accepted
from flows.state import ExecutionState
from runbooks.plan import Plan, may_lose
from tasks.durations import show_seconds


class LossLine(BaseModel):
    """What one promotion may have lost, and who let it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    at_least: float
    """seconds"""
    at_most: float | None
    """seconds; None: not known"""
    within_rpo: bool | None
    """None: the runbook has no RPO."""
    accepted: str
    """what was accepted above the RPO; empty: nothing had to be"""
    accepted_by: tuple[str, ...]


def losses(plan: Plan, state: ExecutionState) -> tuple[LossLine, ...]:
    """One line for every promotion that was begun."""
    lines = []
    for step in plan.steps:
        record = state.step(step.id)
        if not may_lose(step) or not record.acting or record.loss is None:
            continue
        stake = Stake(record.loss, record.finished or record.acted_at or state.last, plan.rpo)  # type: ignore[arg-type]
        closed = state.gate(step.gates[0]).closed if step.gates else None
        accepts = closed.accepts_loss if closed is not None and closed.by else None
        lines.append(
            LossLine(step=step.id, at_least=record.loss.at_least, at_most=record.loss.at_most,
                     within_rpo=None if plan.rpo is None else not stake.over(stake.seen),
                     accepted=show_accepted(accepts) if accepts is not None else "",
                     accepted_by=closed.by if closed is not None and accepts is not None else ())
        )  # fmt: skip
    return tuple(lines)


def loss_lines(lines: Sequence[LossLine], rpo: float | None) -> list[str]:
    """What each promotion may have lost against the RPO, and who accepted it."""
    told = []
    for one in lines:
        high = "an unknown amount" if one.at_most is None else _seconds(one.at_most)
        against = {True: f", within the RPO of {_seconds(rpo)}", False: f", OVER the RPO of {_seconds(rpo)}", None: ""}
        said = f"; {', '.join(one.accepted_by)} accepted {one.accepted}" if one.accepted else ""
        told.append(f"Loss  {one.step}: {_seconds(one.at_least)} to {high} of acknowledged data{against[one.within_rpo]}{said}")
    return told


def _seconds(value: float | None) -> str:
    return "-" if value is None else show_seconds(timedelta(seconds=value))
