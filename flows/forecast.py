"""When recovery will end as things go now: the remaining graph, walked with what each step took before, else its budget.

A step's own history counts from three earlier runs on (drills and live runs; see flows.history); people's time at gates
is always their budget, for how long people take tonight no drill can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from flows.events import HistoryLearned, Past
from flows.state import ExecutionState
from runbooks.model import Approval
from runbooks.plan import Plan, PlannedStep
from tasks.durations import show_seconds

EXPECTED, CAREFUL = 0.5, 0.9
"""Shares of earlier runs that were no slower: for what is shown as expected, and for saying that the RTO is at risk."""
ENOUGH = 3
"""Earlier runs from which on a step's history counts more than its budget."""


@dataclass(frozen=True)
class Forecast:
    """Expected end of each step, and of recovery; None when a step it needs has failed and nobody has decided yet."""

    ends: Mapping[str, datetime]
    recovery: datetime | None


def people_budget(rule: Approval) -> timedelta:
    """The share of the RTO that a gate is given."""
    return rule.budget if rule.budget is not None else rule.timeout


def past_of(step: PlannedStep, history: HistoryLearned | None) -> Past | None:
    """What is known of a step's earlier runs, when it is enough to go by."""
    past = history.steps.get(step.id) if history is not None and step.manual is None else None
    return past if past is not None and past.runs >= ENOUGH and past.seconds else None


def source(step: PlannedStep, history: HistoryLearned | None) -> str:
    """Where the forecast of a step comes from: 'from 7 runs' or 'budget'."""
    past = past_of(step, history)
    return "budget" if past is None else f"from {past.runs} runs"


def expected(step: PlannedStep, history: HistoryLearned | None) -> str:
    """What the forecast counts on, and from where: '4.40 s from 7 runs' or 'budget'."""
    told = source(step, history)
    return told if past_of(step, history) is None else f"{show_seconds(time_for(step, history))} {told}"


def quantile(seconds: tuple[float, ...], share: float) -> float:
    """The smallest of the sorted times that at least this share of them does not pass."""
    return seconds[max(0, ceil(share * len(seconds)) - 1)]


def time_for(
    step: PlannedStep, history: HistoryLearned | None, share: float = EXPECTED, spent: timedelta = timedelta(0)
) -> timedelta:
    """How long a step takes in all, given that it has already taken `spent`.

    Earlier runs that were over by then tell nothing about this one; when all were, only the budget is left.
    """
    past = past_of(step, history)
    longer = tuple(one for one in past.seconds if one > spent.total_seconds()) if past is not None else ()
    return timedelta(seconds=quantile(longer, share)) if longer else step.budget


def forecast(
    plan: Plan, state: ExecutionState, now: datetime, share: float = EXPECTED, history: HistoryLearned | None = None
) -> Forecast:
    """Walk the steps in order. history: what the execution learned itself, unless given.

    A finished step ended when it did; a running one takes what is left of its time, but at least until now; a gate
    that is not yet open for a step takes what is left of its budget.
    """
    history = history or state.history
    ends: dict[str, datetime] = {}
    gate_ends: dict[str, datetime] = {}
    start = state.started.at if state.started else now
    for step in plan.steps:
        record = state.step(step.id)
        if record.status is not None and record.lets_go_on:
            ends[step.id] = record.finished or now
            continue
        ready = max((ends[name] for name in step.after if name in ends), default=start)
        if record.status is not None or any(name not in ends for name in step.after):
            continue  # failed and undecided, or behind such a step: no end can be told
        ready = record.started if record.started is not None else max(ready, now)
        begun = ready
        for gate in step.gates:
            gate_ends.setdefault(gate, _gate_end(plan, state, gate, begun, now))
            ready = max(ready, gate_ends[gate])
        ends[step.id] = max(ready + time_for(step, history, share, now - ready), now)
    goals = [ends.get(name) for name in plan.runbook.recovered_when]
    known = [end for end in goals if end is not None]
    return Forecast(ends, max(known) if known and len(known) == len(goals) else None)


def _gate_end(plan: Plan, state: ExecutionState, gate: str, begun: datetime, now: datetime) -> datetime:
    record, rule = state.gate(gate), plan.gate_by_name[gate]
    if record.closed is not None:
        return record.closed.at
    if state.started is not None and plan.mode in rule.rule.preapprove:
        return begun
    opened = record.opened.at if record.opened else begun
    return max(opened + people_budget(rule.rule), now)
