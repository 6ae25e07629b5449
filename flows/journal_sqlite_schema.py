"""The journal's tables in a SQLite file: made on first use, brought up to date in one transaction, with a version."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from flows.journal import JournalError
from flows.journal_chain import Key, vouch

_FIRST = """
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
_SEALED = """
ALTER TABLE events ADD COLUMN key TEXT NOT NULL DEFAULT '';
ALTER TABLE events ADD COLUMN mac TEXT NOT NULL DEFAULT '';
CREATE TABLE vouches (execution TEXT PRIMARY KEY, number INTEGER NOT NULL, hash TEXT NOT NULL, key TEXT NOT NULL, mac TEXT NOT NULL);
CREATE TABLE imports (
  execution TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, source TEXT NOT NULL, by TEXT NOT NULL, at TEXT NOT NULL);
CREATE TABLE origin (place TEXT NOT NULL);
CREATE TRIGGER vouches_stay BEFORE UPDATE ON vouches BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER vouches_remain BEFORE DELETE ON vouches BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER imports_stay BEFORE UPDATE ON imports BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER imports_remain BEFORE DELETE ON imports BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""
_UPTIME = """
ALTER TABLE leases ADD COLUMN boot_id TEXT NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN uptime REAL NOT NULL DEFAULT 0;
"""
VERSION = 3
"""Of the tables here; 2 came with the seals, 3 with leases that go by the machine's uptime."""
_HEADS = """SELECT execution, number, hash FROM events one
  WHERE number = (SELECT max(number) FROM events WHERE execution = one.execution)"""


def prepare(db: sqlite3.Connection, path: Path, key: Callable[[], Key]) -> None:
    """Make or migrate the tables; raises JournalError when a newer version wrote them.

    key: seals what stands in a journal of schema 1, which has no macs; asked for only then.
    """
    if _version(db) == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db)  # again: somebody may have made them while we waited
        _bring_up(db, version, key)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    if version > VERSION:
        raise JournalError(f"journal {path}: written by a newer version (schema {version}, ours {VERSION})")


def _bring_up(db: sqlite3.Connection, version: int, key: Callable[[], Key]) -> None:
    if version < 1:
        _run(db, _FIRST)
    if version < 2:
        _run(db, _SEALED)
        _vouch_for_all(db, key)
    if version < VERSION:
        _run(db, _UPTIME)
        db.execute(f"PRAGMA user_version={VERSION}")


def _vouch_for_all(db: sqlite3.Connection, key: Callable[[], Key]) -> None:
    for execution, number, plain in db.execute(_HEADS).fetchall():
        made = vouch(execution, number, plain, key())
        db.execute("INSERT INTO vouches VALUES (?, ?, ?, ?, ?)", (made.execution, made.number, made.hash, made.key, made.mac))


def _run(db: sqlite3.Connection, statements: str) -> None:
    """Statements one by one: `executescript` would commit the transaction."""
    for line in statements.split(";\n"):
        if line.strip():
            db.execute(line)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
