"""When recovery will end as things go now: the remaining graph, walked with budgets (and people's budgets at gates)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from flows.state import ExecutionState
from runbooks.model import Approval
from runbooks.plan import Plan


@dataclass(frozen=True)
class Forecast:
    """Expected end of each step, and of recovery; None when a step it needs has failed and nobody has decided yet."""

    ends: Mapping[str, datetime]
    recovery: datetime | None


def people_budget(rule: Approval) -> timedelta:
    """The share of the RTO that a gate is given."""
    return rule.budget if rule.budget is not None else rule.timeout


def forecast(plan: Plan, state: ExecutionState, now: datetime) -> Forecast:
    """Walk the steps in order.

    A finished step ended when it did; a running one takes what is left of its budget, but at least until now; a gate
    that is not yet open for a step takes what is left of its budget.
    """
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
        ends[step.id] = max(ready + step.budget, now)
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
