"""A drill makes way for a live run: it ends with the act that is out, and its leases are given back, not taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from flows import acquiring, holders, lease_keeper, runs
from flows.acquiring import TargetBusy, where_is
from flows.clock import SystemClock, uptime
from flows.engine import Engine
from flows.events import LeaseTaken, Noted, StopAsked, Verdict
from flows.journal import Holder, JournalError, LeaseLost, SaidMakeWay
from flows.journal_sqlite import SqliteJournal
from flows.lease_keeper import LeaseKeeper
from flows.preflight_looks import recorded
from flows.runs import Request, resume, start
from flows.state import ExecutionState
from runbooks.model import Mode
from runbooks.plan import Plan
from tasks.clients import Clients
from tasks.errors import ActionFailed, Revoked
from tests.flows.test_engine import Fast, wait_for
from tests.flows.world import START, WORLD, Fact, Watch, World, make_plan, started, step


class Held(Fast):
    """A change whose call is out until the test lets it come back; then it makes another one."""

    name: ClassVar[str] = "sim.held"
    begun: ClassVar[threading.Event] = threading.Event()
    back: ClassVar[threading.Event] = threading.Event()

    def act(self, before: Fact, clients: Clients) -> None:
        clients.check()
        type(self).begun.set()
        assert type(self).back.wait(30)
        super().act(before, clients)


class Foretold(Noted):
    """An event that a newer version writes and this one does not know."""

    kind: Literal["foretold"] = "foretold"  # type: ignore[assignment]


class Quick(Watch):
    """A probe whose looks are 20 ms apart."""

    name: ClassVar[str] = "sim.quick"
    interval: ClassVar[timedelta] = timedelta(milliseconds=20)


@pytest.fixture(autouse=True)
def world() -> World:
    WORLD[0] = World(real=True)
    Held.begun, Held.back = threading.Event(), threading.Event()
    return WORLD[0]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(tmp_path / "journal.db")
    yield journal
    journal.close()


class Run:
    """A run on a thread of its own; starting it raises what starting raises."""

    def __init__(self, journal: SqliteJournal, plan: Plan, mode: Mode = Mode.live) -> None:
        self.engine: Engine = start(journal, Request(replace(plan, mode=mode), "ines", "test"), SystemClock())
        self.thread = threading.Thread(target=self.engine.run, daemon=True)
        self.thread.start()

    def ended(self) -> ExecutionState:
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.engine.state


def running(run: Callable[[], Run]) -> tuple[threading.Thread, list[Run]]:
    """Start on a thread; the run is in the list once it has started."""
    started: list[Run] = []
    thread = threading.Thread(target=lambda: started.append(run()), daemon=True)
    thread.start()
    return thread, started


REHEARSAL = make_plan(step("wait", Quick), step("a", Fast, after=("wait",)))
OUTAGE = make_plan(step("seen", Quick), step("a", Fast, after=("seen",), with_={"to": 2}))


def test_a_drill_that_waits_ends_at_once_and_changes_nothing(journal: SqliteJournal, world: World) -> None:
    drill = Run(journal, REHEARSAL, Mode.drill)
    wait_for(lambda: drill.engine.state.step("wait").started)
    world.facts["seen"] = 1
    began = time.monotonic()
    live = Run(journal, OUTAGE)
    assert time.monotonic() - began < 2
    stopped = drill.ended()
    assert stopped.interrupted is not None
    assert stopped.interrupted.reason == f"live execution {live.engine.execution} needs sim:a"
    assert live.ended().verdict is Verdict.recovered
    assert world.effects == ["a"]
    taken = [set(event.targets) for _, event in journal.read(live.engine.execution) if isinstance(event, LeaseTaken)]
    assert taken == [{f"execution:{live.engine.execution}", "sim:a"}]  # all or none


def test_the_act_that_is_out_ends_first(journal: SqliteJournal, world: World) -> None:
    """Must never happen: a live run's call leaves while the drill's is out."""
    drill = Run(journal, make_plan(step("a", Held), step("b", Fast, after=("a",))), Mode.drill)
    assert Held.begun.wait(5)
    world.facts["seen"] = 1
    thread, lives = running(lambda: Run(journal, OUTAGE))
    wait_for(lambda: drill.engine.state.stop)
    time.sleep(0.5)
    assert not lives
    Held.back.set()
    assert drill.ended().step("b").started is None
    thread.join(10)
    assert lives[0].ended().verdict is Verdict.recovered
    assert world.effects == ["a", "a"]
    assert world.facts["a"] == 2


def test_a_drill_that_hangs_keeps_its_lease_no_longer_than_it_lasts(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_keeper, "LEASE", timedelta(seconds=3))
    monkeypatch.setattr(acquiring, "LEASE", timedelta(seconds=3))
    monkeypatch.setattr(lease_keeper, "CALL", timedelta(seconds=0.2))
    drill = Run(journal, make_plan(step("a", Held)), Mode.drill)
    assert Held.begun.wait(5)
    world.facts["seen"] = 1
    assert Run(journal, OUTAGE).ended().verdict is Verdict.recovered
    assert world.facts["a"] == 2
    Held.back.set()
    assert drill.ended().interrupted is not None
    assert drill.engine.state.step("a").status is None  # what it did is looked at when somebody resumes it
    assert world.effects == ["a"]  # the drill's second call did not leave


def test_a_drill_whose_process_is_gone_is_not_waited_for(journal: SqliteJournal, world: World) -> None:
    rehearsal = start(journal, Request(replace(REHEARSAL, mode=Mode.drill), "ines", "test"), SystemClock())
    gone = replace(rehearsal.leases[0], boot=rehearsal.leases[0].boot + "0")
    journal.release(rehearsal.leases[0], datetime.now(UTC))
    journal.acquire(["sim:a"], gone, lease_keeper.LEASE, datetime.now(UTC))
    assert holders.is_dead(gone)
    world.facts["seen"] = 1
    began = time.monotonic()
    assert Run(journal, OUTAGE).ended().verdict is Verdict.recovered
    assert time.monotonic() - began < lease_keeper.LEASE.total_seconds() / 2
    assert journal.inbox(rehearsal.execution) == []


def test_a_drill_that_goes_on_renewing_is_an_answer(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of an older version does not know the word: the live run ends with who holds what, and not never."""
    monkeypatch.setattr(lease_keeper, "LEASE", timedelta(seconds=2))
    monkeypatch.setattr(acquiring, "LEASE", timedelta(seconds=2))
    monkeypatch.setattr(lease_keeper, "CALL", timedelta(seconds=0.2))
    monkeypatch.setattr(LeaseKeeper, "make_way", lambda _self: None)
    drill = Run(journal, make_plan(step("a", Held)), Mode.drill)
    assert Held.begun.wait(5)
    with pytest.raises(TargetBusy, match=drill.engine.execution):
        start(journal, Request(OUTAGE, "ines", "test"), SystemClock())
    Held.back.set()
    drill.ended()


