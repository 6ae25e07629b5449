"""What an old primary committed and the new one lacks, as people are shown it: keys and times, no other columns."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import Field

from tasks.models import Frozen

KEY = 200
"""Characters of a key, in the journal and wherever it is shown."""


class LostTransaction(Frozen):
    """A commit that the new primary lacks."""

    xid: int = Field(description="Its transaction id on the old primary.")
    lsn: str = Field(description="Where its commit stands in the old WAL.")
    at: datetime = Field(description="When it was committed (UTC).")

    def __str__(self) -> str:
        """One line for people."""
        return f"transaction {self.xid} at {self.lsn}, committed {moment(self.at)} UTC"


class LostKey(Frozen):
    """A row that the new primary lacks, by its key."""

    table: str
    key: str
    at: datetime | None = None
    """When it was committed (UTC); None: the host does not tell."""

    def __str__(self) -> str:
        """One line for people."""
        return f"lost row: {self.table} {self.key}" + (f", committed {moment(self.at)} UTC" if self.at else "")


class Lost(Frozen):
    """All of it: both lists are bounded, both counts are not."""

    committed: int
    """transactions, listed or not"""
    transactions: tuple[LostTransaction, ...] = ()
    missing: int = 0
    """rows, listed or not; at least so many where `unread` says that not all could be read"""
    rows: tuple[LostKey, ...] = ()
    file: str = ""
    """on the old primary's host: all transactions, and all rows that they wrote; empty: the host named none"""
    unread: str = ""
    """what could not be read, and why"""

    def lines(self) -> tuple[str, ...]:
        """Line by line what a sign-off drops: the rows, or the transactions where no row is known."""
        rest = self.rest_of_rows if self.rows else self.rest_of_transactions
        return (*map(str, self.rows or self.transactions), *([rest] if rest else []))

    @property
    def rest_of_rows(self) -> str:
        """What `rows` does not show, and where it is; empty: nothing."""
        more = self.missing - len(self.rows)
        told = f"and {more} more lost row(s)" if more > 0 else "and perhaps more lost rows" if self.rows and self.unread else ""
        return told and f"{told}: {self._where}"

    @property
    def rest_of_transactions(self) -> str:
        """What `transactions` does not show, and where it is; empty: nothing."""
        more = self.committed - len(self.transactions)
        return f"and {more} more transaction(s): {self._where}" if more > 0 else ""

    @property
    def _where(self) -> str:
        return f"see {self.file} on the old primary's host" if self.file else "the old primary's host names no file that lists them"


def moment(at: datetime) -> str:
    """A time of commit in UTC, as the WAL has it."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"


def one_line(text: str, longest: int = KEY) -> str:
    """A text of customers on one line: no control characters, and what is cut off ends in an ellipsis."""
    plain = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    return plain if len(plain) <= longest else plain[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
