"""Which journal: the one that was named, else FAILOVER_JOURNAL, else a file in the user's state folder.

A name that begins with postgresql:// is a database, every other one a file.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path

from flows.journal import Journal, JournalError
from flows.journal_sqlite import SqliteJournal
from tasks.durations import parse_duration

TIMEOUT = "FAILOVER_JOURNAL_TIMEOUT"
"""How long a call to the journal may take; 5s when it is unset."""
MIN_TIMEOUT, MAX_TIMEOUT = timedelta(milliseconds=500), timedelta(seconds=10)  # a lease lasts 15 s


def state_folder() -> Path:
    """Where this user's journal and reports live by default (XDG_STATE_HOME, else ~/.local/state)."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "failover"


def journal_location(location: str | None = None) -> str:
    """A database's address as it was given, else the file's absolute path.

    Two users with two journals exclude nobody: teams name one.
    """
    named = location or os.environ.get("FAILOVER_JOURNAL")
    if named and is_database(named):
        return named
    if named and re.match(r"\w+:/", named):  # not shown: it may hold a password
        raise JournalError("journal: the address begins with neither a folder nor postgresql://, and no other kind is known")
    return str(Path(named).expanduser().absolute() if named else state_folder() / "journal.db")


def is_database(location: str) -> bool:
    """Whether a location names a PostgreSQL database."""
    return location.startswith(("postgresql://", "postgres://"))


def open_journal(location: str | None = None) -> Journal:
    """Open (or create) the journal; raises JournalError."""
    where, timeout = journal_location(location), _timeout()
    if not is_database(where):
        return SqliteJournal(Path(where), timeout)
    from flows.journal_postgres import PostgresJournal

    return PostgresJournal(where, timeout)


def _timeout() -> timedelta:
    text = os.environ.get(TIMEOUT, "5s")
    try:
        timeout = parse_duration(text)
    except ValueError as error:
        raise JournalError(f"{TIMEOUT}: {error}") from None
    if not MIN_TIMEOUT <= timeout <= MAX_TIMEOUT:
        raise JournalError(f"{TIMEOUT}: {text} is not between 500ms and 10s; a lease lasts 15s")
    return timeout


def beside(journal: Journal) -> Path:
    """The folder for what is written beside the journal: reports, and the copies for hands."""
    return Path(journal.place).parent if isinstance(journal, SqliteJournal) and journal.copy_of is None else state_folder()


def copy_file(execution: str) -> Path:
    """Where this machine keeps the copy of an execution's journal while it runs here."""
    return state_folder() / "copies" / f"{execution}.db"
