"""What every journal promises; the suite runs on each implementation."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.events import Answer, Noted
from flows.journal import (
    EVERYTHING,
    Busy,
    Conflict,
    Halted,
    Held,
    Holder,
    Journal,
    JournalError,
    LeaseLost,
    SaidAboutGate,
)
from flows.journal_sqlite import SqliteJournal
from tests.flows.journals import Place
from tests.flows.world import Set, make_plan, started, step

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TTL = timedelta(seconds=15)


def holder(execution: str, name: str = "") -> Holder:
    return Holder(execution, name or f"{execution}/1", "host", 1, "boot")


def begin(journal: Journal, execution: str = "e1", at: datetime = NOW) -> int:
    return journal.append(execution, 0, [started(make_plan(step("a", Set)), at)])


def note(text: str = "x", at: datetime = NOW) -> Noted:
    return Noted(at=at, text=text)


def test_what_was_appended_is_read_by_another_connection(journal: Journal, place: Place) -> None:
    number = begin(journal)
    assert journal.append("e1", number, [note("a"), note("b")]) == 3
    other = place.open()
    assert [n for n, _ in other.read("e1")] == [1, 2, 3]
    assert other.read("e1", after=2)[0][1] == note("b")
    other.close()


def test_a_second_writer_of_an_execution_conflicts(journal: Journal) -> None:
    number = begin(journal)
    journal.append("e1", number, [note()])
    with pytest.raises(Conflict):
        journal.append("e1", number, [note()])


def test_events_can_be_neither_changed_nor_removed(journal: Journal, place: Place) -> None:
    begin(journal)
    for statement in (f"UPDATE {place.events} SET body = '{{}}'", f"DELETE FROM {place.events}"):
        with pytest.raises(place.refused):
            place.execute(statement)


def test_a_changed_a_removed_and_a_reordered_event_are_found(journal: Journal, place: Place) -> None:
    number = begin(journal)
    journal.append("e1", number, [note("a"), note("b"), note("c")])
    assert journal.verify("e1") == []
    for statement in place.spoil:
        place.execute(statement)
    for spoil, mend in (
        ("UPDATE {} SET body = replace(body, '\"a\"', '\"z\"')", "UPDATE {} SET body = replace(body, '\"z\"', '\"a\"')"),
        ("UPDATE {} SET number = 9 WHERE number = 3", "UPDATE {} SET number = 3 WHERE number = 9"),
        ("DELETE FROM {} WHERE number = 2", ""),
    ):
        place.execute(spoil.format(place.events))
        assert journal.verify("e1") != [], spoil
        if mend:
            place.execute(mend.format(place.events))
            assert journal.verify("e1") == [], mend


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "journal.db"
    SqliteJournal(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_inbox_keeps_order_and_time(journal: Journal) -> None:
    first = journal.put("e1", SaidAboutGate(gate="go", answer=Answer.deny, by="kim"), NOW)
    second = journal.put("e1", SaidAboutGate(gate="go", answer=Answer.approve, by="kim"), NOW)
    journal.put("other", SaidAboutGate(gate="go", answer=Answer.approve, by="kim"), NOW)
    assert [one.number for one in journal.inbox("e1")] == [first, second]
    assert journal.inbox("e1", after=first)[0].said.answer is Answer.approve


def test_executions_are_listed_newest_first_and_found_by_their_beginning(journal: Journal) -> None:
    begin(journal, "aa1", NOW)
    begin(journal, "ab2", NOW + timedelta(seconds=1))
    assert [one.execution for one in journal.executions()] == ["ab2", "aa1"]
    assert sorted(journal.find("a")) == ["aa1", "ab2"]
    assert journal.find("ab") == ["ab2"]


def test_leases_are_taken_all_or_none(journal: Journal) -> None:
    assert isinstance(journal.acquire(["a", "b"], holder("e1"), TTL, NOW), Held)
    busy = journal.acquire(["c", "b"], holder("e2"), TTL, NOW)
    assert isinstance(busy, Busy)
    assert (busy.target, busy.holder, busy.since, busy.left) == ("b", holder("e1"), NOW, TTL)
    assert isinstance(journal.acquire(["c"], holder("e2"), TTL, NOW), Held)


def test_a_lease_has_another_end_after_a_renewal_and_only_then(journal: Journal) -> None:
    journal.acquire(["a", "b"], holder("e1"), TTL, NOW)

    def end(later: float) -> str:
        busy = journal.acquire(["b"], holder("e2"), TTL, NOW + timedelta(seconds=later))
        assert isinstance(busy, Busy)
        return busy.ends

    first = end(0)
    assert {end(2), end(1), end(3)} == {first}  # whatever the time that a question comes with
    journal.renew(holder("e1"), TTL, NOW + timedelta(seconds=4))
    assert end(5) != first


def test_an_expired_lease_goes_to_another_with_a_greater_token(journal: Journal) -> None:
    first = journal.acquire(["a"], holder("e1"), TTL, NOW)
    again = journal.acquire(["a"], holder("e1"), TTL, NOW + TTL / 2)
    later = journal.acquire(["a"], holder("e2"), TTL, NOW + TTL * 2)
    assert isinstance(first, Held)
    assert isinstance(again, Held)
    assert isinstance(later, Held)
    assert first.tokens == again.tokens == {"a": 1}
    assert later.tokens == {"a": 2}


def test_an_act_cannot_be_announced_without_the_lease(journal: Journal) -> None:
    number = begin(journal)
    with pytest.raises(LeaseLost):
        journal.append("e1", number, [note()], lease=holder("e1"))
    journal.acquire(["a"], holder("e1"), TTL, NOW)
    number = journal.append("e1", number, [note()], lease=holder("e1"))
    with pytest.raises(LeaseLost):
        journal.append("e1", number, [note(at=NOW + TTL * 2)], lease=holder("e1"))
    journal.acquire(["a"], holder("e2"), TTL, NOW + TTL * 2)
    with pytest.raises(LeaseLost):
        journal.append("e1", number, [note()], lease=holder("e1"))
    assert len(journal.read("e1")) == 2


def test_who_lost_one_lease_has_lost_all_whatever_time_it_is(journal: Journal) -> None:
    """A process that is stopped on its way into a file comes with the time of then; a server's clock may go back."""
    number = begin(journal)
    journal.acquire(["a", "b"], holder("e1"), TTL, NOW)
    journal.acquire(["b"], holder("e2"), TTL, NOW + TTL * 2)
    with pytest.raises(LeaseLost):
        journal.append("e1", number, [note(at=NOW)], lease=holder("e1"))
    with pytest.raises(LeaseLost):
        journal.renew(holder("e1"), TTL, NOW)
    assert isinstance(journal.acquire(["a"], holder("e3"), TTL, NOW), Held)
    assert journal.append("e1", number, [note(at=NOW + TTL * 2)], lease=holder("e2"))


