"""The report of an execution, from its events alone: the same at any later time, on any machine that has the journal.

`build` makes one frozen Report; flows.report_text, report_html and report_png only write it down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from flows.anchors import anchor_of
from flows.clock import covered, people_waits, recovered_at, recovery_time, time_at_work
from flows.events import ANY_EVENT, Acted, Event, Status, Verdict
from flows.fencing import warnings
from flows.forecast import source, time_for
from flows.journal import Journal
from flows.journal_chain import Row, examine
from flows.journal_keys import KeyFile
from flows.loss_report import losses, lost_transactions
from flows.report_parts import (
    Fact,
    FenceLine,
    GateLine,
    Lasting,
    Parts,
    Report,
    Said,
    Seal,
    Span,
    StepLine,
    Warned,
)
from flows.report_story import expectations, interventions, tries, unleased
from flows.state import ExecutionState, GateRecord, fold
from runbooks.plan import Plan, change_type
from tasks.contract import Mark


@dataclass(frozen=True)
class Source:
    """Everything a report is made from."""

    execution: str
    plan: Plan
    events: Sequence[Event]
    seal: Seal = field(default_factory=Seal)
    """Where it is kept and by what; empty where nobody asks for that."""


def read_source(journal: Journal, execution: str, plan: Plan) -> Source:
    """Read an execution once, and check the seals of what was read. Raises JournalError."""
    rows = journal.stored(execution)
    return Source(execution, plan, [ANY_EVENT.validate_json(row.body) for row in rows], _seal(journal, execution, rows))


def _seal(journal: Journal, execution: str, rows: Sequence[Row]) -> Seal:
    found = examine(execution, rows, journal.vouched(execution), KeyFile().find)
    return Seal(
        journal=journal.place, events=len(rows), hash=rows[-1].hash if rows else "", anchor=str(anchor_of(rows[-1])) if rows else "",
        problems=tuple(one.text for one in found if not one.unchecked), unchecked=tuple(one.text for one in found if one.unchecked),
    )  # fmt: skip


def build(source: Source, facts: Sequence[Fact] = ()) -> Report:
    """Make the report of an execution; one under way gives a report of what is so far."""
    plan, events = source.plan, source.events
    state = fold(events)
    if state.started is None or state.last is None or state.clock_start is None:
        raise ValueError(f"execution {source.execution} has no start")
    begun, history = state.started, state.history
    return Report(
        execution=source.execution, runbook=begun.runbook, title=begun.title, service=begun.service,
        mode=begun.mode.value, verdict=verdict_word(state), detail=state.finished.detail if state.finished else "",
        initiator=begun.initiator, channel=begun.channel, reason=begun.reason, version=begun.version,
        plan_hash=begun.plan_hash, seal=source.seal, started=begun.at, ended=state.last, impact=state.clock_start,
        detected=state.marks.get(Mark.detected), declared=state.marks.get(Mark.declared),
        recovered=recovered_at(state, plan), rto=begun.rto, rpo=begun.rpo, rta=_parts(state, plan),
        rto_met=_met(state, plan), people=_people(state, plan, state.last), steps=_lines(plan, state, events),
        gates=_gates(state), answers=_answers(state), fences=_fences(plan, state), losses=losses(plan, state),
        lost_transactions=lost_transactions(plan, state), expectations=expectations(plan, events),
        warnings=tuple(Warned(at=one.at, verdict=one.verdict, recovery=one.recovery) for one in state.forecasts),
        lasting=_lasting(plan, state),
        refusals=tuple(f"{one.step}: {one.refused}" for one in events if isinstance(one, Acted) and one.refused),
        interventions=interventions(events), overridden=warnings(state), unleased=unleased(events), preflight=_preflight(state),
        history="budgets only" if history is None else f"{history.executions} earlier executions", facts=tuple(facts),
    )  # fmt: skip


def verdict_word(state: ExecutionState) -> str:
    """The verdict, or 'interrupted' or 'running'."""
    if state.finished is not None:
        return state.finished.verdict.value
    return "interrupted" if state.interrupted is not None else "running"


def facts_of(pairs: Mapping[str, str]) -> tuple[Fact, ...]:
    """Facts from name and value."""
    return tuple(Fact(name=name, value=value) for name, value in pairs.items())


def _parts(state: ExecutionState, plan: Plan) -> Parts | None:
    time = recovery_time(state, plan)
    if time is None:
        return None
    return Parts(
        total=time.total.total_seconds(), detection=time.detection.total_seconds(),
        decision=time.decision.total_seconds(), automation=time.automation.total_seconds(),
        verification=time.verification.total_seconds(),
    )  # fmt: skip


def _met(state: ExecutionState, plan: Plan) -> bool | None:
    at, start = recovered_at(state, plan), state.clock_start
    if at is not None and start is not None:
        return at - start <= plan.rto
    return False if state.verdict in {Verdict.failed, Verdict.refused, Verdict.rolled_back} else None


def _people(state: ExecutionState, plan: Plan, last: datetime) -> float:
    spans = [(span.start, span.end or last) for step in plan.steps for span in _waits(state, plan, step.id)]
    return covered(spans, min((start for start, _ in spans), default=last), last).total_seconds()


def _waits(state: ExecutionState, plan: Plan, name: str) -> tuple[Span, ...]:
    return tuple(Span(start=start, end=end) for start, end in people_waits(state, plan, name))


def _lines(plan: Plan, state: ExecutionState, events: Sequence[Event]) -> tuple[StepLine, ...]:
    attempts = tries(events)
    lines = []
    for step in plan.steps:
        record, waits, waited = state.step(step.id), _waits(state, plan, step.id), timedelta(0)
        end = record.finished or state.last
        actual = time_at_work(state, plan, step.id, end) if end is not None else None
        if record.first_started is not None and end is not None and actual is not None:
            waited = end - record.first_started - actual
        status = record.status.value if record.status else ("running" if record.started else "not started")
        lines.append(StepLine(
            step=step.id, title=step.title, uses=step.uses or "manual", status=status,
            budget=step.budget.total_seconds(), expected=time_for(step, state.history).total_seconds(),
            expected_from=source(step, state.history),
            actual=actual.total_seconds() if actual is not None else None, waited=waited.total_seconds(),
            started=record.first_started, finished=record.finished, attempts=record.attempt,
            tries=attempts.get(step.id, ()), waits=waits, change=record.describe, detail=record.detail,
        ))  # fmt: skip
    return tuple(lines)


def _gates(state: ExecutionState) -> tuple[GateLine, ...]:
    lines = []
    for name, record in state.gates.items():
        if record.opened is None:
            continue
        opened = record.opened
        asked = [Span(start=start, end=end) for start, end in record.waited]
        asked += [Span(start=opened.at, end=None)] if record.waiting else []
        waited = sum(((end - start).total_seconds() for start, end in record.waited), 0.0)
        lines.append(GateLine(
            gate=name, question=opened.question, covers=opened.covers, evidence=opened.evidence,
            state="waiting" if record.waiting else "approved" if record.approved else "refused",
            outcome=_outcome(record), waited=waited, asked=tuple(asked), deadline=opened.deadline, manual=opened.manual,
        ))  # fmt: skip
    return tuple(lines)


def _outcome(record: GateRecord) -> str:
    if record.closed is None:
        return "waiting"
    who = f"by {', '.join(record.closed.by)}" if record.closed.by else ""
    why = f"({record.closed.reason})" if record.closed.reason else ""
    return " ".join(filter(None, ("approved" if record.closed.approved else "refused", who, why)))


def _answers(state: ExecutionState) -> tuple[Said, ...]:
    said = [
        Said(gate=one.gate, answer=one.answer.value, by=one.by, how=one.how, reason=one.reason, at=one.given_at)
        for record in state.gates.values()
        for one in record.answers
    ]
    said += [
        Said(gate=f"{name} failed", answer=one.closed.choice.value, by=one.closed.by, how="", reason=one.closed.reason, at=one.closed.at)
        for name, one in state.decisions.items()
        if one.closed is not None
    ]
    said += [
        Said(gate=f"override of fence {name}", answer="override", by=one.by, how=one.how, reason=one.reason, at=one.given_at)
        for name, words in state.overrides.items()
        for one in words
    ]
    return tuple(sorted(said, key=lambda one: one.at))


def _fences(plan: Plan, state: ExecutionState) -> tuple[FenceLine, ...]:
    lines = []
    for step in plan.steps:
        change, record = change_type(step), state.step(step.id)
        if change is None or not change.fences or record.started is None:
            continue
        facts = facts_of({name: _shown(value) for name, value in (record.output or {}).items() if _plain(value)})
        status = record.status.value if record.status else "running"
        lines.append(FenceLine(step=step.id, title=step.title, status=status, evidence=record.detail, at=record.finished, facts=facts))
    return tuple(lines)


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _shown(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _preflight(state: ExecutionState) -> tuple[str, ...]:
    """What the looks before the first change found that was not as it should be."""
    checks = state.preflight.checks if state.preflight is not None else ()
    return tuple(f"{one.result}: {one}" for one in checks if one.result != "ok")


def _lasting(plan: Plan, state: ExecutionState) -> tuple[Lasting, ...]:
    """What cannot be undone from here, and what a rollback left as it is."""
    left = dict(state.rollback.left) if state.rollback is not None else {}
    for step in plan.steps:
        change = change_type(step)
        if change is not None and not change.reversible and state.step(step.id).status is Status.done:
            why = "from here the way back is a new failover" if change.point_of_no_return else "it cannot be undone from here"
            left.setdefault(step.id, why)
    return tuple(Lasting(step=name, why=why) for name, why in left.items())
