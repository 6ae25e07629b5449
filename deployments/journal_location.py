"""Which journal: the one that was named, else FAILOVER_JOURNAL, else a file in the user's state folder."""

from __future__ import annotations

import os
from pathlib import Path

from flows.journal import Journal
from flows.journal_sqlite import SqliteJournal


def state_folder() -> Path:
    """Where this user's journal and reports live by default (XDG_STATE_HOME, else ~/.local/state)."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "failover"


def journal_path(location: str | None = None) -> Path:
    """The journal's file. Two users with two journals exclude nobody: teams name one."""
    named = location or os.environ.get("FAILOVER_JOURNAL")
    return Path(named).expanduser() if named else state_folder() / "journal.db"


def open_journal(location: str | None = None) -> Journal:
    """Open (or create) the journal; raises JournalError."""
    return SqliteJournal(journal_path(location))


def beside(journal: Journal) -> Path:
    """The folder for what is written beside the journal: reports, and the copies for hands."""
    return Path(journal.place).parent if isinstance(journal, SqliteJournal) else state_folder()