def test_a_target_that_a_step_learns_is_given_up_by_a_drill_as_well(journal: SqliteJournal, world: World) -> None:
    drill = Run(journal, REHEARSAL, Mode.drill)
    wait_for(lambda: drill.engine.state.step("wait").started)
    live = Run(journal, make_plan(step("b", Fast)))
    assert live.ended().verdict is Verdict.recovered
    rehearsing, keeper = (LeaseKeeper(journal, SystemClock(), live.engine.leases[0], {}, 0.0, live=live_) for live_ in (False, True))
    with pytest.raises(ActionFailed, match="is held by") as busy:
        rehearsing.take("sim:a")
    assert not busy.value.retry
    assert journal.inbox(drill.engine.execution) == []
    with pytest.raises(ActionFailed, match="a drill, which makes way") as busy:
        keeper.take("sim:a")
    assert busy.value.retry
    assert drill.ended().interrupted is not None
    assert keeper.take("sim:a") is not None
    assert len(journal.inbox(drill.engine.execution)) == 1


def test_a_live_run_that_is_resumed_meets_no_drill_in_its_way(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "replan", lambda _state: OUTAGE)
    live = Run(journal, OUTAGE)
    live.engine.stop("ines", "lunch")
    assert live.ended().interrupted is not None
    drill = Run(journal, REHEARSAL, Mode.drill)
    world.facts["seen"] = 1
    assert resume(journal, live.engine.execution, "ines", SystemClock()).run().verdict is Verdict.recovered
    assert drill.ended().interrupted is not None


