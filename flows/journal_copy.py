"""A local copy of a running execution's rows, for the day on which the journal's database dies.

A thread of its own follows the engine and makes the same rows, seals included, without asking the database: it knows the
rows that were there at the start, every event since, and the key. The engine never waits for it. What must never happen:
- a copy that says something else than the journal: a file that holds other rows is left alone, and told
- a lease that looks older than it is: it is written with the time at which it ends, as the engine itself counts it
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flows.anchors import anchor_of
from flows.events import Event, Progress
from flows.journal import Journal, JournalError
from flows.journal_chain import Key, Row, Vouch, canonical, extend
from flows.journal_keys import KeyFile
from flows.journal_sqlite import _INSERT, SqliteJournal, _values
from flows.journal_sqlite_leases import Taken

if TYPE_CHECKING:
    from flows.engine import Engine

SIGN_OF_LIFE = 1.0
"""Seconds between two looks at how long the leases last."""


class CopyFile(SqliteJournal):
    """A journal's file that holds a copy of one execution."""

    def __init__(self, path: Path, keys: KeyFile | None = None) -> None:
        super().__init__(path, keys=keys)
        self._db.execute("PRAGMA synchronous=NORMAL")  # survives our death, not a power cut; the journal does that

    def begin(self, place: str, vouched: Vouch | None) -> None:
        """Say which journal it is a copy of, and what vouches for rows without macs."""
        with self._write() as db:
            if not db.execute("SELECT 1 FROM origin").fetchone():
                db.execute("INSERT INTO origin VALUES (?)", (place,))
            if vouched is not None:
                values = (vouched.execution, vouched.number, vouched.hash, vouched.key, vouched.mac)
                db.execute("INSERT OR IGNORE INTO vouches VALUES (?, ?, ?, ?, ?)", values)

    def mirror(self, rows: Sequence[Row], leases: Iterable[Taken], now: datetime) -> None:
        """Append rows, and put the leases down as they are now."""
        with self._write() as db:
            db.executemany(_INSERT, [_values(row) for row in rows])
            for lease in leases:
                self._leases.put(db, lease, now)


class LocalCopy:
    """Keeps the copy of one run; `anchor`, `behind` and `trouble` may be read from any thread."""

    def __init__(self, engine: Engine, journal: Journal, path: Path) -> None:
        """Copy what is there, and follow the engine from now on; call it before the engine runs. Never raises."""
        self.path, self.trouble, self.anchor = path, "", ""
        self._engine, self._notices, self._last = engine, engine.subscribe(), None
        self._file: CopyFile | None = None
        self._written = 0
        self._seen = 0
        try:
            rows = journal.stored(engine.execution)
            self._last = rows[-1]
            self.anchor = str(anchor_of(rows[-1]))
            self._key = _key_of(rows[-1])
            self._file = self._opened(journal, rows)
        except (JournalError, sqlite3.Error, OSError) as error:
            self.trouble = str(error)
        self._thread = threading.Thread(target=self._follow, name="journal-copy", daemon=True)
        self._thread.start()

    @property
    def behind(self) -> int:
        """How many events of this run the file does not hold yet."""
        return self._seen - self._written

    def join(self, seconds: float) -> None:
        """Wait for the end of the run to be written."""
        self._thread.join(seconds)

    def _opened(self, journal: Journal, rows: Sequence[Row]) -> CopyFile:
        file = CopyFile(self.path)
        known = file.stored(self._engine.execution)
        if known != list(rows[: len(known)]):
            file.close()
            raise JournalError(f"{self.path} holds events that the journal does not; it was left alone")
        file.begin(journal.place, journal.vouched(self._engine.execution))
        file.mirror(rows[len(known) :], self._held(), self._now())
        return file

    def _follow(self) -> None:
        over = False
        while not over:
            events: list[Event] = []
            try:
                notice = self._notices.get(timeout=SIGN_OF_LIFE)
                while True:
                    over = over or notice is None
                    if notice is not None and not isinstance(notice, Progress):
                        events.append(notice)
                    notice = self._notices.get_nowait()
            except queue.Empty:
                pass
            self._write(events)
        if self._file is not None:
            self._file.close()

    def _write(self, events: Sequence[Event]) -> None:
        self._seen += len(events)
        if self._file is None or self._last is None:
            return
        bodies = [(event.at, event.kind, canonical(event.model_dump(mode="json"))) for event in events]
        rows = extend(self._engine.execution, self._last, bodies, self._key)
        try:
            self._file.mirror(rows, self._held(), self._now())
        except JournalError as error:  # a gap could not be told from a loss: what is there stays, and no more is added
            self.trouble, file, self._file = str(error), self._file, None
            file.close()
            return
        self._written += len(rows)
        self._last = rows[-1] if rows else self._last
        self.anchor = str(anchor_of(self._last))

    def _held(self) -> list[Taken]:
        holder, tokens, ends = self._engine.leases
        since = self._now()
        return [Taken(target, token, holder, since, ends) for target, token in tokens.items()]

    @staticmethod
    def _now() -> datetime:
        from flows.clock import SystemClock

        return SystemClock().now()


def _key_of(row: Row) -> Key:
    """The key that seals this run: the one that sealed its last row."""
    key = KeyFile().find(row.key)
    if key is None:
        raise JournalError(f"the key '{row.key}' is not here")
    return key
