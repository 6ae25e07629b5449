"""The copy of a running execution, and going on from it: it is the same rows, it obstructs nobody, and no act is repeated."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments import copies
from flows import runs
from flows.acquiring import TargetBusy
from flows.anchors import anchor_of
from flows.break_glass import Fork, Named, Patience, Relation, bring_back, compare, go_on, wait_out
from flows.clock import SystemClock, uptime
from flows.engine import Engine
from flows.events import Acting, Override, Status, Verdict
from flows.holders import me
from flows.journal import Holder, Journal, JournalError
from flows.journal_chain import Key, Row, extend
from flows.journal_copy import CopyFile, LocalCopy
from flows.journal_sqlite import SqliteJournal
from flows.journal_sqlite_leases import Taken
from flows.lease_keeper import CALL, LEASE
from flows.runs import CannotResume, Request, start
from runbooks.plan import Plan
from tests.flows.journals import PostgresPlace
from tests.flows.test_engine import Fast
from tests.flows.test_holders import changed
from tests.flows.test_journal import NOW, note
from tests.flows.world import WORLD, World, make_plan, step

FOREIGN = Holder("e1", "e1/x", "another-machine", 1, "a/b/c/1")
KIM = Named("kim", "the database is dead")


@dataclass
class Jumping:
    """A clock that goes on only when somebody sleeps."""

    at: object = NOW
    told: list[timedelta] = field(default_factory=list)

    def now(self):
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    @property
    def patience(self) -> Patience:
        return Patience(self.told.append, self.sleep)


class Leaping(SystemClock):
    """The machine's time, and what was slept comes on top at once."""

    slept = timedelta(0)

    def now(self):
        return super().now() + self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += timedelta(seconds=seconds)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Two changes in a row; it is planned again from nothing, so that needs no text."""
    WORLD[0] = World(real=True)
    made = make_plan(step("a", Fast), step("b", Fast, after=("a",), with_={"takes": 0.05}))
    monkeypatch.setattr(runs, "replan", lambda _state: made)
    return made


def copied(path: Path, rows: Sequence[Row], *leases: tuple[Holder, timedelta], place: str = "postgresql://db/failover") -> CopyFile:
    """A copy that knows these rows, and leases that last so long from now."""
    file = CopyFile(path)
    file.begin(place, None)
    file.mirror(rows, [Taken(f"t{at}", 1, holder, NOW, uptime() + left.total_seconds()) for at, (holder, left) in enumerate(leases)], NOW)
    return file


def run_with_copy(journal: Journal, plan: Plan, path: Path) -> tuple[Engine, LocalCopy]:
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    copy = LocalCopy(engine, journal, path)
    assert engine.run().verdict is Verdict.recovered
    copy.join(10)
    return engine, copy


# -- the copy


def test_the_copy_holds_the_journals_rows_seals_included(journal: Journal, plan: Plan, tmp_path: Path) -> None:
    engine, copy = run_with_copy(journal, plan, tmp_path / "copies" / "e.db")
    file = SqliteJournal(copy.path)
    rows = file.stored(engine.execution)
    assert rows == journal.stored(engine.execution)
    assert file.copy_of == journal.place
    assert (copy.behind, copy.trouble) == (0, "")
    assert file.verify(engine.execution) == []
    assert {lease.holder.pid for lease in file.leases()} == {me("x").pid}
    file.close()


def test_a_copy_that_cannot_be_written_delays_nothing(journal: Journal, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    engine, copy = run_with_copy(journal, plan, tmp_path / "file" / "e.db")
    assert copy.trouble
    assert copy.behind == len(journal.read(engine.execution)) - 2  # all but the first two, which the start wrote


def test_a_copy_that_hangs_delays_nothing_and_says_how_far_behind_it_is(
    journal: Journal, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, mirror = threading.Event(), CopyFile.mirror

    def slow(self: CopyFile, rows: Sequence[Row], *more: object) -> None:
        if threading.current_thread().name == "journal-copy":
            assert released.wait(20)
        mirror(self, rows, *more)

    monkeypatch.setattr(CopyFile, "mirror", slow)
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    copy = LocalCopy(engine, journal, tmp_path / "e.db")
    begun = time.monotonic()
    assert engine.run().verdict is Verdict.recovered
    assert time.monotonic() - begun < 10
    assert copy.behind > 0
    released.set()
    copy.join(10)
    assert copy.behind == 0


def test_a_file_with_other_events_is_left_alone(journal: Journal, plan: Plan, tmp_path: Path) -> None:
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    other = extend(engine.execution, None, [(NOW, "noted", note().model_dump_json())] * 2, Key(b"x" * 64))
    copied(tmp_path / "e.db", other).close()
    copy = LocalCopy(engine, journal, tmp_path / "e.db")
    assert engine.run().verdict is Verdict.recovered
    copy.join(10)
    assert "left alone" in copy.trouble
    file = SqliteJournal(tmp_path / "e.db")
    assert file.stored(engine.execution) == other
    file.close()


def test_the_copy_for_hands_ends_with_the_anchor_of_the_end(
    journal: Journal, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes it from the copy of the journal, which may be slower than itself."""
    mirror = CopyFile.mirror

    def slow(*given: Any) -> None:
        time.sleep(0.3)
        mirror(*given)

    monkeypatch.setattr(CopyFile, "mirror", slow)
    monkeypatch.setattr(copies, "beside", lambda _journal: tmp_path)
    monkeypatch.setattr(copies, "copy_file", lambda execution: tmp_path / f"{execution}.db")
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    kept = copies.keep_copies(engine, journal)
    engine.run()
    kept.join()
    assert str(anchor_of(journal.head(engine.execution))) in (tmp_path / "eject" / f"{engine.execution}.txt").read_text()


