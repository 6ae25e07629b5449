"""The journal in a SQLite file: WAL, synchronous FULL, BEGIN IMMEDIATE, folder 0700 and file 0600.

FULL and not NORMAL: NORMAL can lose the last commits with the power, and then an `acting` that was announced would be
gone. BEGIN IMMEDIATE: read-then-append under a deferred transaction fails with 'database is locked' between writers.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flows.events import ANY_EVENT, SCHEMA_VERSION, Event
from flows.journal import (
    ANY_ENTRY,
    GENESIS,
    Busy,
    Conflict,
    Halt,
    Held,
    Holder,
    InboxEntry,
    JournalError,
    Received,
    Summary,
    broken_links,
    canonical,
    chain,
    demand_lease,
    demand_no_halt,
    summary,
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
  execution TEXT NOT NULL, number INTEGER NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL,
  body TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (execution, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS inbox (
  number INTEGER PRIMARY KEY AUTOINCREMENT, execution TEXT NOT NULL, at TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS leases (
  target TEXT PRIMARY KEY, token INTEGER NOT NULL, execution TEXT NOT NULL, holder TEXT NOT NULL, host TEXT NOT NULL,
  pid INTEGER NOT NULL, boot TEXT NOT NULL, since TEXT NOT NULL, until TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS switches (
  number INTEGER PRIMARY KEY AUTOINCREMENT, target TEXT NOT NULL, halted INTEGER NOT NULL, by TEXT NOT NULL,
  reason TEXT NOT NULL, at TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS firsts ON events (number, at) WHERE number = 1;
CREATE INDEX IF NOT EXISTS letters ON inbox (execution, number);
CREATE TRIGGER IF NOT EXISTS events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS events_remain BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS switches_stay BEFORE UPDATE ON switches BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS switches_remain BEFORE DELETE ON switches BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS inbox_stays BEFORE UPDATE ON inbox BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS inbox_remains BEFORE DELETE ON inbox BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""


class SqliteJournal:
    """A journal in one file on this machine; safe from several threads and processes."""

    def __init__(self, path: Path, wait: timedelta = timedelta(seconds=5)) -> None:
        """Open or create it. wait: how long to wait for another writer before giving up."""
        self._path = path
        self._lock = threading.RLock()
        try:
            _prepare(path)
            self._db = sqlite3.connect(
                path, timeout=wait.total_seconds(), isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._create()
        except (sqlite3.Error, OSError) as error:
            raise JournalError(f"journal {path}: cannot be opened ({_why(error)})") from None

    def _create(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise JournalError(f"journal {self._path}: written by a newer version (schema {version}, ours {SCHEMA_VERSION})")
        if version < SCHEMA_VERSION:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")

    @property
    def place(self) -> str:
        """The file's path."""
        return str(self._path)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._open_transaction():
                    self._db.execute("ROLLBACK")
                raise JournalError(f"journal {self._path}: cannot write ({_why(error)})") from None

    def _open_transaction(self) -> bool:
        try:
            return self._db.in_transaction
        except sqlite3.ProgrammingError:  # closed
            return False

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise JournalError(f"journal {self._path}: cannot read ({_why(error)})") from None

    def append(self, execution: str, after: int, events: Sequence[Event], lease: Holder | None = None) -> int:
        """See Journal.append."""
        bodies = [canonical(event.model_dump(mode="json")) for event in events]
        with self._write() as db:
            row = db.execute(
                "SELECT number, hash FROM events WHERE execution = ? ORDER BY number DESC LIMIT 1", (execution,)
            ).fetchone()
            number, previous = row or (0, GENESIS)
            if number != after:
                raise Conflict(f"execution {execution}: somebody else wrote event {number}, we knew {after}")
            if lease is not None:
                self._may_act(db, lease, events[-1].at)
            for event, body in zip(events, bodies, strict=True):
                number += 1
                previous = chain(previous, execution, number, body)
                db.execute(
                    "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
                    (execution, number, event.at.isoformat(), event.kind, body, previous),
                )
        return int(number)

    def _may_act(self, db: sqlite3.Connection, holder: Holder, now: datetime) -> None:
        """Must never happen: an act is announced while its lease is another's, or while its target is halted."""
        demand_no_halt(self._held(db, holder, now), self._halts(db))

    def _held(self, db: sqlite3.Connection, holder: Holder, now: datetime) -> list[str]:
        rows = db.execute("SELECT target, until FROM leases WHERE holder = ?", (holder.name,)).fetchall()
        return demand_lease(holder, [(target, datetime.fromisoformat(until)) for target, until in rows], now)

    def read(self, execution: str, after: int = 0) -> list[tuple[int, Event]]:
        """See Journal.read."""
        rows = self._rows(
            "SELECT number, body FROM events WHERE execution = ? AND number > ? ORDER BY number", execution, after
        )
        return [(number, ANY_EVENT.validate_json(body)) for number, body in rows]

    def executions(self, limit: int = 100) -> list[Summary]:
        """See Journal.executions."""
        rows = self._rows(
            """SELECT first.body, last.body, first.execution FROM events first JOIN events last
               ON last.execution = first.execution AND last.number =
                 (SELECT max(number) FROM events WHERE execution = first.execution)
               WHERE first.number = 1 ORDER BY first.at DESC LIMIT ?""",
            limit,
        )
        return [summary(execution, first, last) for first, last, execution in rows]

    def find(self, prefix: str) -> list[str]:
        """See Journal.find."""
        rows = self._rows(
            "SELECT execution FROM events WHERE number = 1 AND substr(execution, 1, ?) = ?", len(prefix), prefix
        )
        return [execution for (execution,) in rows]

    def put(self, execution: str, said: InboxEntry, at: datetime) -> int:
        """See Journal.put."""
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO inbox (execution, at, body) VALUES (?, ?, ?)",
                (execution, at.isoformat(), canonical(said.model_dump(mode="json"))),
            )
            return int(cursor.lastrowid or 0)

    def inbox(self, execution: str, after: int = 0) -> list[Received]:
        """See Journal.inbox."""
        rows = self._rows(
            "SELECT number, at, body FROM inbox WHERE execution = ? AND number > ? ORDER BY number", execution, after
        )
        return [Received(number, datetime.fromisoformat(at), ANY_ENTRY.validate_json(body)) for number, at, body in rows]

    def acquire(self, targets: Iterable[str], holder: Holder, ttl: timedelta, now: datetime) -> Held | Busy:
        """See Journal.acquire."""
        tokens: dict[str, int] = {}
        wanted = sorted(set(targets))
        with self._write() as db:
            known = {row[0]: row for row in db.execute("SELECT * FROM leases")}
            for target in wanted:
                row = known.get(target)
                if row and row[3] != holder.name and datetime.fromisoformat(row[8]) > now:
                    until = datetime.fromisoformat(row[8])
                    return Busy(target, Holder(row[2], *row[3:7]), datetime.fromisoformat(row[7]), until, until - now)
            for target in wanted:
                row = known.get(target)
                ours = row is not None and row[3] == holder.name and datetime.fromisoformat(row[8]) > now
                tokens[target] = row[1] if row and ours else (row[1] + 1 if row else 1)
                since = row[7] if row and ours else now.isoformat()
                db.execute(
                    "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (target, tokens[target], holder.execution, holder.name, holder.host, holder.pid, holder.boot,
                     since, (now + ttl).isoformat()),
                )  # fmt: skip
        return Held(tokens, now + ttl)

    def renew(self, holder: Holder, ttl: timedelta, now: datetime) -> datetime:
        """See Journal.renew."""
        with self._write() as db:
            self._held(db, holder, now)
            db.execute("UPDATE leases SET until = ? WHERE holder = ?", ((now + ttl).isoformat(), holder.name))
        return now + ttl

    def release(self, holder: Holder, now: datetime) -> None:
        """See Journal.release."""
        with self._write() as db:
            db.execute("UPDATE leases SET until = ? WHERE holder = ?", (now.isoformat(), holder.name))

    def break_lease(self, holder: Holder, now: datetime) -> None:
        """See Journal.break_lease."""
        self.release(holder, now)

    def switch(self, target: str, by: str, reason: str, at: datetime, *, on: bool) -> None:
        """See Journal.switch."""
        with self._write() as db:
            db.execute(
                "INSERT INTO switches (target, halted, by, reason, at) VALUES (?, ?, ?, ?, ?)",
                (target, int(on), by, reason, at.isoformat()),
            )

    def halts(self) -> list[Halt]:
        """See Journal.halts."""
        with self._lock:
            try:
                return self._halts(self._db)
            except sqlite3.Error as error:
                raise JournalError(f"journal {self._path}: cannot read the kill switch ({_why(error)})") from None

    @staticmethod
    def _halts(db: sqlite3.Connection) -> list[Halt]:
        rows = db.execute(
            """SELECT target, by, reason, at FROM switches one WHERE halted = 1
               AND number = (SELECT max(number) FROM switches WHERE target = one.target) ORDER BY number"""
        ).fetchall()
        return [Halt(target, by, reason, datetime.fromisoformat(at)) for target, by, reason, at in rows]

    def verify(self, execution: str) -> list[str]:
        """See Journal.verify."""
        rows = self._rows("SELECT number, body, hash FROM events WHERE execution = ? ORDER BY number", execution)
        return broken_links(execution, [(number, body, found) for number, body, found in rows])


def _prepare(path: Path) -> None:
    """Create folder (0700) and file (0600) if they are missing, before SQLite does with wider rights.

    A file that is there is not even opened: closing it again would drop the locks that other connections of this process
    hold on it (POSIX), and whoever closes it next elsewhere would take the write-ahead log away from under them.
    """
    if not path.parent.exists():
        path.parent.mkdir(parents=True, mode=0o700)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
