"""A drill makes way for a live run: it ends with the call that is out, and the live run looks already meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from flows import holders, lease_keeper, runs
from flows.clock import SystemClock
from flows.engine import Engine
from flows.events import Acting, LeaseTaken, Noted, Status, StopAsked, Verdict
from flows.journal import Holder, SaidMakeWay
from flows.journal_sqlite import SqliteJournal
from flows.runs import Request, TargetBusy, resume, start
from flows.state import ExecutionState
from runbooks.model import Mode
from runbooks.plan import Plan
from tasks.clients import Clients
from tests.flows.test_engine import Fast, wait_for
from tests.flows.world import WORLD, Fact, Watch, World, make_plan, step


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


REHEARSAL = make_plan(step("wait", Quick), step("a", Fast, after=("wait",)))
OUTAGE = make_plan(step("seen", Quick), step("a", Fast, after=("seen",), with_={"to": 2}))


def test_a_live_run_starts_at_once_and_a_drill_that_waits_ends_and_changes_nothing(journal: SqliteJournal, world: World) -> None:
    drill = Run(journal, REHEARSAL, Mode.drill)
    wait_for(lambda: drill.engine.state.step("wait").started)
    live = Run(journal, OUTAGE)
    world.facts["seen"] = 1
    stopped = drill.ended()
    assert stopped.interrupted is not None
    assert stopped.stop is not None
    assert stopped.stop.by == f"execution {live.engine.execution}"
    assert "live and needs sim:a" in stopped.stop.reason
    assert live.ended().verdict is Verdict.recovered
    assert world.effects == ["a"]
    said = [event.text for _, event in journal.read(live.engine.execution) if isinstance(event, Noted)]
    assert len(said) == 1
    assert drill.engine.execution in said[0]
    assert "drill, which makes way" in said[0]
    taken = [set(event.targets) for _, event in journal.read(live.engine.execution) if isinstance(event, LeaseTaken)]
    assert taken == [{f"execution:{live.engine.execution}"}, {"sim:a"}]


def test_what_is_out_ends_first_and_the_live_run_looks_meanwhile(journal: SqliteJournal, world: World) -> None:
    """Must never happen: the live run's call leaves while the drill's is out."""
    drill = Run(journal, make_plan(step("a", Held), step("b", Fast, after=("a",))), Mode.drill)
    assert Held.begun.wait(5)
    world.facts["seen"] = 1
    live = Run(journal, OUTAGE)
    wait_for(lambda: live.engine.state.step("seen").status is Status.done)
    wait_for(lambda: drill.engine.state.stop)
    time.sleep(0.5)
    assert live.engine.state.step("a").started
    assert not any(isinstance(event, Acting) for _, event in journal.read(live.engine.execution))
    Held.back.set()
    assert drill.ended().step("b").started is None
    assert live.ended().verdict is Verdict.recovered
    assert world.effects == ["a", "a"]
    assert world.facts["a"] == 2


def test_a_drill_that_hangs_keeps_its_lease_no_longer_than_it_lasts(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_keeper, "LEASE", timedelta(seconds=3))
    monkeypatch.setattr(runs, "LEASE", timedelta(seconds=3))
    monkeypatch.setattr(lease_keeper, "CALL", timedelta(seconds=0.2))
    drill = Run(journal, make_plan(step("a", Held)), Mode.drill)
    assert Held.begun.wait(5)
    world.facts["seen"] = 1
    began = time.monotonic()
    assert Run(journal, OUTAGE).ended().verdict is Verdict.recovered
    assert time.monotonic() - began > 1
    assert world.facts["a"] == 2
    Held.back.set()
    drill.ended()
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


def test_a_target_that_a_step_learns_is_given_up_by_a_drill_as_well(journal: SqliteJournal, world: World) -> None:
    drill = Run(journal, REHEARSAL, Mode.drill)
    wait_for(lambda: drill.engine.state.step("wait").started)
    live = Run(journal, make_plan(step("b", Fast)))
    assert live.ended().verdict is Verdict.recovered
    rehearsing = lease_keeper.LeaseKeeper(journal, SystemClock(), live.engine.leases[0], {}, 0.0, live=False)
    with pytest.raises(lease_keeper.ActionFailed, match="is held by") as busy:
        rehearsing.take("sim:a")
    assert not busy.value.retry
    assert journal.inbox(drill.engine.execution) == []
    keeper = lease_keeper.LeaseKeeper(journal, SystemClock(), live.engine.leases[0], {}, 0.0, live=True)
    with pytest.raises(lease_keeper.ActionFailed, match="a drill, which makes way") as busy:
        keeper.take("sim:a")
    assert busy.value.retry
    assert drill.ended().interrupted is not None
    assert keeper.take("sim:a") is not None


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


def test_only_a_drill_obeys_and_only_a_live_run_asks(journal: SqliteJournal, world: World) -> None:
    live = Run(journal, OUTAGE)
    journal.put(live.engine.execution, SaidMakeWay(by="execution x", reason="it is live and needs sim:a"), datetime.now(UTC))
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
    assert time.monotonic() - began >= runs.NAMELESS
