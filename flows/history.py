"""What earlier executions tell: how long each step of a runbook took, in drills and live runs, without people's time.

Read once for each execution, on a thread and a connection of its own: the scheduler never waits for it, and a journal
that is slow, or holds what this version cannot read, costs the forecast its history and the failover nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from math import ceil

from flows.clock import covered
from flows.engine import Engine
from flows.events import (
    ANY_EVENT,
    DecisionClosed,
    DecisionOpened,
    Event,
    ExecutionStarted,
    GateClosed,
    GateOpened,
    HistoryLearned,
    Past,
    Status,
    StepFinished,
    StepStarted,
)
from flows.journal import Journal, JournalError
from runbooks.model import Mode

EXECUTIONS = 50
"""How many earlier executions of a runbook are read at most."""
SAMPLES = 20
"""How many times of a step are kept; more are thinned, their quantiles stay."""

Span = tuple[datetime, datetime]


def learn_aside(engine: Engine, open_journal: Callable[[], Journal]) -> threading.Thread | None:
    """Read the history on a thread of its own and hand it to the engine; None where no forecast is made."""
    if engine.plan.mode is Mode.dry_run or engine.state.history is not None:
        return None

    def go() -> None:
        with suppress(JournalError, OSError), closing(open_journal()) as journal:  # then budgets do
            learned = read(journal, engine.plan.runbook.name, engine.execution)
            if learned.steps or learned.skipped:
                engine.learn(learned)

    thread = threading.Thread(target=go, name="history", daemon=True)
    thread.start()
    return thread


def read_within(open_journal: Callable[[], Journal], runbook: str, patience: timedelta) -> tuple[HistoryLearned | None, str]:
    """Read the history if that takes no longer than `patience`; else None, and why."""
    found: list[HistoryLearned] = []
    trouble = [f"not read within {patience.total_seconds():g} s"]

    def go() -> None:
        try:
            with closing(open_journal()) as journal:
                found.append(read(journal, runbook))
        except (JournalError, OSError) as error:
            trouble[0] = str(error)

    thread = threading.Thread(target=go, name="history", daemon=True)
    thread.start()
    thread.join(patience.total_seconds())
    return (found[0], "") if found else (None, trouble[0])


def read(journal: Journal, runbook: str, besides: str = "") -> HistoryLearned:
    """What the executions of a runbook tell, one of them left out. Raises JournalError; never for what they hold."""
    found: dict[str, list[float]] = {}
    skipped = []
    counted = 0
    for past in journal.past(runbook, EXECUTIONS + 1):
        if past.execution == besides:
            continue
        try:
            events = [ANY_EVENT.validate_json(body) for body in past.bodies]
        except ValueError as error:  # an older or a newer version wrote it, or it is damaged
            skipped.append(f"execution {past.execution} cannot be read ({_first_line(error)})")
            continue
        begun = events[0]
        if not isinstance(begun, ExecutionStarted) or begun.runbook != runbook or begun.mode is Mode.dry_run:
            continue
        counted += 1
        for step, time in machine_times(events).items():
            found.setdefault(step, []).append(time.total_seconds())
    steps = {step: Past(runs=len(times), seconds=thinned(times)) for step, times in found.items()}
    return HistoryLearned(at=datetime.now(UTC), executions=counted, steps=steps, skipped=tuple(skipped))


def machine_times(events: Sequence[Event]) -> Mapping[str, timedelta]:
    """How long each step that did its work took: its last attempt, without the time that people were waited for.

    Counted are steps that ended `done`. A step that found everything done already, failed or was skipped tells nothing
    about how long the work takes; neither does a manual step, which is people's time from end to end.
    """
    manual = {event.gate for event in events if isinstance(event, GateOpened) and event.manual}
    waits = _waits(events)
    begun: dict[str, datetime] = {}
    times: dict[str, timedelta] = {}
    for event in events:
        if isinstance(event, StepStarted):
            begun[event.step] = event.at
        elif isinstance(event, StepFinished) and event.step in begun and event.step not in manual:
            start = begun.pop(event.step)
            if event.status is Status.done:
                waited = covered(waits.get(event.step, []), start, event.at)
                times[event.step] = max(event.at - start - waited, timedelta(0))
    return times


def _waits(events: Iterable[Event]) -> dict[str, list[Span]]:
    """When people were waited for, by step: at gates that cover it, and while its failure was decided on."""
    gates: dict[str, GateOpened] = {}
    asked: dict[str, datetime] = {}
    waits: dict[str, list[Span]] = {}
    for event in events:
        match event:
            case GateOpened():
                gates[event.gate] = event
            case GateClosed() if event.gate in gates:
                opened = gates.pop(event.gate)
                for step in opened.covers:
                    waits.setdefault(step, []).append((opened.at, event.at))
            case DecisionOpened():
                asked[event.step] = event.at
            case DecisionClosed() if event.step in asked:
                waits.setdefault(event.step, []).append((asked.pop(event.step), event.at))
            case _:
                pass
    return waits


def thinned(times: Iterable[float]) -> tuple[float, ...]:
    """Sorted, in milliseconds' precision, and at most SAMPLES of them, evenly spread over their order."""
    known = sorted(round(time, 3) for time in times)
    if len(known) <= SAMPLES:
        return tuple(known)
    return tuple(known[ceil((number + 0.5) / SAMPLES * len(known)) - 1] for number in range(SAMPLES))


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
