"""Who wins when two promises collide: docs/who-wins.md, a test per row. Rows that are proven elsewhere name that test."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from flows import clock as clock_module
from flows import lease_keeper, runs
from flows.acquiring import TargetBusy
from flows.break_glass import Named, go_on
from flows.clock import SystemClock
from flows.events import Acting, Answer, Checked, Override, Status, StopAsked, Undoing, Verdict
from flows.journal import EVERYTHING, Busy, Halted, Held, Holder, JournalError, SaidAboutGate, SaidOverride
from flows.journal_copy import LocalCopy
from flows.journal_sqlite import SqliteJournal
from flows.lease_keeper import LEASE
from flows.runs import Request, resume, start
from flows.state import fold
from runbooks.model import Approval, Mode
from runbooks.plan import PREFLIGHT, Plan
from tasks.clients import Clients
from tasks.errors import Revoked
from tests.flows.test_engine import Fast, open_engine, wait_for
from tests.flows.world import (
    START,
    WORLD,
    Fact,
    FenceOff,
    MakeWriter,
    Set,
    Simulation,
    Watch,
    World,
    failure,
    make_plan,
    step,
)

ROOT = Path(__file__).parents[2]
KIM = Named("kim", "the database is dead")


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


class Way:
    """Where a slow call of the running test stands."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.refused = threading.Event(), threading.Event(), list[str]()

    def calls(self, clients: Clients, what: str) -> None:
        """Make two calls; the test says when the second one may leave."""
        clients.check()
        WORLD[0].effects.append(f"{what}, first call")
        self.begun.set()
        assert self.go_on.wait(20)
        try:
            clients.check()
        except Revoked as error:
            self.refused.append(str(error))
            raise
        WORLD[0].effects.append(f"{what}, second call")


WAY: list[Way] = [Way()]


class Slow(Fast):
    """A change of two calls."""

    name: ClassVar[str] = "sim.slow"

    def act(self, before: Fact, clients: Clients) -> None:
        WAY[0].calls(clients, f"do {self.fact}")
        WORLD[0].facts[self.fact] = self.to


class SlowBack(Fast):
    """A change that is done at once, and whose way back is two calls."""

    name: ClassVar[str] = "sim.slow-back"

    def undo(self, before: Fact, clients: Clients) -> None:
        WAY[0].calls(clients, f"bring {self.fact} back")
        super().undo(before, clients)


@pytest.fixture(autouse=True)
def world() -> World:
    WORLD[0] = World(real=True)
    WAY[0] = Way()
    return WORLD[0]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(tmp_path / "journal.db")
    yield journal
    journal.close()


def running(run: Callable[[], object]) -> tuple[threading.Thread, list[Exception]]:
    """Run on a thread; what it raises is kept."""
    raised: list[Exception] = []

    def go() -> None:
        try:
            run()
        except Exception as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    return thread, raised


def planned(monkeypatch: pytest.MonkeyPatch, *steps: object, **more: object) -> Plan:
    """A plan that is planned again from nothing, so that a resume needs no text."""
    made = make_plan(*steps, **more)  # type: ignore[arg-type]
    monkeypatch.setattr(runs, "replan", lambda _state: made)
    return made


def halt(journal: SqliteJournal, *, on: bool = True, target: str = EVERYTHING) -> None:
    journal.switch(target, "ana", "stop all", datetime.now(UTC), on=on)


# -- the kill switch


def test_the_switch_lets_an_act_under_way_end_and_be_seen_and_starts_no_other(journal: SqliteJournal, world: World) -> None:
    engine = open_engine(make_plan(step("a", Slow), step("b", Fast, after=("a",))), journal)
    thread, _ = running(engine.run)
    assert WAY[0].begun.wait(5)
    halt(journal)
    wait_for(lambda: engine.state.stop)
    WAY[0].go_on.set()
    thread.join(5)
    assert world.effects == ["do a, first call", "do a, second call"]
    assert engine.state.step("a").status is Status.done
    assert engine.state.step("b").started is None
    assert engine.state.interrupted is not None


