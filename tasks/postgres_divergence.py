"""See what an old primary has that its new primary lacks, before anything of it is dropped."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from pydantic import Field

from tasks.clients import Clients
from tasks.contract import Frozen, Probe
from tasks.lost import KEY, Lost, LostKey, LostTransaction, one_line
from tasks.postgres_host import Host
from tasks.postgres_server import Server

SHOWN = 10
"""Keys in the step's one line; a gate and the report show all that the output holds."""
LISTED = 200
"""Rows, and transactions, in the output: with 500 characters of each row an event of about 200 kB at most in the journal."""


class Table(Frozen):
    """A table whose lost rows are listed."""

    table: str = Field(description="Table, with its schema if it is not on the search path.", examples=["orders"],
                       pattern=r"^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$")  # fmt: skip
    key: str = Field(description="Column that tells its rows apart on both sides; not one a sequence gives out again.",
                     examples=["ref"], pattern="^[A-Za-z_][A-Za-z0-9_$]*$")  # fmt: skip


class Found(Frozen):
    """What diverged, as a sign-off covers it and a rebuild demands it."""

    read: bool = Field(False, description="Whether it is known yet.")
    diverged: bool = Field(False, description="Whether the old primary has transactions that the new one lacks.")
    system_id: str = Field("", description="System identifier of both.")
    timeline: int = Field(0, description="The old primary's timeline.")
    fork_lsn: str = Field("", description="Where the new primary left that timeline; empty: it did not.")
    end_lsn: str | None = Field(None, description="Where the old primary's WAL ends; null: at the fork.")
    transactions: int = Field(0, description="Commits after the fork.")
    digest: str = Field("", description="SHA-256 over all of it and the list; two of the same say the same.")


class LostRow(Frozen):
    """A row that a diverged transaction wrote and that the new primary has no row for."""

    table: str = Field(description="Its table.")
    key: str = Field(description=f"Its key, {KEY} characters at most.")
    at: datetime | None = Field(None, description="When it was committed (UTC); null: the host does not tell.")
    row: str = Field(description="The row as JSON, 500 characters at most.")


class Divergence(Frozen):
    """What the old primary has and the new one lacks."""

    found: Found = Field(description="What a sign-off covers.")
    first_at: datetime | None = Field(None, description="When the first of these transactions was committed.")
    last_at: datetime | None = Field(None, description="When the last one was.")
    commits: tuple[LostTransaction, ...] = Field((), description=f"These transactions, the first {LISTED}.")
    written: int = Field(0, description="Rows of the named tables that they wrote.")
    lost: int = Field(0, description="Of these, rows that the new primary has no row for: the lost ones.")
    rows: tuple[LostRow, ...] = Field((), description=f"The lost rows, {LISTED} at most.")
    file: str = Field("", description="Where the host lists all transactions and all rows they wrote; empty: it names none.")
    detail: str = Field("", description="What could not be read, and why; empty when all was.")


class DivergenceProbe(Probe[Divergence]):
    """List what a stopped old primary committed and its new primary lacks.

    The host reads the old WAL from the fork on, and opens a copy of the old data that nobody can reach for the rows;
    rows that customers sent again and the new primary has by their key do not count as lost. Rows are those that a
    diverged transaction inserted or changed; deletions count as transactions only. A node that follows the primary has
    nothing diverged. Fails for a node that runs as a primary: fence it first. Needs on the new primary:
    pg_monitor, EXECUTE on pg_read_file (timeline history), SELECT on the tables.
    """

    name: ClassVar[str] = "postgres.divergence"
    budget: ClassVar[timedelta] = timedelta(minutes=5)
    interval: ClassVar[timedelta] = timedelta(milliseconds=300)
    libraries: ClassVar[tuple[str, ...]] = ("httpx", "psycopg")

    node: Server = Field(description="The old primary.")
    primary: Server = Field(description="The new primary.")
    host: Host = Field(description="The old primary's host: one of control, command.")
    tables: tuple[Table, ...] = Field((), description="Tables whose lost rows are listed.")

    def by_hand(self) -> tuple[str, ...]:
        """Read the old WAL from the fork on."""
        return (
            f"{self.primary.psql} -c \"SELECT pg_read_file('pg_wal/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || '.history')\"",
            "pg_waldump --path OLD_DATA/pg_wal --timeline OLD --start FORK --rmgr Transaction   # on the old primary's host",
        )

    def observe(self, clients: Clients) -> Divergence:
        """Ask the new primary for the fork and the old one's host for what lies behind it."""
        from tasks.divergence_reading import read

        return read(self, clients)

    def done(self, state: Divergence) -> bool:
        """It is known."""
        return state.found.read

    @classmethod
    def lost(cls, state: Divergence) -> Lost | None:
        """Give transactions, tables and keys; the rows' other columns stay in the output."""
        if not state.found.read:
            return None
        rows = tuple(LostKey(table=row.table, key=one_line(row.key), at=row.at) for row in state.rows)
        return Lost(committed=state.found.transactions, transactions=state.commits, missing=state.lost, rows=rows,
                    file=one_line(state.file), unread=one_line(state.detail, 500))  # fmt: skip

    def explain(self, state: Divergence) -> str:
        """Say what would be dropped, in a line that a data owner can sign."""
        found, old, new = state.found, self.node.name, self.primary.name
        if not found.read:
            return f"reading what {old} has after {found.fork_lsn}"
        unread = f"; not all could be read: {state.detail}" if state.detail else ""
        if not found.diverged and not state.detail:
            return f"nothing diverged: {new} has everything that {old} has"
        when = f" ({state.first_at:%Y-%m-%d %H:%M:%S.%f} to {state.last_at:%H:%M:%S.%f} UTC)" if state.first_at else ""
        which = ", ".join(f"{row.table} {one_line(row.key)}" for row in state.rows[:SHOWN])
        more = f" and {state.lost - SHOWN} more" if state.lost > SHOWN else ""
        rows = f"{state.lost} row(s) are lost" + (f": {which}{more}" if which else "")
        counted = f"; of {state.written} row(s) they wrote, {rows}" if self.tables else ""
        return (
            f"{old} has {found.transactions} transaction(s) after {found.fork_lsn}{when} that {new} lacks{counted}"
            f"{unread} [{found.digest[:12]}]"
        )