# -- the wait


def test_another_machines_holder_is_given_a_whole_lease_and_the_longest_call_from_now(tmp_path: Path) -> None:
    clock = Jumping()
    file = copied(tmp_path / "e.db", [], (FOREIGN, -timedelta(days=1)))
    assert wait_out(file, "e1", clock, clock.patience) == LEASE + CALL
    assert clock.told[0] == LEASE + CALL
    assert clock.told == sorted(clock.told, reverse=True)
    file.close()


def test_a_holder_that_is_dead_for_certain_is_not_waited_for_while_nobody_else_can_have_its_lease(tmp_path: Path) -> None:
    dead = changed(me("e1"), 3, "1")
    for left, wait in ((LEASE, timedelta(0)), (-timedelta(seconds=1), LEASE + CALL)):
        clock = Jumping()
        file = copied(tmp_path / f"{left}.db", [], (dead, left))
        assert wait_out(file, "e1", clock, clock.patience) == wait
        file.close()


def test_a_holder_that_lives_here_is_not_waited_for_but_refused(tmp_path: Path) -> None:
    clock = Jumping()
    file = copied(tmp_path / "e.db", [], (me("e1"), timedelta(seconds=-60)))
    with pytest.raises(TargetBusy):
        wait_out(file, "e1", clock, clock.patience)
    file.close()


# -- going on


def test_whatever_the_copy_knew_last_no_act_is_repeated(journal: Journal, plan: Plan, tmp_path: Path) -> None:
    engine, _ = run_with_copy(journal, plan, tmp_path / "whole.db")
    rows = journal.stored(engine.execution)
    for known in range(2, len(rows)):  # all but the last, which ends it
        WORLD[0].effects.clear()
        file = copied(tmp_path / f"{known}.db", rows[:known])
        again = go_on(file, engine.execution, KIM, SystemClock())
        assert again.run().verdict is Verdict.recovered
        assert WORLD[0].effects == []
        said = [event for _, event in file.read(engine.execution) if isinstance(event, Override)]
        assert [(one.by, one.reason, one.last) for one in said] == [(*KIM.__dict__.values(), known)]
        file.close()


def test_what_was_not_done_is_done_behind_the_override(journal: Journal, plan: Plan, tmp_path: Path) -> None:
    engine, _ = run_with_copy(journal, plan, tmp_path / "whole.db")
    rows = journal.stored(engine.execution)
    first = next(number for number, event in journal.read(engine.execution) if isinstance(event, Acting))
    WORLD[0] = World(real=True)  # announced, and nothing of it left
    file = copied(tmp_path / "e.db", rows[:first])
    state = go_on(file, engine.execution, KIM, SystemClock()).run()
    assert [record.status for record in state.steps.values()] == [Status.done, Status.done]
    assert WORLD[0].effects == ["a", "b"]
    kinds = [event.kind for _, event in file.read(engine.execution)]
    assert kinds[first : first + 2] == ["override", "resumed"]
    file.close()


@pytest.mark.parametrize("named", [Named("", "dead"), Named("kim", " ")])
def test_nobody_goes_on_without_a_name_and_a_reason(journal: Journal, plan: Plan, tmp_path: Path, named: Named) -> None:
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    file = copied(tmp_path / "e.db", journal.stored(engine.execution))
    with pytest.raises(CannotResume):
        go_on(file, engine.execution, named, SystemClock())
    assert len(file.stored(engine.execution)) == len(journal.stored(engine.execution))
    file.close()


