"""Time: the clock port, the RTO clock's marks, and what the recovery time was made of.

The RTO clock starts at the impact, not when somebody pressed a button, and stops when `recovered_when` holds.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from flows.events import Status
from flows.state import ExecutionState
from runbooks.plan import Plan, is_change
from tasks.contract import Mark


class Clock(Protocol):
    """The time of an engine."""

    def now(self) -> datetime:
        """UTC; never goes back within one process."""
        ...


def uptime() -> float:
    """Seconds since the machine started, asleep or not: the same for all its processes, and nobody sets it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def boot_id() -> str:
    """Which start of the machine this is; '' where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def uptime_of() -> str:
    """Whose seconds `uptime` counts: this boot's, in this time namespace; '' where the system does not tell."""
    boot, namespace = boot_id(), ""
    with suppress(OSError):  # a kernel without time namespaces has one clock
        namespace = str(Path("/proc/self/ns/time").readlink())
    return f"{boot}/{namespace}" if boot else ""


class SystemClock:
    """UTC at construction, carried on by `uptime`: a clock that is set meanwhile changes no measured time."""

    def __init__(self) -> None:
        self._wall = datetime.now(UTC)
        self._uptime = uptime()

    def now(self) -> datetime:
        """See Clock."""
        return self._wall + timedelta(seconds=uptime() - self._uptime)


@dataclass(frozen=True)
class RecoveryTime:
    """What RTA consisted of, along the chain that finished last. The parts add up to `total`.

    Detection: impact until the outage was detected (or, with no detection, until the run started). Decision: people at
    gates and failed steps. Verification: probes after the last change. Automation: everything else.
    """

    impact: datetime
    recovered: datetime | None
    detection: timedelta
    decision: timedelta
    automation: timedelta
    verification: timedelta

    @property
    def total(self) -> timedelta:
        """The recovery time actual."""
        return self.detection + self.decision + self.automation + self.verification


def recovery_deadline(state: ExecutionState, plan: Plan) -> datetime:
    """When the RTO ends."""
    start = state.clock_start
    if start is None:
        raise ValueError("an execution without its start")
    return start + plan.rto


def recovered_at(state: ExecutionState, plan: Plan) -> datetime | None:
    """When the last of `recovered_when` succeeded; None while one has not."""
    times = []
    for name in plan.runbook.recovered_when:
        record = state.step(name)
        if record.status not in {Status.done, Status.already} or record.finished is None:
            return None
        times.append(record.finished)
    return max(times)


def recovery_time(state: ExecutionState, plan: Plan) -> RecoveryTime | None:
    """Split the time from impact to recovery; None before the service has recovered."""
    impact, recovered = state.clock_start, recovered_at(state, plan)
    if impact is None or recovered is None or state.started is None:
        return None
    detected = state.marks.get(Mark.detected) or state.marks.get(Mark.declared) or state.started.at
    detected = min(max(detected, impact), recovered)
    chain = last_chain(state, plan)
    verified_from = detected
    for name in chain:
        finished = state.step(name).finished
        if is_change(plan.by_id[name]) and finished is not None and state.step(name).status is Status.done:
            verified_from = max(verified_from, finished)
    verified_from = min(verified_from, recovered)
    waits = [span for name in chain for span in people_spans(state, plan, name)]
    decision = covered(waits, detected, verified_from)
    late_decision = covered(waits, verified_from, recovered)
    return RecoveryTime(
        impact=impact,
        recovered=recovered,
        detection=detected - impact,
        decision=decision + late_decision,
        automation=verified_from - detected - decision,
        verification=recovered - verified_from - late_decision,
    )


def last_chain(state: ExecutionState, plan: Plan) -> tuple[str, ...]:
    """The steps that recovery really waited for, first to last: back from the last goal by the last finished before it."""
    epoch = datetime.min.replace(tzinfo=UTC)

    def finished(name: str) -> datetime:
        return state.step(name).finished or epoch

    name = max(plan.runbook.recovered_when, key=finished)
    chain = [name]
    while plan.by_id[name].after:
        name = max(plan.by_id[name].after, key=finished)
        chain.append(name)
    return tuple(reversed(chain))


def people_waits(state: ExecutionState, plan: Plan, name: str) -> list[tuple[datetime, datetime | None]]:
    """When people were waited for on behalf of a step, at its gates and at the question after a failure; None: still."""
    step, first = plan.by_id[name], state.step(name).first_started
    spans: list[tuple[datetime, datetime | None]] = []
    for gate in (*step.gates, *((name,) if step.manual else ())):
        record = state.gate(gate)
        spans += [(max(opened, first or opened), closed) for opened, closed in record.waited]
        if record.waiting and record.opened is not None and first is not None:
            spans.append((max(record.opened.at, first), None))
    decision = state.decisions.get(name)
    if decision is not None:
        spans.append((decision.opened.at, decision.closed.at if decision.closed is not None else None))
    return sorted((span for span in spans if span[1] is None or span[1] > span[0]), key=lambda span: span[0])


def people_spans(state: ExecutionState, plan: Plan, name: str) -> list[tuple[datetime, datetime]]:
    """Those of `people_waits` that are over."""
    return [(start, end) for start, end in people_waits(state, plan, name) if end is not None]


def time_at_work(state: ExecutionState, plan: Plan, name: str, at: datetime) -> timedelta | None:
    """How long a step took, or takes by now, without the time that people were waited for; None before it started."""
    record = state.step(name)
    if record.first_started is None:
        return None
    end = record.finished or at
    waits = [(start, until or end) for start, until in people_waits(state, plan, name)]
    return end - record.first_started - covered(waits, record.first_started, end)


def covered(spans: list[tuple[datetime, datetime]], start: datetime, end: datetime) -> timedelta:
    """How much of start…end the spans cover together, overlaps counted once."""
    total, reached = timedelta(0), start
    for first, last in sorted(spans):
        begun, ended = max(first, reached), min(last, end)
        if ended > begun:
            total += ended - begun
            reached = ended
    return total