def test_the_switch_holds_a_rollback_which_a_resume_goes_on_with(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.fail_acts["c"] = [failure()]
    plan = planned(
        monkeypatch, step("a", Fast), step("b", SlowBack, after=("a",)), step("c", Fast, after=("b",), on_failure="roll-back")
    )
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    thread, _ = running(engine.run)
    assert WAY[0].begun.wait(5)  # b is being brought back
    halt(journal)
    wait_for(lambda: engine.state.stop)
    WAY[0].go_on.set()
    thread.join(5)
    assert "undo b" in world.effects
    assert "undo a" not in world.effects
    assert engine.state.verdict is None, "half a way back is not a rollback"
    with pytest.raises(Halted):
        resume(journal, engine.execution, "kim", SystemClock())
    halt(journal, on=False)
    state = resume(journal, engine.execution, "kim", SystemClock()).run()
    assert state.verdict is Verdict.rolled_back
    assert [effect for effect in world.effects if effect in {"undo a", "undo b"}] == ["undo b", "undo a"]


def test_an_undo_that_the_switch_keeps_from_leaving_is_still_to_be_done(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switch is turned between the announcement of an undo and its call."""
    world.fail_acts["c"] = [failure()]
    plan = planned(monkeypatch, step("a", Fast), step("c", Fast, after=("a",), on_failure="roll-back"))
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    real = engine._start_undo

    def late(command: object) -> None:
        halt(journal)
        engine._listener.look(journal)
        real(command)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "_start_undo", late)
    state = engine.run()
    assert "undo a" not in world.effects
    assert (state.verdict, state.step("a").undone) == (None, False)
    halt(journal, on=False)
    assert resume(journal, engine.execution, "kim", SystemClock()).run().verdict is Verdict.rolled_back
    assert world.effects.count("undo a") == 1


def test_a_step_in_doubt_is_not_even_looked_at_while_the_switch_is_on(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(monkeypatch, step("a", Fast))
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    number = journal.read(engine.execution)[-1][0]
    now = datetime.now(UTC)
    journal.append(engine.execution, number, [Acting(at=now, step="a", attempt=1, before={"value": None}, target="sim:a", describe="set a")])
    journal.break_lease(engine.leases[0], now)
    halt(journal)
    with pytest.raises(Halted):
        resume(journal, engine.execution, "kim", SystemClock())
    assert fold(event for _, event in journal.read(engine.execution)).step("a").acting
    halt(journal, on=False)
    world.facts["a"] = 1  # it had happened
    state = resume(journal, engine.execution, "kim", SystemClock()).run()
    assert (state.step("a").status, world.effects) == (Status.done, [])


def test_two_people_who_override_a_fence_do_not_override_the_switch(journal: SqliteJournal, world: World) -> None:
    world.fail_acts["fence"] = [failure()] * 9
    plan = make_plan(
        step("fence", FenceOff, on_failure="ask"), step("promote", MakeWriter, after=("fence",), fenced_by=("fence",))
    )
    engine = open_engine(plan, journal)
    thread, _ = running(engine.run)
    wait_for(lambda: engine.state.step("fence").status)
    halt(journal)
    for name in ("bo", "cleo"):
        journal.put("e1", SaidOverride(step="fence", by=name, reason="the hall is under water"), datetime.now(UTC))
    thread.join(5)
    assert world.effects == []
    assert engine.state.interrupted is not None


def test_an_approval_does_not_open_what_the_switch_holds(journal: SqliteJournal, world: World) -> None:
    plan = make_plan(step("a", Fast, gates=("go",)), gates={"go": Approval()})
    engine = open_engine(plan, journal)
    thread, _ = running(engine.run)
    wait_for(lambda: engine.state.gate("go").waiting)
    halt(journal)
    journal.put("e1", SaidAboutGate(gate="go", answer=Answer.approve, by="kim"), datetime.now(UTC))
    thread.join(5)
    assert (engine.state.interrupted is not None, world.effects) == (True, [])


# -- the journal


def unreadable(*_: object, **__: object) -> None:
    raise JournalError("journal: no answer")


def test_a_switch_that_cannot_be_read_stops_a_run_like_one_that_is_on(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(make_plan(step("wait", Watch), step("a", Fast, after=("wait",)), goal="a"), journal)
    monkeypatch.setattr(SqliteJournal, "halts", unreadable)
    thread, raised = running(engine.run)
    world.facts["wait"] = 1 if not thread.is_alive() else None
    thread.join(5)
    assert [type(error) for error in raised] == [JournalError]
    assert world.effects == []


def test_nothing_begins_while_the_switch_cannot_be_read(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteJournal, "halts", unreadable)
    with pytest.raises(JournalError):
        start(journal, Request(make_plan(step("a", Fast)), "ines", "test"), SystemClock())
    assert journal.executions() == []


def test_an_approval_that_only_a_dead_journal_holds_lets_nothing_act(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(step("a", Fast, gates=("go",)), gates={"go": Approval()})
    engine = open_engine(plan, journal)
    thread, raised = running(engine.run)
    wait_for(lambda: engine.state.gate("go").waiting)
    monkeypatch.setattr(SqliteJournal, "inbox", unreadable)
    journal.put("e1", SaidAboutGate(gate="go", answer=Answer.approve, by="kim"), datetime.now(UTC))
    thread.join(5)
    assert [type(error) for error in raised] == [JournalError]
    assert world.effects == []


def test_break_glass_does_not_pass_a_switch_that_stopped_this_very_run(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = planned(monkeypatch, step("wait", Watch), step("a", Fast, after=("wait",)), goal="a")
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    copy = LocalCopy(engine, journal, tmp_path / "copy.db")
    thread, _ = running(engine.run)
    halt(journal)
    thread.join(5)
    copy.join(5)
    world.facts["wait"] = 1
    file = SqliteJournal(tmp_path / "copy.db")
    (stopped,) = [event for _, event in file.read(engine.execution) if isinstance(event, StopAsked)]
    assert "ana" in stopped.reason
    with pytest.raises(Halted, match="ana"):
        go_on(file, engine.execution, KIM, SystemClock())
    assert not [event for _, event in file.read(engine.execution) if isinstance(event, Override)]
    for lease in file.leases():
        file.break_lease(lease.holder, datetime.now(UTC))
    monkeypatch.setattr("flows.break_glass.wait_out", lambda *_: timedelta(0))  # its own tests: test_break_glass.py
    halt(file, on=False)
    assert go_on(file, engine.execution, KIM, SystemClock()).run().verdict is Verdict.recovered
    file.close()


def test_a_switch_turned_after_the_copys_last_event_is_not_known_to_it(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What break-glass cannot know; docs/journal.md says so to whoever breaks it."""
    plan = planned(monkeypatch, step("a", Fast))
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    copy = LocalCopy(engine, journal, tmp_path / "copy.db")
    halt(journal)
    for observer in engine._observers:
        observer.put(None)  # the process died
    copy.join(5)
    file = SqliteJournal(tmp_path / "copy.db")
    assert file.halts() == []
    monkeypatch.setattr("flows.break_glass.wait_out", lambda *_: timedelta(0))
    for lease in file.leases():
        file.break_lease(lease.holder, datetime.now(UTC))
    assert go_on(file, engine.execution, KIM, SystemClock()).run().verdict is Verdict.recovered
    file.close()


# -- people, in advance and by force

WRONG = Checked(step="scale", what="max size", result="problem", found="2, wanted 3", advice="raise it")


def forced(*letters: tuple[datetime, object], world: World | None = None) -> Simulation:
    plan = make_plan(
        step("fence", FenceOff, gates=("go",)),
        step("promote", MakeWriter, after=("fence",), gates=("go",), fenced_by=("fence",)),
        gates={"go": Approval(timeout=seconds(60))},
    )
    force = (START, SaidAboutGate(gate=PREFLIGHT, answer=Answer.approve, by="ines", reason="forced: now"))
    return Simulation(plan, world or World(), checks=(WRONG,), letters=[force, *letters])  # type: ignore[list-item]


def test_force_passes_the_preflight_and_no_gate() -> None:
    sim = forced()
    assert sim.run().verdict is Verdict.refused
    assert sim.world.effects == []


def test_force_passes_no_fence() -> None:
    yes = (START, SaidAboutGate(gate="go", answer=Answer.approve, by="kim"))
    sim = forced(yes, world=World(fail_acts={"fence": [failure()] * 9}))
    assert sim.run().verdict is Verdict.failed
    assert "promote" not in sim.world.effects


# -- leases, drills, time


def test_a_lease_that_is_lost_ends_an_act_between_two_of_its_calls(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_keeper, "LEASE", seconds(3))
    monkeypatch.setattr(lease_keeper, "CALL", seconds(0.2))
    engine = open_engine(make_plan(step("a", Slow)), journal)
    thread, _ = running(engine.run)
    assert WAY[0].begun.wait(5)
    journal.break_lease(engine.leases[0], datetime.now(UTC))
    wait_for(lambda: engine.state.stop)
    WAY[0].go_on.set()
    thread.join(5)
    assert world.effects == ["do a, first call"]
    assert WAY[0].refused == ["the lease may be lost"]


def test_a_drill_does_not_begin_on_what_a_live_run_holds(journal: SqliteJournal) -> None:
    plan = make_plan(step("a", Fast))
    begun = start(journal, Request(plan, "ines", "test"), SystemClock())
    with pytest.raises(TargetBusy, match=begun.execution):
        start(journal, Request(replace(plan, mode=Mode.drill), "kim", "test"), SystemClock())


def test_a_drill_that_only_simulates_holds_nothing_up(journal: SqliteJournal) -> None:
    plan = make_plan(step("a", Fast, drill="simulate"))
    start(journal, Request(replace(plan, mode=Mode.drill), "ines", "test"), SystemClock())
    assert start(journal, Request(plan, "kim", "test"), SystemClock()).run().verdict is Verdict.recovered


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_clock_that_is_set_under_a_run_neither_ends_its_lease_nor_lengthens_it(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    clock = SystemClock()
    before = clock.now()
    holder = Holder("e1", "e1/x", "host", 1, "boot")
    assert isinstance(journal.acquire(["sim:a"], holder, LEASE, clock.now()), Held)

    class Set3h(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(hours=hours)

    monkeypatch.setattr(clock_module, "datetime", Set3h)
    assert seconds(0) <= clock.now() - before < seconds(60)
    assert journal.renew(holder, LEASE, clock.now()) - before < seconds(60) + LEASE


def test_a_clock_that_is_set_forward_lets_nobody_take_a_lease_that_lives(journal: SqliteJournal, world: World) -> None:
    """Another process of this machine starts after the clock was set: to it the lease would look over for an hour."""
    engine = open_engine(make_plan(step("a", Watch), step("b", Fast, after=("a",))), journal, ("execution:e1", "sim:b"))
    thread, _ = running(engine.run)
    wait_for(lambda: engine.state.step("a").started)
    other, ahead = Holder("e2", "e2/y", "host", 2, "boot"), datetime.now(UTC) + timedelta(hours=1)
    busy = journal.acquire(["sim:b"], other, LEASE, ahead)
    assert isinstance(busy, Busy)
    assert busy.left <= LEASE
    world.facts["a"] = 1
    thread.join(10)
    assert world.effects == ["b"]


# -- the way back


def test_an_undo_that_hangs_costs_its_steps_timeout_and_the_others_are_undone() -> None:
    plan = make_plan(step("a", Set), step("b", Set, after=("a",)), step("c", Set, after=("b",), on_failure="roll-back"))
    world = World(fail_acts={"c": [failure()]})
    sim = Simulation(plan, world, hangs=frozenset({"undo b"}))
    state = sim.run()
    assert world.effects == ["a", "b", "undo a"]
    assert (state.step("a").status, state.step("b").status) == (Status.rolled_back, Status.failed)
    assert state.verdict is Verdict.rolled_back
    assert "b: could not be undone" in state.finished.detail  # type: ignore[union-attr]
    (first, second) = [event.at for event in sim.journal if isinstance(event, Undoing)]
    assert second - first == plan.by_id["b"].timeout


def test_a_stop_in_the_middle_of_a_rollback_is_an_interruption_at_every_point() -> None:
    plan = make_plan(step("a", Set), step("b", Set, after=("a",)), step("c", Set, after=("b",), on_failure="roll-back"))
    whole = Simulation(plan, World(fail_acts={"c": [failure()]}))
    whole.run()
    begun = next(event.at for event in whole.journal if event.kind == "rollback-started")
    for late in (0.001, 0.005, 0.015):
        sim = Simulation(plan, World(fail_acts={"c": [failure()]}), stops=[begun + seconds(late)])
        state = sim.run()
        everything = sim.world.effects[-2:] == ["undo b", "undo a"]
        assert (state.verdict is Verdict.rolled_back) is everything, late
        assert (state.interrupted is not None) is not everything, late


# -- the table

DOCUMENT = ROOT / "docs" / "who-wins.md"
ROWS = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| ") and not line.startswith("| two promises")]


def test_every_row_of_the_table_names_tests_and_code_that_exist() -> None:
    assert len(ROWS) > 20
    for row in ROWS:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 5, row
        collision, _, _, code, tests = cells
        for path, name in re.findall(r"`([\w/]+\.py)` `(\w+)`", code):
            assert re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf-8")), (collision, path, name)
        assert re.findall(r"`([\w/]+\.py)` `(\w+)`", code), collision
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", tests)
        assert named, collision
        for path, name in named:
            assert f"def {name}(" in (ROOT / "tests" / path).read_text(encoding="utf-8"), (collision, path, name)


def test_every_test_here_is_a_row_of_the_table() -> None:
    said = DOCUMENT.read_text(encoding="utf-8")
    here = set(re.findall(r"^def (test_\w+)\(", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE))
    own = {"test_every_row_of_the_table_names_tests_and_code_that_exist", "test_every_test_here_is_a_row_of_the_table"}
    assert {name for name in here - own if f"test_who_wins.py::{name}`" not in said} == set()