def test_a_journal_is_no_copy(plan: Plan, tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    with pytest.raises(CannotResume):
        go_on(journal, engine.execution, KIM, SystemClock())
    with pytest.raises(JournalError):
        bring_back(journal, journal, "kim", NOW)
    journal.close()


def test_what_people_say_to_a_copy_is_numbered_behind_what_the_journal_had_adopted(tmp_path: Path) -> None:
    from flows.journal import SaidNote

    file = copied(tmp_path / "e.db", [])
    file.number_inbox_from(57)
    assert file.put("e1", SaidNote(by="kim", reason="x"), NOW) == 58
    file.number_inbox_from(3)
    assert file.put("e1", SaidNote(by="kim", reason="x"), NOW) == 59
    file.close()


# -- the way back


def test_what_only_the_copy_knows_is_taken_in_as_it_is(journal: Journal, plan: Plan, tmp_path: Path) -> None:
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    known = journal.stored(engine.execution)
    file = copied(tmp_path / "e.db", known)
    go_on(file, engine.execution, KIM, SystemClock()).run()
    assert bring_back(journal, file, "lee", NOW)[engine.execution].relation is Relation.ahead
    assert bring_back(journal, file, "lee", NOW)[engine.execution].relation is Relation.same
    assert journal.stored(engine.execution) == file.stored(engine.execution)
    assert journal.verify(engine.execution) == []
    (one,) = journal.imports(engine.execution)
    assert (one.first, one.by, one.source) == (len(known) + 1, "lee", file.place)
    with pytest.raises(CannotResume):
        runs.resume(journal, engine.execution, "lee", SystemClock())
    file.close()


def test_a_fork_changes_neither_side(journal: Journal, plan: Plan, tmp_path: Path) -> None:
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    file = copied(tmp_path / "e.db", journal.stored(engine.execution))
    engine.run()
    go_on(file, engine.execution, KIM, SystemClock()).run()
    ours, theirs = journal.stored(engine.execution), file.stored(engine.execution)
    with pytest.raises(Fork):
        bring_back(journal, file, "lee", NOW)
    assert (journal.stored(engine.execution), file.stored(engine.execution)) == (ours, theirs)
    assert journal.imports(engine.execution) == []
    file.close()


def test_a_copy_of_another_journal_brings_its_execution_along(journal: Journal, plan: Plan, tmp_path: Path) -> None:
    """A database that came back empty: everything that the copy knows is there again."""
    other = SqliteJournal(tmp_path / "other.db")
    engine, _ = run_with_copy(other, plan, tmp_path / "e.db")
    file = SqliteJournal(tmp_path / "e.db")
    bring_back(journal, file, "lee", NOW)
    assert journal.stored(engine.execution) == other.stored(engine.execution)
    assert [one.execution for one in journal.executions()] == [engine.execution]
    for one in (file, other):
        one.close()


ROWS = extend("e1", None, [(NOW, "noted", note(str(at)).model_dump_json()) for at in range(8)], Key(b"k" * 64))


@given(st.integers(0, 8), st.integers(0, 8), st.one_of(st.none(), st.integers(0, 7)))
def test_rows_are_compared_by_what_they_say(ours: int, theirs: int, differs: int | None) -> None:
    journal, copy = ROWS[:ours], ROWS[:theirs]
    if differs is not None and differs < len(copy):
        copy = [*copy[:differs], replace(copy[differs], mac="0"), *copy[differs + 1 :]]
    found = compare(journal, copy)
    if differs is not None and differs < min(ours, theirs):
        assert (found.relation, found.first) == (Relation.fork, differs + 1)
    else:
        word = Relation.same if ours == theirs else Relation.ahead if theirs > ours else Relation.behind
        assert (found.relation, found.first) == (word, min(ours, theirs) + 1)


def test_a_database_that_dies_is_gone_on_from(own: PostgresPlace, plan: Plan, tmp_path: Path) -> None:
    journal = own.open(timedelta(seconds=1))
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    copy = LocalCopy(engine, journal, tmp_path / "e.db")
    own.node.kill()
    with pytest.raises(JournalError):
        engine.run()
    assert WORLD[0].effects == []
    copy.join(10)
    journal.close()
    file = SqliteJournal(copy.path)
    file._db.execute("UPDATE leases SET pid = 1, boot = 'a/b/c/1', host = 'gone'")  # this process lives on; that one does not
    clock = Leaping()
    go_on(file, engine.execution, KIM, clock, Patience(sleep=clock.sleep)).run()
    assert WORLD[0].effects == ["a", "b"]
    own.node.start()
    journal = own.open()
    bring_back(journal, file, "kim", NOW)
    assert journal.stored(engine.execution) == file.stored(engine.execution)
    assert journal.verify(engine.execution) == []
    journal.close()
    file.close()
