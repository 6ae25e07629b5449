"""What a report tells in the order of time: attempts, what was expected when, and what people did to the run itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from flows.clock import recovered_at
from flows.events import (
    Event,
    Forecasted,
    GateClosed,
    GateOpened,
    HistoryLearned,
    Interrupted,
    Marked,
    Noted,
    Override,
    Resumed,
    StepFinished,
    StepStarted,
    StopAsked,
)
from flows.forecast import forecast
from flows.report_parts import Expectation, Intervention, Try
from flows.state import ExecutionState, apply
from runbooks.model import Mode
from runbooks.plan import Plan

POINTS, BETWEEN = 60, 40
"""How many times of the forecast a report shows at most, at events and between them; each costs a walk over all steps."""
_TELLING = (StepStarted, StepFinished, GateOpened, GateClosed, Marked, Forecasted, HistoryLearned)


def tries(events: Sequence[Event]) -> dict[str, tuple[Try, ...]]:
    """Every attempt at every step; one that its process did not end is closed where that process was last heard of."""
    found: dict[str, list[Try]] = {}
    open_: dict[str, tuple[int, datetime]] = {}
    last = None
    for event in events:
        match event:
            case StepStarted():
                open_[event.step] = (event.attempt, event.at)
            case StepFinished() if event.step in open_:
                number, start = open_.pop(event.step)
                one = Try(number=number, start=start, end=event.at, status=event.status.value)
                found.setdefault(event.step, []).append(one)
            case Resumed():
                for step, (number, start) in open_.items():
                    found.setdefault(step, []).append(Try(number=number, start=start, end=last, status="interrupted"))
                open_ = {}
            case _:
                pass
        last = event.at
    for step, (number, start) in open_.items():
        found.setdefault(step, []).append(Try(number=number, start=start, end=None, status="running"))
    return {step: tuple(some) for step, some in found.items()}


def expectations(plan: Plan, events: Sequence[Event]) -> tuple[Expectation, ...]:
    """When recovery was expected: at the events that may have changed that, and in between, until it came.

    In between, because time changes it too: a step that takes longer than it ever did moves the end with every second.
    """
    telling = [number for number, event in enumerate(events) if isinstance(event, _TELLING)]
    if plan.mode is Mode.dry_run or not telling:
        return ()
    chosen = {telling[-1], *telling[:: -(-len(telling) // POINTS)]}
    gap = max((events[-1].at - events[0].at) / BETWEEN, timedelta(milliseconds=100))
    state, points = ExecutionState(), list[Expectation]()
    for number, event in enumerate(events):
        while points and event.at - points[-1].at > gap * 1.5:
            points.append(_expected(plan, state, points[-1].at + gap))
        state = apply(state, event)
        over = recovered_at(state, plan) if number in chosen or isinstance(event, StepFinished) else None
        if over is not None:
            points.append(Expectation(at=event.at, recovery=over))
            break
        if number in chosen:
            points.append(_expected(plan, state, event.at))
    return tuple(points)


def _expected(plan: Plan, state: ExecutionState, at: datetime) -> Expectation:
    return Expectation(at=at, recovery=forecast(plan, state, at).recovery)


def interventions(events: Sequence[Event]) -> tuple[Intervention, ...]:
    """Stops, the kill switch, takeovers, notes, and what the forecast could not read."""
    found = []
    for event in events:
        match event:
            case StopAsked():
                what = "kill switch" if event.by == "kill switch" else "stop"
                found.append(Intervention(at=event.at, what=what, by=event.by, reason=event.reason))
            case Interrupted():
                found.append(Intervention(at=event.at, what="interrupted", by="", reason=event.reason))
            case Resumed():
                again = f"starts again: {', '.join(event.again)}" if event.again else ""
                found.append(Intervention(at=event.at, what="resumed", by=f"{event.by} on {event.host}", reason=again))
            case Noted():
                found.append(Intervention(at=event.at, what="note", by=event.by, reason=event.text))
            case HistoryLearned():
                found += [Intervention(at=event.at, what="not counted in the forecast", by="", reason=one) for one in event.skipped]
            case _:
                pass
    return tuple(found)


def unleased(events: Sequence[Event]) -> tuple[str, ...]:
    """Each override as one line; empty when the journal's leases held all the time."""
    return tuple(
        f"{one.at:%H:%M:%S} unleased, journal copy: {one.by} on {one.host} went on from {one.file} (up to event {one.last}) "
        f"because {one.journal} was dead: {one.reason}"
        for one in events if isinstance(one, Override)
    )  # fmt: skip
