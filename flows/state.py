"""The durable state of an execution: a pure fold of its events, the same in every process that reads the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from flows.events import (
    Acted,
    Acting,
    ApprovalGiven,
    DecisionClosed,
    DecisionOpened,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FenceOverridden,
    Forecasted,
    GateClosed,
    GateOpened,
    HistoryLearned,
    Interrupted,
    Marked,
    OverrideGiven,
    Preflighted,
    Resumed,
    RollbackStarted,
    Status,
    StepAgain,
    StepFinished,
    StepStarted,
    StepWaits,
    StopAsked,
    Undoing,
    Verdict,
)
from flows.overrides import loudly
from runbooks.plan import PREFLIGHT
from tasks.contract import Loss, Mark


@dataclass(frozen=True)
class StepRecord:
    """What the journal knows about one step. `status` None means not finished."""

    attempt: int = 0
    """Of the last start; 0 means never started."""
    started: datetime | None = None
    first_started: datetime | None = None
    finished: datetime | None = None
    status: Status | None = None
    detail: str = ""
    code: str = ""
    output: Mapping[str, Any] | None = None
    accepted: bool = False
    ends: str = ""
    loss: Loss | None = None
    """What a promotion would lose, or lost, as the step last saw it."""
    acting: bool = False
    """A change was announced and may have left: its effect is ours, or in doubt."""
    acted_at: datetime | None = None
    advanced_at: datetime | None = None
    """As `acted_at`, not counting acts that only took back what this step did."""
    before: Mapping[str, Any] | None = None
    """The first one announced: undo goes back to it."""
    announced: Mapping[str, Any] | None = None
    """The last one announced: what a phased change goes on from after a crash. None when it has ended."""
    told: tuple[Mapping[str, Any], datetime] | None = None
    """Of a fence: what it was last seen as before it waited for people, or failed, and when."""
    describe: str = ""
    undoing: bool = False
    failed_first: datetime | None = None
    """When it was first seen to fail; nothing that people say of its failure can be older."""
    overridden: str = ""
    """Of a fence: the sentence that says who let the run pass it and why; empty: nobody did."""
    undone: bool = False
    """Undoing was tried and came to an end, well or not."""

    @property
    def unchanged(self) -> bool:
        """An act was announced, yet the world was last seen as it was before: there is nothing to undo."""
        return self.acting and self.output is not None and self.output == self.before

    @property
    def lets_go_on(self) -> bool:
        """Whether what comes after may start."""
        return self.accepted or (self.status is not None and self.status.lets_go_on)


@dataclass(frozen=True)
class GateRecord:
    """What the journal knows about one gate."""

    opened: GateOpened | None = None
    closed: GateClosed | None = None
    answers: tuple[ApprovalGiven, ...] = ()
    waited: tuple[tuple[datetime, datetime], ...] = ()
    """Every span from opening to closing; more than one when asked again."""

    @property
    def approved(self) -> bool:
        """Whether it stands open now."""
        return self.closed is not None and self.closed.approved

    @property
    def waiting(self) -> bool:
        """Whether people are being asked now."""
        return self.opened is not None and self.closed is None


@dataclass(frozen=True)
class DecisionRecord:
    """A question about a failed step."""

    opened: DecisionOpened
    closed: DecisionClosed | None = None


@dataclass(frozen=True)
class ExecutionState:
    """The fold. Empty until `started`."""

    started: ExecutionStarted | None = None
    steps: Mapping[str, StepRecord] = field(default_factory=dict)
    gates: Mapping[str, GateRecord] = field(default_factory=dict)
    decisions: Mapping[str, DecisionRecord] = field(default_factory=dict)
    overrides: Mapping[str, tuple[OverrideGiven, ...]] = field(default_factory=dict)
    """What people said about fences that do not hold, by step."""
    marks: Mapping[Mark, datetime] = field(default_factory=dict)
    forecasts: tuple[Forecasted, ...] = ()
    preflight: Preflighted | None = None
    """Of the process that runs it now: a resume looks again."""
    history: HistoryLearned | None = None
    """What the forecast knows of earlier executions; None: budgets only."""
    stop: StopAsked | None = None
    rollback: RollbackStarted | None = None
    interrupted: Interrupted | None = None
    finished: ExecutionFinished | None = None
    adopted: int = 0
    """Last inbox entry that became an event."""
    last: datetime | None = None

    def step(self, name: str) -> StepRecord:
        """The record of a step, an empty one when it never started."""
        return self.steps.get(name, StepRecord())

    def gate(self, name: str) -> GateRecord:
        """The record of a gate, an empty one when it was never touched."""
        return self.gates.get(name, GateRecord())

    @property
    def verdict(self) -> Verdict | None:
        """What became of it, None while it is under way."""
        return self.finished.verdict if self.finished else None

    @property
    def clock_start(self) -> datetime | None:
        """When the RTO clock started: at the impact, else at the start."""
        return self.marks.get(Mark.impact) or (self.started.at if self.started else None)


Record = TypeVar("Record")


def _with(records: Mapping[str, Record], name: str, record: Record) -> Mapping[str, Record]:
    return {**records, name: record}


def fold(events: Iterable[Event], state: ExecutionState | None = None) -> ExecutionState:
    """Apply events in order."""
    state = state or ExecutionState()
    for event in events:
        state = apply(state, event)
    return state


def apply(state: ExecutionState, event: Event) -> ExecutionState:
    """The state after one more event; pure and total."""
    state = replace(state, last=event.at, adopted=max(state.adopted, getattr(event, "entry", 0)))
    match event:
        case ExecutionStarted():
            return replace(state, started=event)
        case StepStarted() | StepWaits() | Acting() | Acted() | StepFinished() | StepAgain() | Undoing() | FenceOverridden():
            return replace(state, steps=_with(state.steps, event.step, _step(state.step(event.step), event)))
        case GateOpened() | ApprovalGiven() | GateClosed():
            gates = _with(state.gates, event.gate, _gate(state.gate(event.gate), event))
            return replace(state, gates=gates)
        case DecisionOpened():
            return replace(state, decisions=_with(state.decisions, event.step, DecisionRecord(event)))
        case DecisionClosed():
            known = replace(state.decisions[event.step], closed=event)
            return replace(state, decisions=_with(state.decisions, event.step, known))
        case OverrideGiven():
            return replace(state, overrides=_with(state.overrides, event.step, (*state.overrides.get(event.step, ()), event)))
        case Marked():
            return state if event.mark in state.marks else replace(state, marks={**state.marks, event.mark: event.when})
        case Forecasted():
            return replace(state, forecasts=(*state.forecasts, event))
        case Preflighted():
            return replace(state, preflight=event)
        case HistoryLearned():
            return replace(state, history=event)
        case StopAsked():
            return replace(state, stop=event)
        case RollbackStarted():
            return replace(state, rollback=event)
        case Interrupted():
            return replace(state, interrupted=event)
        case ExecutionFinished():
            return replace(state, finished=event)
        case Resumed():
            return _resumed(state, event)
        case _:
            return state


def _step(
    record: StepRecord,
    event: StepStarted | StepWaits | Acting | Acted | StepFinished | StepAgain | Undoing | FenceOverridden,
) -> StepRecord:
    match event:
        case StepStarted():
            first = record.first_started or event.at
            return replace(record, attempt=event.attempt, started=event.at, first_started=first, status=None, finished=None, overridden="")
        case Acting():
            before = record.before if record.before is not None else event.before
            return replace(
                record, acting=True, before=before, announced=event.before, describe=event.describe, acted_at=event.at,
                advanced_at=record.advanced_at if event.retreats else event.at,
            )  # fmt: skip
        case Acted():
            return record
        case StepWaits():
            return replace(record, told=(event.seen, event.at))
        case StepFinished():
            output = event.output if event.output is not None else record.output
            bad = not event.status.lets_go_on
            return replace(
                record, status=event.status, detail=event.detail, code=event.code, output=output,
                accepted=event.accepted, ends=event.ends, finished=event.at, loss=event.loss or record.loss, undoing=False,
                announced=None, undone=record.undone or record.undoing,
                failed_first=record.failed_first or (event.at if bad else None),
                told=(event.output, event.at) if event.output is not None else record.told,
            )  # fmt: skip
        case StepAgain():
            return replace(record, status=None, finished=None, accepted=False)
        case FenceOverridden():
            return replace(record, overridden=loudly(event.by, event.reason))
        case Undoing():
            return replace(record, undoing=True)


def _gate(record: GateRecord, event: GateOpened | ApprovalGiven | GateClosed) -> GateRecord:
    match event:
        case GateOpened():
            return replace(record, opened=event, closed=None)
        case ApprovalGiven():
            return replace(record, answers=(*record.answers, event))
        case GateClosed():
            opened = record.opened.at if record.opened else event.at
            return replace(record, closed=event, waited=(*record.waited, (opened, event.at)))


def _resumed(state: ExecutionState, event: Resumed) -> ExecutionState:
    """Start the named steps again.

    A refused gate forgets its answers and asks again, a waiting one asks anew and keeps them, an approved one stays.
    """
    steps = {**state.steps}
    for name in event.again:
        steps[name] = replace(state.step(name), status=None, finished=None, accepted=False, overridden="")
    gates = {}
    for name, record in state.gates.items():
        if name == PREFLIGHT:  # what was accepted is not what the next look may find
            continue
        answers = record.answers if record.closed is None else ()
        gates[name] = record if record.approved else replace(record, opened=None, closed=None, answers=answers)
    decisions = {name: record for name, record in state.decisions.items() if record.closed is not None}
    decisions = {name: record for name, record in decisions.items() if name not in event.again}
    return replace(
        state, steps=steps, gates=gates, decisions=decisions, stop=None, interrupted=None, finished=None,
        preflight=None,
    )