def test_who_gave_its_leases_back_takes_nobody_elses(journal: Journal) -> None:
    journal.acquire(["a", "b"], holder("e1"), TTL, NOW)
    journal.release(holder("e1"), NOW)
    journal.acquire(["a"], holder("e2"), TTL, NOW)
    journal.acquire(["b"], holder("e3"), TTL, NOW)
    assert journal.renew(holder("e2"), TTL, NOW) == journal.renew(holder("e3"), TTL, NOW) == NOW + TTL


def test_a_lost_lease_is_not_renewed(journal: Journal) -> None:
    journal.acquire(["a"], holder("e1"), TTL, NOW)
    assert journal.renew(holder("e1"), TTL, NOW + TTL / 2) == NOW + TTL * 1.5
    with pytest.raises(LeaseLost):
        journal.renew(holder("e1"), TTL, NOW + TTL * 3)


def test_released_leases_are_free_at_once(journal: Journal) -> None:
    journal.acquire(["a"], holder("e1"), TTL, NOW)
    journal.release(holder("e1"), NOW)
    assert isinstance(journal.acquire(["a"], holder("e2"), TTL, NOW), Held)


def test_a_halt_prevents_announcements_of_its_target_only_until_it_is_lifted(journal: Journal) -> None:
    number = begin(journal)
    journal.acquire(["a"], holder("e1"), TTL, NOW)
    journal.switch("b", "kim", "maintenance", NOW, on=True)
    number = journal.append("e1", number, [note()], lease=holder("e1"))
    for target in ("a", EVERYTHING):
        journal.switch(target, "kim", "stop", NOW, on=True)
        with pytest.raises(Halted):
            journal.append("e1", number, [note()], lease=holder("e1"))
        journal.renew(holder("e1"), TTL, NOW)
        journal.switch(target, "kim", "go on", NOW, on=False)
        number = journal.append("e1", number, [note()], lease=holder("e1"))
    assert [halt.target for halt in journal.halts()] == ["b"]


