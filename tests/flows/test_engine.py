"""The engine with its threads, a real journal and a world that may hang. Real time, short times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from flows import lease_keeper
from flows.clock import SystemClock
from flows.core import Core
from flows.engine import Engine, Opened
from flows.events import Acting, Answer, LeaseTaken, Progress, Status, StepFinished, Verdict
from flows.journal import EVERYTHING, Held, Holder, JournalError, SaidAboutGate
from flows.journal_sqlite import SqliteJournal
from flows.lease_keeper import LEASE
from flows.listener import Listener
from flows.state import fold
from runbooks.model import Approval
from runbooks.plan import Plan
from runbooks.references import Reference
from tasks.clients import Clients
from tests.flows.world import WORLD, Fact, FenceOff, MakeWriter, Set, Watch, World, make_plan, started, step

SHORT = timedelta(milliseconds=400)


class Fast(Set):
    """A change whose looks are 20 ms apart."""

    name: ClassVar[str] = "sim.fast"
    interval: ClassVar[timedelta] = timedelta(milliseconds=20)


class Hanging(Fast):
    """A change whose call hangs until the test lets it go, and then tries to make another one."""

    name: ClassVar[str] = "sim.hanging"
    release: ClassVar[threading.Event] = threading.Event()
    later: ClassVar[list[str]] = []

    def act(self, before: Fact, clients: Clients) -> None:
        type(self).release.wait(20)
        try:
            clients.check()
            type(self).later.append("left")
        except Exception as error:  # noqa: BLE001
            type(self).later.append(type(error).__name__)
            raise


class Secretive(Fast):
    """A change that puts its secret into everything it says."""

    name: ClassVar[str] = "sim.secretive"
    secret: str = ""

    def describe(self, before: Fact) -> str:
        return f"with {self.secret}"

    def explain(self, state: Fact) -> str:
        return f"by {self.secret}"


@pytest.fixture(autouse=True)
def world() -> World:
    WORLD[0] = World(real=True)
    Hanging.release = threading.Event()
    Hanging.later = []
    return WORLD[0]


@pytest.fixture
def journal(tmp_path: Path):
    journal = SqliteJournal(tmp_path / "journal.db")
    yield journal
    journal.close()


def open_engine(plan: Plan, journal: SqliteJournal, targets: tuple[str, ...] = ("execution:e1",), **more: object) -> Engine:
    clock = SystemClock()
    holder = Holder("e1", "e1/x", "host", 1, "boot")
    held = journal.acquire(targets, holder, LEASE, clock.now())
    assert isinstance(held, Held)
    events = [started(plan, clock.now()), LeaseTaken(at=clock.now(), targets=dict(held.tokens))]
    number = journal.append("e1", 0, events)
    return Engine(Opened("e1", Core(plan, fold(events)), number, holder, held.tokens), journal, clock, **more)


def test_what_the_engine_says_is_what_the_journal_holds(journal: SqliteJournal) -> None:
    plan = make_plan(step("a", Fast), step("b", Fast, after=("a",), with_={"takes": 0.1}))
    state = open_engine(plan, journal).run()
    assert state.verdict is Verdict.recovered
    assert fold(event for _, event in journal.read("e1")) == state
    assert journal.verify("e1") == []


def test_a_hanging_call_costs_its_own_timeout_and_no_other_branch_waits(journal: SqliteJournal) -> None:
    plan = make_plan(step("hangs", Hanging, timeout=SHORT), step("other", Fast), goal="other")
    begun = time.monotonic()
    state = open_engine(plan, journal).run()
    assert time.monotonic() - begun < 3
    assert state.step("hangs").status is Status.timed_out
    assert state.step("other").finished < state.step("hangs").finished


def test_a_late_thread_may_make_no_further_call(journal: SqliteJournal) -> None:
    open_engine(make_plan(step("hangs", Hanging, timeout=SHORT)), journal).run()
    Hanging.release.set()
    wait_for(lambda: Hanging.later)
    assert Hanging.later == ["Revoked"]


def test_nothing_is_done_when_it_cannot_be_announced(journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    real = SqliteJournal.append

    def append(self, execution, after, events, lease=None):
        if any(isinstance(event, Acting) for event in events):
            raise JournalError("disk full")
        return real(self, execution, after, events, lease)

    monkeypatch.setattr(SqliteJournal, "append", append)
    with pytest.raises(JournalError):
        open_engine(make_plan(step("a", Fast)), journal).run()
    assert world.effects == []


def test_no_call_leaves_when_the_lease_may_be_lost(journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr(lease_keeper, "LEASE", timedelta(milliseconds=10))
    engine = open_engine(make_plan(step("a", Fast, timeout=SHORT)), journal)
    swallow(engine.run)  # under load the journal may be first to find the lease gone
    assert engine.state.step("a").status in {Status.timed_out, Status.failed, None}
    assert world.effects == []


def test_a_lease_taken_by_another_stops_the_run_before_its_next_act(journal: SqliteJournal, world: World) -> None:
    plan = make_plan(
        step("wait", Watch, with_={"least": 1}), step("a", Fast, after=("wait",)), goal="a"
    )
    engine = open_engine(plan, journal)
    thread = threading.Thread(target=lambda: swallow(engine.run))
    thread.start()
    journal.break_lease(Holder("e1", "e1/x", "host", 1, "boot"), datetime.now(UTC))
    other = Holder("e2", "e2/y", "host", 2, "boot")
    assert isinstance(journal.acquire(["execution:e1"], other, LEASE, datetime.now(UTC)), Held)
    world.facts["wait"] = 1
    thread.join(10)
    assert world.effects == []


def swallow(run: Callable[[], object]) -> None:
    with suppress(JournalError):
        run()


def test_a_target_that_another_execution_holds_is_not_touched(journal: SqliteJournal, world: World) -> None:
    other = Holder("e2", "e2/y", "host", 2, "boot")
    journal.acquire(["sim:a"], other, LEASE, datetime.now(UTC))
    state = open_engine(make_plan(step("a", Fast)), journal).run()
    assert state.step("a").code == "busy"
    assert world.effects == []


def test_stop_ends_in_good_order_and_gives_the_lease_back(journal: SqliteJournal, world: World) -> None:
    plan = make_plan(step("a", Fast, with_={"takes": 9}), step("b", Fast, after=("a",)))
    engine = open_engine(plan, journal)
    thread = threading.Thread(target=engine.run)
    thread.start()
    wait_for(lambda: world.effects)
    engine.stop("kim", "enough")
    thread.join(5)
    assert not thread.is_alive()
    assert engine.state.interrupted is not None
    assert world.effects == ["a"]
    assert isinstance(journal.acquire(["execution:e1"], Holder("e2", "z", "h", 1, ""), LEASE, datetime.now(UTC)), Held)


def test_the_kill_switch_stops_a_run_before_its_next_change(journal: SqliteJournal, world: World) -> None:
    plan = make_plan(step("wait", Watch), step("a", Fast, after=("wait",)), goal="a")
    engine = open_engine(plan, journal)
    thread = threading.Thread(target=engine.run)
    thread.start()
    journal.switch(EVERYTHING, "kim", "stop all", datetime.now(UTC), on=True)
    thread.join(5)
    assert engine.state.interrupted is not None
    assert world.effects == []


def test_a_switch_turned_between_two_reads_is_found_where_the_act_is_announced(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Listener, "look", lambda *_: None)
    engine = open_engine(make_plan(step("b", Fast), step("a", Fast, after=("b",))), journal, ("execution:e1", "sim:a", "sim:b"))
    journal.switch("sim:a", "kim", "not this one", datetime.now(UTC), on=True)
    state = engine.run()
    assert state.interrupted is not None
    assert world.effects == []
    assert fold(event for _, event in journal.read("e1")) == state


def test_no_step_waits_for_what_others_may_say(journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a journal far away reading the inbox and the switch takes two ways there and back."""
    over, read = threading.Event(), SqliteJournal.inbox
    waited: list[bool] = []

    def slow(self: SqliteJournal, execution: str, after: int = 0) -> object:
        waited.append(over.wait(10))
        return read(self, execution, after)

    monkeypatch.setattr(SqliteJournal, "inbox", slow)
    plan = make_plan(step("a", Fast, with_={"takes": 0.2}), step("b", Fast, after=("a",), with_={"takes": 0.2}))
    assert open_engine(plan, journal).run().verdict is Verdict.recovered
    assert waited == []  # it is still at its first reading
    over.set()


