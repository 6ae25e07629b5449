"""What Prefect is to show: a pure projection of the journal's state onto Prefect's state types.

Nothing here calls Prefect. Whoever has the journal has the picture: the running flow, and after an outage the reconciler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from flows.clock import recovery_time
from flows.events import Status, Verdict
from flows.state import ExecutionState, StepRecord
from runbooks.plan import Plan, PlannedStep
from tasks.durations import show_seconds

StateType = Literal["PENDING", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED", "CRASHED"]
LONGEST = 2000
"""Of a message, in characters; the journal has all of it."""

_STATUS: Mapping[Status, tuple[StateType, str]] = {
    Status.done: ("COMPLETED", "Done"),
    Status.already: ("COMPLETED", "Already"),
    Status.would: ("COMPLETED", "Would"),
    Status.skipped: ("COMPLETED", "Skipped"),
    Status.refused: ("FAILED", "Refused"),
    Status.failed: ("FAILED", "Failed"),
    Status.timed_out: ("FAILED", "TimedOut"),
    Status.errored: ("FAILED", "Errored"),
    Status.rolled_back: ("CANCELLED", "RolledBack"),
}
_VERDICT: Mapping[Verdict, tuple[StateType, str]] = {
    Verdict.recovered: ("COMPLETED", "Recovered"),
    Verdict.no_action: ("COMPLETED", "NoAction"),
    Verdict.would: ("COMPLETED", "Would"),
    Verdict.failed: ("FAILED", "Failed"),
    Verdict.refused: ("FAILED", "Refused"),
    Verdict.rolled_back: ("FAILED", "RolledBack"),
}


@dataclass(frozen=True)
class Shown:
    """A state in Prefect's words."""

    type: StateType
    name: str
    message: str = ""

    @property
    def final(self) -> bool:
        """Whether Prefect takes it as an end."""
        return self.type in {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}


@dataclass(frozen=True)
class StepShown:
    """A step's task run: its state, since when it is so, and the span of its work."""

    state: Shown
    at: datetime
    began: datetime | None = None
    ended: datetime | None = None
    attempt: int = 0


def steps(plan: Plan, state: ExecutionState) -> dict[str, StepShown]:
    """Every step of the plan as a task run, in the plan's order."""
    if state.started is None:
        return {}
    over = state.finished or state.interrupted
    begun, ended = state.started.at, over.at if over else None
    return {step.id: _step(step, state, begun, ended) for step in plan.steps}


def ending(plan: Plan | None, state: ExecutionState) -> Shown | None:
    """The flow run's final state; None while the execution is under way. Completed means that the goal was met.

    plan: None when another version made it; then the recovery time is not told.
    """
    if state.finished is not None:
        kind, name = _VERDICT[state.finished.verdict]
        detail = state.finished.detail
        return Shown(kind, name, _cut(_with_times(plan, state, detail) if plan is not None else detail))
    if state.interrupted is not None:
        said = f"interrupted: {state.interrupted.reason}; Retry, or `failover resume`, goes on with the same execution"
        return Shown("CANCELLED", "Interrupted", _cut(said))
    return None


def _step(step: PlannedStep, state: ExecutionState, begun: datetime, over: datetime | None) -> StepShown:
    record = state.step(step.id)
    began = record.first_started
    if record.status is not None and record.finished is not None:
        kind, name = _STATUS[record.status]
        shown = Shown(kind, name, _cut(record.detail))
        return StepShown(shown, record.finished, began or record.finished, record.finished, record.attempt)
    if over is not None:
        name, said = ("Interrupted", "its end was not seen") if record.attempt else ("NotRun", "held back: it never started")
        return StepShown(Shown("CANCELLED", name, said), over, began or over, over, record.attempt)
    if record.attempt == 0:
        return StepShown(Shown("PENDING", "Pending", _cut(step.title)), begun)
    gates = [name for name in (*step.gates, step.id) if state.gate(name).waiting]
    at = record.started or begun
    if gates and not record.acting:
        asked = max((opened.at for name in gates if (opened := state.gate(name).opened)), default=at)
        return StepShown(Shown("PAUSED", "AtGate", f"people are asked: {', '.join(gates)}"), asked, began, None, record.attempt)
    return StepShown(Shown("RUNNING", "Running", _cut(_doing(record))), at, began, None, record.attempt)


def _doing(record: StepRecord) -> str:
    return record.describe if record.acting else ""


def _with_times(plan: Plan, state: ExecutionState, detail: str) -> str:
    time = recovery_time(state, plan)
    if time is None:
        return detail
    return f"{detail} in {show_seconds(time.total)} (RTO {show_seconds(plan.rto)})"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