def test_many_writers_lose_nothing(journal: Journal, place: Place) -> None:
    def write(name: str) -> None:
        mine = place.open()
        number = begin(mine, name)
        for count in range(20):
            number = mine.append(name, number, [note(str(count))])
        mine.close()

    threads = [threading.Thread(target=write, args=(f"e{count}",)) for count in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for count in range(4):
        assert len(journal.read(f"e{count}")) == 21
        assert journal.verify(f"e{count}") == []


def test_a_process_killed_while_writing_leaves_a_whole_journal(journal: Journal, place: Place) -> None:
    script = (
        "import sys; from datetime import datetime, UTC; from flows.events import Noted\n"
        f"{place.python}\n"
        "journal = Opened(Address(sys.argv[1])); number = 1\n"
        "while True:\n"
        "    number = journal.append('e1', number, [Noted(at=datetime.now(UTC), text='x' * 500)] * 5)\n"
        "    print(number, flush=True)\n"
    )
    begin(journal)
    with subprocess.Popen([sys.executable, "-c", script, place.address], stdout=subprocess.PIPE, text=True,
                          cwd=Path(__file__).parents[2]) as child:  # fmt: skip
        said = 0
        for _ in range(40):
            said = int(child.stdout.readline())
        child.kill()
    rows = journal.read("e1")
    assert len(rows) >= said
    assert (len(rows) - 1) % 5 == 0
    assert journal.verify("e1") == []


def test_a_journal_that_cannot_be_opened_says_where_and_why(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(JournalError, match=r"journal\.db"):
        SqliteJournal(path)
    with pytest.raises(JournalError):
        SqliteJournal(Path(os.devnull) / "journal.db")


def test_several_processes_may_open_a_new_file_at_the_same_moment(tmp_path: Path) -> None:
    """Two health checks start two runs, and there was no journal yet."""
    program = (
        "import sys, time; from pathlib import Path; from flows.journal_sqlite import SqliteJournal\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for number in range(20): SqliteJournal(Path(sys.argv[1]) / str(number) / 'journal.db').close()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    children = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], **pipes) for _ in range(3)]  # type: ignore[call-overload]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    assert [child.communicate(timeout=60)[0] for child in children] == ["", "", ""]


def test_a_second_journal_of_a_process_does_not_cost_the_first_one_what_others_write(tmp_path: Path) -> None:
    """Closing any descriptor of a file drops the process's locks on it; SQLite's lock says that the file is in use."""
    path = tmp_path / "journal.db"
    first = SqliteJournal(path)
    begin(first)
    SqliteJournal(path).close()
    head = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from flows.journal import SaidNote; from flows.journal_sqlite import SqliteJournal\n"
        "journal = SqliteJournal(Path(sys.argv[1]))\n"
    )
    for other in ("journal.executions(1)", "journal.put('e1', SaidNote(by='kim', reason='hello'), datetime.now(UTC))"):
        subprocess.run([sys.executable, "-c", head + other, str(path)], check=True)
    assert [one.said.by for one in first.inbox("e1")] == ["kim"]
    first.append("e1", 1, [note()])
    first.close()
    again = SqliteJournal(path)
    assert (len(again.read("e1")), len(again.inbox("e1"))) == (2, 1)
    again.close()
