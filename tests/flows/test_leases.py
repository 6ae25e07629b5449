"""Leases in a journal's file: they go by the machine's uptime, whatever the clocks on the wall say."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows import journal_sqlite_leases
from flows.clock import boot_id
from flows.events import Noted
from flows.journal import Busy, Held, Holder, LeaseLost
from flows.journal_copy import CopyFile
from flows.journal_sqlite import SqliteJournal
from flows.journal_sqlite_leases import Leases, Taken
from flows.journal_sqlite_schema import VERSION
from flows.lease_keeper import LEASE

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)
HOUR = timedelta(hours=1)
ONE, TWO = (Holder(name, f"{name}/x", "host", 1, "boot") for name in ("e1", "e2"))


class Up:
    """The machine's uptime, as the test says."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def up() -> Up:
    return Up()


@pytest.fixture
def journal(tmp_path: Path, up: Up) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(tmp_path / "journal.db", uptime=up)
    yield journal
    journal.close()


def taken(got: Held | Busy) -> bool:
    return isinstance(got, Held)


@pytest.mark.parametrize("set_by", [HOUR, -HOUR])
def test_only_time_that_passed_ends_a_lease(journal: SqliteJournal, up: Up, set_by: timedelta) -> None:
    assert taken(journal.acquire(["a"], ONE, LEASE, NOW))
    up.seconds += 14.9
    got = journal.acquire(["a"], TWO, LEASE, NOW + set_by)
    assert isinstance(got, Busy)
    assert got.left.total_seconds() == pytest.approx(0.1)
    up.seconds += 0.2
    assert taken(journal.acquire(["a"], TWO, LEASE, NOW + set_by))


def test_whoever_believes_in_an_old_time_has_lost_it_all_the_same(journal: SqliteJournal, up: Up) -> None:
    journal.acquire(["a"], ONE, LEASE, NOW)
    up.seconds += 16
    with pytest.raises(LeaseLost):
        journal.renew(ONE, LEASE, NOW)
    with pytest.raises(LeaseLost):
        journal.append("e1", 0, [Noted(at=NOW, text="an act, say")], ONE)


def test_a_renewal_counts_from_when_it_was_written(journal: SqliteJournal, up: Up) -> None:
    journal.acquire(["a"], ONE, LEASE, NOW)
    up.seconds += 10
    journal.renew(ONE, LEASE, NOW)
    up.seconds += 14
    assert not taken(journal.acquire(["a"], TWO, LEASE, NOW + HOUR))
    journal.release(ONE, NOW)
    assert taken(journal.acquire(["a"], TWO, LEASE, NOW))


def test_a_lease_of_another_boot_goes_by_the_clock_on_the_wall(
    journal: SqliteJournal, tmp_path: Path, up: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started anew, the machine's uptime is smaller than the lease's end, and may stay so for weeks."""
    journal.acquire(["a"], ONE, LEASE, NOW)
    up.seconds = 3.0
    monkeypatch.setattr(journal_sqlite_leases, "uptime_of", lambda: "the next")
    with closing(SqliteJournal(tmp_path / "journal.db", uptime=up)) as again:
        assert not taken(again.acquire(["a"], TWO, LEASE, NOW + LEASE / 2))
        assert again.leases()[0].left == timedelta(0)  # nothing that is known for certain
        assert taken(again.acquire(["a"], TWO, LEASE, NOW + LEASE))
        assert again.leases()[0].left == LEASE


def test_an_uptime_that_went_back_under_one_boot_holds_nobody_up_for_long(journal: SqliteJournal, up: Up) -> None:
    """The machine went back to a snapshot, and the file did not."""
    journal.acquire(["a"], ONE, LEASE, NOW)
    up.seconds -= 900
    assert not taken(journal.acquire(["a"], TWO, LEASE, NOW + LEASE / 2))
    assert taken(journal.acquire(["a"], TWO, LEASE, NOW + LEASE))


def test_a_lease_that_is_put_down_ends_when_its_holder_counts_it_to_end_however_long_the_file_was_locked(tmp_path: Path, up: Up) -> None:
    class Slow(CopyFile):
        @contextmanager
        def _write(self) -> Iterator[sqlite3.Connection]:
            up.seconds += 3  # another writer
            with super()._write() as db:
                yield db

    with closing(Slow(tmp_path / "copy.db")) as copy:
        copy._leases = Leases(up)
        copy.mirror([], [Taken("a", 1, ONE, NOW, up.seconds + 15)], NOW)
        left = copy.leases()[0].left.total_seconds()
    assert up.seconds + left == pytest.approx(1015)


def test_a_lease_in_another_time_namespace_goes_by_the_clock_on_the_wall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One boot, two clocks: an uptime that is ahead by an hour must not make a living lease look over."""
    ours, ahead = Up(), Up()
    ahead.seconds += 3600
    with closing(SqliteJournal(tmp_path / "journal.db", uptime=ours)) as here:
        here.acquire(["a"], ONE, LEASE, NOW)
        monkeypatch.setattr(journal_sqlite_leases, "uptime_of", lambda: f"{boot_id()}/time:[1]")
        with closing(SqliteJournal(tmp_path / "journal.db", uptime=ahead)) as there:
            assert not taken(there.acquire(["a"], TWO, LEASE, NOW + LEASE / 2))


def test_a_file_of_the_version_before_keeps_its_leases_by_the_wall(tmp_path: Path, up: Up) -> None:
    path = tmp_path / "journal.db"
    SqliteJournal(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for column in ("boot_id", "uptime"):
            other.execute(f"ALTER TABLE leases DROP COLUMN {column}")
        other.execute("PRAGMA user_version=2")
        values = ("a", 7, "e1", ONE.name, "host", 1, "boot", NOW.isoformat(), (NOW + LEASE).isoformat())
        other.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    with closing(SqliteJournal(path, uptime=up)) as journal:
        assert journal._rows("PRAGMA user_version") == [(VERSION,)]
        assert not taken(journal.acquire(["a"], TWO, LEASE, NOW + LEASE / 2))
        got = journal.acquire(["a"], TWO, LEASE, NOW + LEASE)
        assert isinstance(got, Held)
        assert got.tokens == {"a": 8}
