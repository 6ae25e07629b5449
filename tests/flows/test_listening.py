"""What people say is heard in time, whatever the journal is like; and what the old primary said is not forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from flows.break_glass import Patience, wait_out
from flows.clock import SystemClock
from flows.core import Core, react
from flows.events import Answer, Choice, Event, Noted, Status, StepFinished, Verdict
from flows.journal import EVERYTHING, Halt, Held, Holder, Received, SaidAboutFailure, SaidAboutGate, SaidNote, SaidStop
from flows.journal_copy import CopyFile, LocalCopy
from flows.journal_sqlite import SqliteJournal
from flows.lease_keeper import LEASE
from flows.messages import DoLook, Look, Message, Saw, Tick, Write
from flows.runs import Request, start
from flows.state import fold
from runbooks.model import Approval
from tasks.clients import Clients
from tests.flows.test_engine import Fast, open_engine
from tests.flows.test_who_wins import planned, running, wait_for
from tests.flows.world import START, WORLD, Fact, FenceOff, World, failure, make_plan, started, step


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(tmp_path / "journal.db")
    yield journal
    journal.close()


@pytest.fixture
def world() -> World:
    WORLD[0] = World(real=True)
    return WORLD[0]


def test_a_no_given_in_time_counts_although_it_is_read_after_the_deadline(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal 300 ms away, or a machine that was paused."""
    read = SqliteJournal.inbox

    def far(self: SqliteJournal, execution: str, after: int = 0) -> list[Received]:
        got = read(self, execution, after)
        time.sleep(0.3)
        return got

    monkeypatch.setattr(SqliteJournal, "inbox", far)
    rule = Approval(timeout=timedelta(seconds=1), on_timeout="proceed")
    engine = open_engine(make_plan(step("a", Fast, gates=("go",)), gates={"go": rule}), journal)
    thread, _ = running(engine.run)
    wait_for(lambda: engine.state.gate("go").waiting)
    opened = engine.state.gate("go").opened
    assert opened is not None
    time.sleep(max(0.0, (opened.deadline - datetime.now(UTC)).total_seconds() - 0.2))
    journal.put("e1", SaidAboutGate(gate="go", answer=Answer.deny, by="kim", reason="no"), datetime.now(UTC))
    thread.join(5)
    assert world.effects == []


def test_silence_is_an_answer_all_the_same(journal: SqliteJournal, world: World) -> None:
    rule = Approval(timeout=timedelta(seconds=0.5), on_timeout="proceed")
    begun = time.monotonic()
    state = open_engine(make_plan(step("a", Fast, gates=("go",)), gates={"go": rule}), journal).run()
    assert state.verdict is Verdict.recovered
    assert time.monotonic() - begun < 2


def test_a_letter_of_a_newer_version_is_a_note_and_the_switch_is_heard_behind_it(journal: SqliteJournal, world: World) -> None:
    plan = make_plan(step("a", Fast, gates=("go",)), gates={"go": Approval()})
    engine = open_engine(plan, journal)
    thread, _ = running(engine.run)
    wait_for(lambda: engine.state.gate("go").waiting)
    with journal._write() as db:
        body = '{"kind":"handover","by":"kim"}'
        db.execute("INSERT INTO inbox (execution, at, body) VALUES ('e1', ?, ?)", (datetime.now(UTC).isoformat(), body))
    wait_for(lambda: engine.state.adopted)
    assert any(isinstance(event, Noted) and "handover" in event.text for _, event in journal.read("e1"))
    journal.put("e1", SaidStop(by="kim", reason="stop"), datetime.now(UTC))
    thread.join(5)
    assert not thread.is_alive()