def test_an_answer_in_the_inbox_opens_the_gate(journal: SqliteJournal, world: World) -> None:
    plan = make_plan(
        step("fence", FenceOff, gates=("go",)), step("promote", MakeWriter, after=("fence",), gates=("go",), fenced_by=("fence",)),
        gates={"go": Approval()},
    )  # fmt: skip
    engine = open_engine(plan, journal)
    notices = engine.subscribe()
    thread = threading.Thread(target=engine.run)
    thread.start()
    while getattr(notices.get(timeout=5), "kind", "") != "gate-opened":
        pass
    begun = time.monotonic()
    journal.put("e1", SaidAboutGate(gate="go", answer=Answer.approve, by="kim"), datetime.now(UTC))
    thread.join(5)
    assert engine.state.verdict is Verdict.recovered
    assert time.monotonic() - begun < 2
    assert world.effects == ["fence", "promote"]


def test_an_observer_that_never_reads_slows_nothing(journal: SqliteJournal) -> None:
    engine = open_engine(make_plan(*(step(f"s{n}", Fast) for n in range(30))), journal)
    engine.subscribe()
    begun = time.monotonic()
    assert engine.run().verdict is Verdict.recovered
    assert time.monotonic() - begun < 5


def test_secrets_reach_neither_journal_nor_observers(journal: SqliteJournal) -> None:
    planned = step("a", Secretive)
    planned = replace(planned, arguments={**planned.arguments, "secret": str(Reference("env", ("PASSWORD",))), "takes": 0.3})
    engine = open_engine(make_plan(planned), journal, environ={"PASSWORD": "hunter2-canary"})
    notices = engine.subscribe()
    assert engine.run().verdict is Verdict.recovered
    told = []
    while (notice := notices.get()) is not None:
        told.append(notice.model_dump_json())
        assert not isinstance(notice, Progress) or "***" in notice.text
    kept = "".join(event.model_dump_json() for _, event in journal.read("e1"))
    assert "canary" not in kept + "".join(told)
    assert "by ***" in kept


def test_a_missing_secret_ends_the_step_without_a_call(journal: SqliteJournal, world: World) -> None:
    planned = step("a", Secretive)
    planned = replace(planned, arguments={**planned.arguments, "secret": "${env.NOT_THERE}"})
    state = open_engine(make_plan(planned), journal, environ={}).run()
    assert state.step("a").status is Status.failed
    assert "NOT_THERE" in state.step("a").detail
    assert world.effects == []


def test_every_finished_step_was_told_to_observers(journal: SqliteJournal) -> None:
    engine = open_engine(make_plan(step("a", Fast), step("b", Fast)), journal)
    notices = engine.subscribe()
    engine.run()
    told = []
    while (notice := notices.get()) is not None:
        told.append(notice)
    assert {one.step for one in told if isinstance(one, StepFinished)} == {"a", "b"}


def wait_for(what: Callable[[], object], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