def test_a_drill_that_is_resumed_does_not_make_way_for_a_run_of_long_ago(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsal = replace(REHEARSAL, mode=Mode.drill)
    monkeypatch.setattr(runs, "replan", lambda _state: rehearsal)
    first = start(journal, Request(rehearsal, "ines", "test"), SystemClock())
    asks = SaidMakeWay(by="execution e9", reason="live execution e9 needs sim:a", holder=first.leases[0].name)
    journal.put(first.execution, asks, datetime.now(UTC))  # it died before it read this
    journal.release(first.leases[0], datetime.now(UTC))
    world.facts["wait"] = 1
    state = resume(journal, first.execution, "ines", SystemClock()).run()
    assert state.verdict is Verdict.recovered
    assert state.adopted == 1


def test_only_a_drill_obeys_and_only_a_live_run_asks(journal: SqliteJournal, world: World) -> None:
    live = Run(journal, OUTAGE)
    asks = SaidMakeWay(by="execution x", reason="live execution x needs sim:a", holder=live.engine.leases[0].name)
    journal.put(live.engine.execution, asks, datetime.now(UTC))
    wait_for(lambda: any(isinstance(event, Noted) for _, event in journal.read(live.engine.execution)))
    for mode in (Mode.drill, Mode.live):
        with pytest.raises(TargetBusy, match=live.engine.execution):
            start(journal, Request(replace(REHEARSAL, mode=mode), "bo", "test"), SystemClock())
    world.facts["seen"] = 1
    assert live.ended().verdict is Verdict.recovered
    drill = Run(journal, REHEARSAL, Mode.drill)
    with pytest.raises(TargetBusy, match=drill.engine.execution):
        start(journal, Request(replace(REHEARSAL, mode=Mode.drill), "bo", "test"), SystemClock())
    assert not any(isinstance(event, StopAsked) for _, event in journal.read(drill.engine.execution))
    world.facts["wait"] = 1
    assert drill.ended().verdict is Verdict.recovered


def test_who_has_written_nothing_yet_is_waited_for_a_moment(journal: SqliteJournal) -> None:
    """It may be a drill: an execution takes its leases right before its first event."""
    journal.acquire(["sim:a"], Holder("e9", "e9/x", "host", 1, "boot"), lease_keeper.LEASE, datetime.now(UTC))
    began = time.monotonic()
    with pytest.raises(TargetBusy, match="e9"):
        start(journal, Request(OUTAGE, "ines", "test"), SystemClock())
    assert time.monotonic() - began >= acquiring.NAMELESS


def test_what_a_newer_version_wrote_keeps_no_run_from_its_preflight_and_no_list_from_being_told(
    journal: SqliteJournal, world: World
) -> None:
    journal.append("e9", 0, [started(OUTAGE, START), Foretold(at=START + timedelta(minutes=1), text="x")])
    (line,) = journal.executions()
    assert (line.execution, line.last, line.verdict) == ("e9", START + timedelta(minutes=1), None)
    assert recorded(journal, OUTAGE) == {}
    with pytest.raises(JournalError, match="e9: event 2 cannot be read by this version"):
        journal.read("e9")


@pytest.mark.parametrize("dead", [False, True])
def test_an_execution_that_a_newer_version_wrote_is_busy_and_no_drill(journal: SqliteJournal, dead: bool) -> None:
    """Must never happen: what cannot be read is asked to make way, or its lease is broken."""
    rehearsal = started(replace(REHEARSAL, mode=Mode.drill), START)
    journal.append("e9", 0, [rehearsal, Foretold(at=START, text="x")])
    holder = replace(holders.me("e9"), boot=holders.me("e9").boot + "0") if dead else holders.me("e9")
    assert holders.is_dead(holder) is dead
    journal.acquire(["sim:a"], holder, lease_keeper.LEASE, datetime.now(UTC))
    with pytest.raises(TargetBusy, match="e9"):
        start(journal, Request(OUTAGE, "ines", "test"), SystemClock())
    assert journal.inbox("e9") == []
    assert [lease.holder for lease in journal.leases()] == [holder]
    assert where_is(journal, "e9") == ""


def test_a_lease_that_ended_does_not_come_back_with_another_target(journal: SqliteJournal, world: World) -> None:
    """Must never happen: an act goes on with what it saw before somebody else had its target."""
    ours = start(journal, Request(OUTAGE, "ines", "test"), SystemClock()).leases
    keeper = LeaseKeeper(journal, SystemClock(), ours[0], ours[1], ours[2], live=True)
    keeper.guard()
    journal.break_lease(ours[0], datetime.now(UTC))
    other = Holder("e9", "e9/x", "host", 1, "boot")
    journal.acquire(["sim:a"], other, lease_keeper.LEASE, datetime.now(UTC))
    journal.release(other, datetime.now(UTC))
    with pytest.raises(LeaseLost, match="had ended"):
        keeper.take("sim:b")
    with pytest.raises(Revoked):
        keeper.guard()
    keeper._until = uptime() + 60  # a renewal that was under way has come back
    with pytest.raises(Revoked):
        keeper.guard()
    assert keeper.ends == 0