def test_a_defect_of_the_listener_ends_the_run_loudly(journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(make_plan(step("a", Fast, gates=("go",)), gates={"go": Approval()}), journal)
    thread, raised = running(engine.run)
    wait_for(lambda: engine.state.gate("go").waiting)

    def broken(_self: SqliteJournal) -> list[Halt]:
        raise ZeroDivisionError

    monkeypatch.setattr(SqliteJournal, "halts", broken)
    thread.join(5)
    assert [type(error) for error in raised] == [ZeroDivisionError]


def test_no_letter_is_adopted_past_one_that_the_switch_kept_from_it(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.fail_acts["c"] = [failure()]
    plan = planned(monkeypatch, step("a", Fast), step("c", Fast, after=("a",), on_failure="ask"))
    engine = open_engine(plan, journal, targets=("execution:e1", "sim:a", "sim:c"))
    thread, _ = running(engine.run)
    wait_for(lambda: any(decision.closed is None for decision in engine.state.decisions.values()))
    read = SqliteJournal.inbox

    def then_halted(self: SqliteJournal, execution: str, after: int = 0) -> list[Received]:
        got = read(self, execution, after)
        if got and not self.halts():
            self.switch(EVERYTHING, "ana", "stop all", datetime.now(UTC), on=True)  # behind the look at the switch
        return got

    monkeypatch.setattr(SqliteJournal, "inbox", then_halted)
    with journal._lock:  # both are there when the listener looks
        journal.put("e1", SaidAboutFailure(step="c", choice=Choice.roll_back, by="kim"), datetime.now(UTC))
        journal.put("e1", SaidNote(by="kim", reason="rolling back now"), datetime.now(UTC))
    thread.join(5)
    assert not thread.is_alive()
    assert engine.state.adopted == 0  # whoever resumes reads both


class Again(Fast):
    """A change that is sent again until it is there."""

    name: ClassVar[str] = "sim.again"
    resend: ClassVar[timedelta | None] = timedelta(milliseconds=100)

    def act(self, before: Fact, clients: Clients) -> None:
        clients.check()
        WORLD[0].effects.append("act")

    def underway(self, state: Fact) -> bool:
        return False


def test_nothing_is_sent_again_while_the_switch_cannot_be_read(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(make_plan(step("a", Again)), journal, targets=("execution:e1", "sim:a"))
    thread, _ = running(engine.run)
    wait_for(lambda: len(world.effects) > 2)
    over, read = threading.Event(), SqliteJournal.halts

    def slow(self: SqliteJournal) -> list[Halt]:
        over.wait(10)
        return read(self)

    monkeypatch.setattr(SqliteJournal, "halts", slow)
    time.sleep(1.3)
    sent = len(world.effects)
    time.sleep(1)
    assert len(world.effects) == sent
    over.set()
    wait_for(lambda: len(world.effects) > sent)
    engine.stop("test", "enough")
    thread.join(5)


def test_a_lease_that_was_given_back_does_not_last_in_the_copy(
    journal: SqliteJournal, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Stopped here, resumed elsewhere, and then the journal dies: the copy here must not spare the wait."""
    plan = planned(monkeypatch, step("a", Fast, gates=("go",)), gates={"go": Approval()})
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    copy = LocalCopy(engine, journal, tmp_path / "copy.db")
    thread, _ = running(engine.run)
    wait_for(lambda: engine.state.gate("go").waiting)
    engine.stop("signal", "SIGINT received")
    thread.join(5)
    copy.join(5)
    elsewhere = Holder(engine.execution, f"{engine.execution}/other", "another-machine", 1, "x/y/z/1")
    assert isinstance(journal.acquire([f"execution:{engine.execution}", "sim:a"], elsewhere, LEASE, SystemClock().now()), Held)
    monkeypatch.setattr("flows.break_glass.is_dead", lambda _holder: True)
    monkeypatch.setattr("flows.break_glass.lives_here", lambda _holder: False)
    clock = Leaping()
    file = CopyFile(tmp_path / "copy.db")
    assert wait_out(file, engine.execution, clock, Patience(sleep=clock.leap)) > LEASE
    file.close()


class Leaping(SystemClock):
    """A clock on which sleeping takes no time."""

    leapt = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.leapt

    def leap(self, seconds: float) -> None:
        self.leapt += timedelta(seconds=seconds)


class Journaled:
    """The core alone, with what it journals: it can die at any time."""

    def __init__(self) -> None:
        WORLD[0] = World()
        self.plan = make_plan(step("fence", FenceOff, gates=("go",)), gates={"go": Approval()})
        self.events: list[Event] = [started(self.plan, START)]
        self.core = Core(self.plan, fold(self.events))

    def take(self, message: Message) -> list[DoLook]:
        self.core, commands = react(self.core, message)
        self.events.extend(command.event for command in commands if isinstance(command, Write))
        return [command for command in commands if isinstance(command, DoLook)]

    def resumed(self) -> Journaled:
        self.core = Core(self.plan, fold(self.events))
        return self


def test_what_a_fence_saw_before_its_gate_is_known_to_whoever_resumes() -> None:
    """The old primary said that it waits for nobody, fell silent, and the engine died at the gate."""
    run = Journaled()
    (look,) = run.take(Tick(START))
    run.take(Saw(START, "fence", look.attempt, Look(state=Fact(value=7), done=False, explain="x", target="t", describe="d")))
    (again,) = run.resumed().take(Tick(START + timedelta(seconds=30)))
    assert again.earlier is not None
    assert again.earlier.state == Fact(value=7)


def test_what_a_fence_saw_before_it_failed_is_known_to_the_next_attempt() -> None:
    run = Journaled()
    (look,) = run.take(Tick(START))
    refused = Look(state=Fact(value=7), done=False, explain="x", target="t", describe="d", refuse="not so")
    run.take(Saw(START, "fence", look.attempt, refused))
    finished = next(event for event in run.events if isinstance(event, StepFinished))
    assert finished.status is Status.refused
    record = run.resumed().core.state.step("fence")
    assert record.told is not None
    assert record.told[0] == {"value": 7}
