"""Taking leases: never while a call of the former holder may be out, and never longer waited for than that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flows import acquiring, holders, runs
from flows.clock import SystemClock
from flows.engine import Engine
from flows.events import Acting, Event, LeaseTaken, Status, StepFinished, StepStarted, Undoing, Verdict
from flows.journal import Journal
from flows.lease_keeper import CALL, LEASE
from flows.runs import Request, resume, start
from runbooks.model import Mode
from runbooks.plan import Plan
from tests.flows.test_engine import Fast, Hanging, wait_for
from tests.flows.world import WORLD, World, make_plan, step

SHORT = timedelta(seconds=1)
PLAN = make_plan(step("a", Fast))


@pytest.fixture(autouse=True)
def world() -> World:
    WORLD[0] = World(real=True)
    Hanging.release, Hanging.later[:] = threading.Event(), []
    return WORLD[0]


def now() -> datetime:
    return datetime.now(UTC)


def died(journal: Journal, plan: Plan, *events: Event, holding: tuple[str, ...] = ("sim:a",)) -> str:
    """An execution whose process is gone, and what it had written."""
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    holder = engine.leases[0]
    number = journal.head(engine.execution).number
    if events:
        journal.append(engine.execution, number, list(events), holder)
    journal.release(holder, now())
    gone = replace(holder, boot=holder.boot + "0")
    assert holders.is_dead(gone)
    journal.acquire([f"execution:{engine.execution}", *holding], gone, LEASE, now())
    return engine.execution


def acting() -> list[Event]:
    return [StepStarted(at=now(), step="a", attempt=1), Acting(at=now(), step="a", attempt=1, before={"value": None}, target="sim:a", describe="set a")]


def ended(status: Status) -> Event:
    return StepFinished(at=now(), step="a", attempt=1, status=status, detail="")


def took(what: Callable[[], object]) -> float:
    began = time.monotonic()
    what()
    return time.monotonic() - began


@pytest.mark.parametrize("more", [(), (ended(Status.timed_out),), (ended(Status.done), Undoing(at=now(), step="a"))])
def test_the_last_call_of_a_dead_holder_is_waited_for(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, more: tuple[Event, ...]
) -> None:
    """Must never happen: it lands after the look of who takes over, who then makes it again."""
    monkeypatch.setattr(runs, "replan", lambda _state: PLAN)
    monkeypatch.setattr(acquiring, "CALL", SHORT)
    execution, told = died(journal, PLAN, *acting(), *more), list[str]()
    assert SHORT.total_seconds() <= took(lambda: resume(journal, execution, "bo", SystemClock(), tell=told.append)) < 5
    assert len(told) == 1
    assert execution in told[0]


@pytest.mark.parametrize("done", [False, True])
def test_a_dead_holder_without_a_call_is_not_waited_for(journal: Journal, monkeypatch: pytest.MonkeyPatch, *, done: bool) -> None:
    monkeypatch.setattr(runs, "replan", lambda _state: PLAN)
    execution = died(journal, PLAN, *(*acting(), ended(Status.done)) if done else ())
    assert took(lambda: resume(journal, execution, "bo", SystemClock())) < CALL.total_seconds() / 2


def carried_out(journal: Journal, plan: Plan) -> Engine:
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    engine.run()
    return engine


def test_a_run_ends_at_once_and_its_leases_with_the_call_that_it_gave_up(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    """Must never happen: another run has the target while a call that was made under the lease is out."""
    for module in ("acquiring", "engine", "lease_keeper"):
        monkeypatch.setattr(f"flows.{module}.CALL", SHORT)
    hangs = make_plan(step("a", Hanging, timeout=timedelta(milliseconds=300)))
    assert took(lambda: carried_out(journal, hangs)) < SHORT.total_seconds()
    began = time.monotonic()
    live = start(journal, Request(PLAN, "bo", "test"), SystemClock())
    assert SHORT.total_seconds() * 0.8 <= time.monotonic() - began < 5
    Hanging.release.set()
    assert live.run().verdict is Verdict.recovered
    assert Hanging.later == ["Revoked"]


def test_who_ended_in_good_order_is_not_waited_for(journal: Journal) -> None:
    assert carried_out(journal, PLAN).state.verdict is Verdict.recovered
    WORLD[0].facts.clear()
    assert took(lambda: start(journal, Request(PLAN, "bo", "test"), SystemClock())) < CALL.total_seconds() / 2


def test_a_resumed_run_holds_again_what_its_steps_had_learned_to_change(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback goes back to it, and another run must not have it meanwhile."""
    monkeypatch.setattr(runs, "replan", lambda _state: PLAN)
    execution = died(journal, PLAN, LeaseTaken(at=now(), targets={"sim:learned": 1}), holding=("sim:a", "sim:learned"))
    engine = resume(journal, execution, "bo", SystemClock())
    assert set(engine.leases[1]) == {f"execution:{execution}", "sim:a", "sim:learned"}


def test_each_of_several_drills_that_hang_has_its_own_time(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("acquiring", "lease_keeper"):
        monkeypatch.setattr(f"flows.{module}.LEASE", timedelta(seconds=2))
    monkeypatch.setattr("flows.lease_keeper.CALL", timedelta(seconds=0.2))
    drills = [start(journal, Request(replace(make_plan(step(name, Hanging)), mode=Mode.drill), "ines", "test"), SystemClock()) for name in "ab"]
    threads = [threading.Thread(target=drill.run, daemon=True) for drill in drills]
    for drill, thread, name in zip(drills, threads, "ab", strict=True):
        thread.start()
        wait_for(lambda drill=drill, name=name: drill.state.step(name).acting)
    live = make_plan(step("a", Fast), step("b", Fast, after=("a",)))
    assert took(lambda: start(journal, Request(live, "bo", "test"), SystemClock())) > 2
    Hanging.release.set()
    for thread in threads:
        thread.join(20)
