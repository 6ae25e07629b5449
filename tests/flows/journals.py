"""The places where a journal may be kept, for the suite that runs on each of them."""

from __future__ import annotations

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from flows.journal import Journal
from flows.journal_postgres import PostgresJournal, caller_time
from flows.journal_sqlite import SqliteJournal
from tests.tasks.postgres_nodes import Node

PATIENT = timedelta(seconds=60)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'failover journal'"
"""How many of our sessions wait for a lock."""


class Place(ABC):
    """Where a journal is kept, and the way past our code to what is in it."""

    address: str
    events: str
    """The table of events."""
    refused: type[Exception]
    """What the database raises for a change of an event."""
    spoil: tuple[str, ...]
    """Statements that take the protection of events away."""
    python: str
    """Defines `Opened(Address(text))` in another process."""

    @abstractmethod
    def open(self) -> Journal:
        """Another connection, as another process would have it; leases go by the times that the test says."""

    @abstractmethod
    def execute(self, statement: str) -> None:
        """Run SQL as somebody with all rights would."""


class SqlitePlace(Place):
    spoil = ("DROP TRIGGER events_stay", "DROP TRIGGER events_remain")
    python = "from flows.journal_sqlite import SqliteJournal as Opened; from pathlib import Path as Address"
    refused, events = sqlite3.IntegrityError, "events"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "folder" / "journal.db"
        self.address = str(self.path)

    def open(self) -> SqliteJournal:
        return SqliteJournal(self.path, PATIENT, uptime=None)

    def execute(self, statement: str) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute(statement)


class PostgresPlace(Place):
    spoil = ("DROP TRIGGER stays ON failover.events",)
    python = "from flows.journal_postgres import PostgresJournal as Opened; Address = str"
    refused, events = psycopg.errors.IntegrityConstraintViolation, "failover.events"

    def __init__(self, node: Node) -> None:
        """An empty journal on a running server."""
        self.node, self.database = node, "postgres"
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'failover journal'"
        node.do(ended, "SET client_min_messages = warning", "DROP SCHEMA IF EXISTS failover CASCADE")
        self.address = self.address_as("failover")

    def address_as(self, user: str, password: str = "") -> str:
        who = f"{user}:{password}" if password else user
        return f"postgresql://{who}@{self.node.host}:{self.node.port}/{self.database}"

    def open(self, patience: timedelta = PATIENT, **more: Any) -> PostgresJournal:
        return PostgresJournal(self.address, patience, **{"lease_clock": caller_time, **more})

    def session(self, user: str = "failover") -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.address_as(user), autocommit=True, connect_timeout=2)

    def execute(self, statement: str) -> None:
        with self.session() as other:
            other.execute(statement)


class Aside:
    """A call on a thread of its own, and what became of it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.result: object = None
        self._thread = threading.Thread(target=self._go, args=(call,))
        self._thread.start()

    def _go(self, call: Callable[[], object]) -> None:
        try:
            self.result = call()
        except Exception as error:
            self.result = error

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> Any:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.result
