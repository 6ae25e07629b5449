"""The journal in a SQLite file: WAL, synchronous FULL, BEGIN IMMEDIATE, folder 0700 and file 0600.

FULL and not NORMAL: NORMAL can lose the last commits with the power, and then an `acting` that was announced would be
gone. BEGIN IMMEDIATE: read-then-append under a deferred transaction fails with 'database is locked' between writers.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.clock import uptime as seconds_up
from flows.events import Event
from flows.journal import (
    Busy,
    Conflict,
    Halt,
    Held,
    Holder,
    Import,
    InboxEntry,
    Journal,
    JournalError,
    Received,
    Summary,
    demand_no_halt,
    read_entry,
    read_event,
    sealing,
    summary,
)
from flows.journal_chain import Key, Row, Vouch, canonical, examine, extend
from flows.journal_keys import KeyFile
from flows.journal_past import PAST_EVENTS, PAST_EXECUTIONS, PAST_KINDS, Past, grouped
from flows.journal_sqlite_leases import Leases
from flows.journal_sqlite_schema import prepare

_ROW = "execution, number, at, kind, body, hash, key, mac"
_LAST = f"SELECT {_ROW} FROM events WHERE execution = ? ORDER BY number DESC LIMIT 1"  # noqa: S608 - constants
_INSERT = f"INSERT INTO events ({_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants


class SqliteJournal:
    """A journal in one file on this machine; safe from several threads and processes."""

    def __init__(
        self, path: Path, wait: timedelta = timedelta(seconds=5), keys: KeyFile | None = None,
        uptime: Callable[[], float] | None = seconds_up,
    ) -> None:  # fmt: skip
        """Open or create it. wait: how long to wait for another writer before giving up; uptime: see Leases."""
        self._path = path
        self._leases = Leases(uptime)
        self._keys = keys or KeyFile()
        self._lock = threading.RLock()
        try:
            _prepare(path)
            self._db = self._open(wait.total_seconds())
        except (sqlite3.Error, OSError) as error:
            raise JournalError(f"journal {path}: cannot be opened ({_why(error)})") from None

    def _open(self, wait: float) -> sqlite3.Connection:
        """Open it and bring it up to date; SQLite waits for others by itself, but not where a file becomes a WAL file."""
        end = time.monotonic() + wait
        while True:
            db = sqlite3.connect(self._path, timeout=wait, isolation_level=None, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
                prepare(db, self._path, lambda: sealing(self._keys, lambda: None))
            except sqlite3.OperationalError as error:
                db.close()
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
                time.sleep(0.01)
            except BaseException:
                db.close()
                raise
            else:
                return db

    @property
    def place(self) -> str:
        """The file's path."""
        return str(self._path)

    def free_bytes(self) -> int | None:
        """Room left on the file's disk for whoever runs this."""
        try:
            return shutil.disk_usage(self._path.parent).free
        except OSError:
            return None

    @property
    def copy_of(self) -> str | None:
        """See Journal.copy_of."""
        rows = self._rows("SELECT place FROM origin")
        return str(rows[0][0]) if rows else None

    def reading(self) -> AbstractContextManager[Journal]:
        """See Journal.reading: this one, for a look at a file takes no time."""
        return nullcontext(self)

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
        key = self._key()
        bodies = [(event.at, event.kind, canonical(event.model_dump(mode="json"))) for event in events]
        with self._write() as db:
            last = self._demand_last(db, execution, after)
            if lease is not None:
                self._may_act(db, lease, events[-1].at)
            rows = extend(execution, last, bodies, key)
            db.executemany(_INSERT, [_values(row) for row in rows])
        return rows[-1].number if rows else after

    def _key(self) -> Key:
        return sealing(self._keys, self._known_key)

    def _known_key(self) -> str | None:
        rows = self._rows("SELECT key FROM events WHERE key <> '' LIMIT 1")
        return str(rows[0][0]) if rows else None

    @staticmethod
    def _demand_last(db: sqlite3.Connection, execution: str, after: int) -> Row | None:
        found = db.execute(_LAST, (execution,)).fetchone()
        last = _row(found) if found else None
        number = last.number if last else 0
        if number != after:
            raise Conflict(f"execution {execution}: somebody else wrote event {number}, we knew {after}")
        return last

    def _may_act(self, db: sqlite3.Connection, holder: Holder, now: datetime) -> None:
        """Must never happen: an act is announced while its lease is another's, or while its target is halted."""
        demand_no_halt(self._leases.held(db, holder, now), self._halts(db))

    def read(self, execution: str, after: int = 0) -> list[tuple[int, Event]]:
        """See Journal.read."""
        rows = self._rows(
            "SELECT number, body FROM events WHERE execution = ? AND number > ? ORDER BY number", execution, after
        )
        return [(number, read_event(execution, number, body)) for number, body in rows]

    def executions(self, limit: int = 100) -> list[Summary]:
        """See Journal.executions."""
        rows = self._rows(
            """SELECT first.body, last.body, first.execution FROM events first JOIN events last
               ON last.execution = first.execution AND last.number =
                 (SELECT max(number) FROM events WHERE execution = first.execution)
               WHERE first.number = 1 ORDER BY first.at DESC LIMIT ?""",
            limit,
        )
        return [line for first, last, execution in rows if (line := summary(execution, first, last)) is not None]

    def find(self, prefix: str) -> list[str]:
        """See Journal.find."""
        rows = self._rows(
            "SELECT execution FROM events WHERE number = 1 AND substr(execution, 1, ?) = ?", len(prefix), prefix
        )
        return [execution for (execution,) in rows]

    def past(self, runbook: str, limit: int = 50) -> list[Past]:
        """See Journal.past."""
        # instr, not JSON: a damaged row must not spoil the others; canonical JSON has one spelling
        rows = self._rows(
            f"""SELECT event.execution, event.body FROM
                  (SELECT execution, at FROM
                     (SELECT execution, at, body FROM events WHERE number = 1 ORDER BY at DESC LIMIT {PAST_EXECUTIONS})
                   WHERE instr(body, ?) > 0 AND instr(body, '"mode":"dry-run"') = 0 ORDER BY at DESC LIMIT ?) known
                JOIN events event ON event.execution = known.execution
                WHERE event.kind IN ({", ".join("?" * len(PAST_KINDS))})
                ORDER BY known.at DESC, event.execution, event.number LIMIT {PAST_EVENTS}""",  # noqa: S608 - constants
            f'"runbook":{json.dumps(runbook)}', limit, *PAST_KINDS,
        )  # fmt: skip
        return grouped(rows)

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
        return [Received(number, datetime.fromisoformat(at), read_entry(body)) for number, at, body in rows]

    def acquire(self, targets: Iterable[str], holder: Holder, ttl: timedelta, now: datetime) -> Held | Busy:
        """See Journal.acquire."""
        with self._write() as db:
            return self._leases.acquire(db, targets, holder, ttl, now)

    def renew(self, holder: Holder, ttl: timedelta, now: datetime) -> datetime:
        """See Journal.renew."""
        with self._write() as db:
            return self._leases.renew(db, holder, ttl, now)

    def release(self, holder: Holder, now: datetime) -> None:
        """See Journal.release."""
        with self._write() as db:
            self._leases.release(db, holder, now)

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

    def lifted_since(self, at: datetime) -> bool:
        """Whether a switch was lifted here after a time."""
        return any(datetime.fromisoformat(when) > at for (when,) in self._rows("SELECT at FROM switches WHERE halted = 0"))

    @staticmethod
    def _halts(db: sqlite3.Connection) -> list[Halt]:
        rows = db.execute(
            """SELECT target, by, reason, at FROM switches one WHERE halted = 1
               AND number = (SELECT max(number) FROM switches WHERE target = one.target) ORDER BY number"""
        ).fetchall()
        return [Halt(target, by, reason, datetime.fromisoformat(at)) for target, by, reason, at in rows]

    def verify(self, execution: str) -> list[str]:
        """See Journal.verify."""
        found = examine(execution, self.stored(execution), self.vouched(execution), self._keys.find)
        return [finding.text for finding in found]

    def stored(self, execution: str) -> list[Row]:
        """See Journal.stored."""
        query = f"SELECT {_ROW} FROM events WHERE execution = ? ORDER BY number"  # noqa: S608 - constants
        return [_row(values) for values in self._rows(query, execution)]

    def head(self, execution: str) -> Row | None:
        """See Journal.head."""
        rows = self._rows(_LAST, execution)
        return _row(rows[0]) if rows else None

    def vouched(self, execution: str) -> Vouch | None:
        """See Journal.vouched."""
        rows = self._rows("SELECT execution, number, hash, key, mac FROM vouches WHERE execution = ?", execution)
        return Vouch(*rows[0]) if rows else None

    def names(self) -> list[str]:
        """See Journal.names."""
        return [name for (name,) in self._rows("SELECT execution FROM events UNION SELECT execution FROM vouches ORDER BY 1")]

    def take_in(self, execution: str, after: int, rows: Sequence[Row], imported: Import) -> None:
        """See Journal.take_in."""
        with self._write() as db:
            self._demand_last(db, execution, after)
            db.executemany(_INSERT, [_values(row) for row in rows])
            db.execute(
                "INSERT INTO imports VALUES (?, ?, ?, ?, ?, ?)",
                (imported.execution, imported.first, imported.last, imported.source, imported.by, imported.at.isoformat()),
            )

    def leases(self) -> list[Busy]:
        """Every lease that was ever taken, as it stands; those that were given back have nothing left."""
        with self._write() as db:
            return self._leases.all(db, datetime.now(UTC))

    def number_inbox_from(self, last: int) -> None:
        """Number the inbox's next entries behind `last`: a copy continues its journal's numbers, or adopts none."""
        with self._write() as db:
            if not db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'inbox'", (last,)).rowcount:
                db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('inbox', ?)", (last,))

    def imports(self, execution: str) -> list[Import]:
        """See Journal.imports."""
        rows = self._rows("SELECT first, last, source, by, at FROM imports WHERE execution = ? ORDER BY first", execution)
        return [Import(execution, first, last, source, by, datetime.fromisoformat(at)) for first, last, source, by, at in rows]


def _row(values: tuple[Any, ...]) -> Row:
    """A row as stored; a time that is none is shown as the oldest there is, so that the row is told as changed."""
    execution, number, at, *rest = values
    try:
        return Row(execution, number, datetime.fromisoformat(at), *rest)
    except (ValueError, TypeError):
        return Row(execution, number, datetime.min.replace(tzinfo=UTC), *rest)


def _values(row: Row) -> tuple[Any, ...]:
    return (row.execution, row.number, row.at.isoformat(), row.kind, row.body, row.hash, row.key, row.mac)


_PREPARING = threading.Lock()


def _prepare(path: Path) -> None:
    """Create folder (0700) and file (0600) if they are missing, before SQLite does with wider rights.

    Must never happen: a file that this process has open is opened and closed here. Closing any descriptor drops every
    lock of the process on the file (POSIX); then another process, ending, takes itself for the last one and removes the
    log that we go on writing to. Hence only a file that nobody has is opened, by one thread at a time.
    """
    if not path.parent.exists():
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    with _PREPARING, suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
