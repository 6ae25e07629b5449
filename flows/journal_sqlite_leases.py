"""The leases of a journal in a SQLite file: who may change a target, until when, and the token that grows.

They go by the machine's uptime, read within the transaction. What must never happen: a lease that lives looks over to
somebody, so that two hold one target. Nobody can set that clock, and a caller that was stopped on its way into the
journal is not asked what time it believes it is. Only where a lease was taken under another boot (the machine was started
anew, went back to a snapshot, or two kernels or time namespaces share the file) is there nothing to go by but the clock on the wall.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from flows.clock import uptime_of
from flows.journal import Busy, Held, Holder, demand_lease

_COLUMNS = "target, token, execution, holder, host, pid, boot, since, until, boot_id, uptime"
_PUT = f"INSERT OR REPLACE INTO leases ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
MOST = timedelta(minutes=1)
"""No lease lasts longer without renewal."""


@dataclass(frozen=True)
class _Row:
    target: str
    token: int
    execution: str
    name: str
    host: str
    pid: int
    boot: str
    since: str
    until: str
    boot_id: str
    uptime: float

    @property
    def holder(self) -> Holder:
        return Holder(self.execution, self.name, self.host, self.pid, self.boot)

    def busy(self, left: timedelta) -> Busy:
        return Busy(self.target, self.holder, datetime.fromisoformat(self.since), f"{self.until} {self.uptime}", left)


@dataclass(frozen=True)
class Taken:
    """A lease to put down: since when it is held, and the uptime at which it ends."""

    target: str
    token: int
    holder: Holder
    since: datetime
    ends: float


class Leases:
    """The table; every method works within the caller's transaction. now: the caller's time, for people to read."""

    def __init__(self, uptime: Callable[[], float] | None) -> None:
        """uptime: seconds since the machine started; None: leases go by the caller's times (tests say what time it is)."""
        self._uptime = uptime
        self._boot = uptime_of() if uptime is not None else ""

    def acquire(self, db: sqlite3.Connection, targets: Iterable[str], holder: Holder, ttl: timedelta, now: datetime) -> Held | Busy:
        """See Journal.acquire."""
        known = {row.target: row for row in self._rows(db)}
        left = {target: self._left(row, now) for target, row in known.items()}
        wanted, tokens = sorted(set(targets)), {}
        for target in wanted:
            row = known.get(target)
            if row and row.name != holder.name and left[target] > timedelta(0):
                return row.busy(left[target])
        for target in wanted:
            row = known.get(target)
            ours = row is not None and row.name == holder.name and left[target] > timedelta(0)
            tokens[target] = row.token if row and ours else (row.token + 1 if row else 1)
            since = datetime.fromisoformat(row.since) if row and ours else now
            if row and row.name != holder.name:  # must never happen: who lost one lease acts on another that, by an old
                # reading of the clock, still looks like its own; so it loses all of them
                db.execute("UPDATE leases SET holder = '', until = since, uptime = 0 WHERE holder = ?", (row.name,))
            self._put(db, Taken(target, tokens[target], holder, since, self._at() + ttl.total_seconds()), now + ttl)
        return Held(tokens, now + ttl)

    def put(self, db: sqlite3.Connection, taken: Taken, now: datetime) -> None:
        """Put a lease down, whoever held it; it ends when it ends, however long this waits for the file."""
        self._put(db, taken, now + timedelta(seconds=taken.ends - self._at()))

    def _put(self, db: sqlite3.Connection, taken: Taken, until: datetime) -> None:
        who = taken.holder
        db.execute(
            _PUT,
            (taken.target, taken.token, who.execution, who.name, who.host, who.pid, who.boot, taken.since.isoformat(),
             until.isoformat(), self._boot, taken.ends),
        )  # fmt: skip

    def held(self, db: sqlite3.Connection, holder: Holder, now: datetime) -> list[str]:
        """The targets of a holder's leases; raises LeaseLost when there are none, or one ended."""
        return demand_lease(holder, [(row.target, now + self._left(row, now)) for row in self._rows(db, holder)], now)

    def renew(self, db: sqlite3.Connection, holder: Holder, ttl: timedelta, now: datetime) -> datetime:
        """See Journal.renew."""
        self.held(db, holder, now)
        self._end_at(db, holder, now, ttl)
        return now + ttl

    def release(self, db: sqlite3.Connection, holder: Holder, now: datetime) -> None:
        """See Journal.release."""
        self._end_at(db, holder, now, timedelta(0))

    def all(self, db: sqlite3.Connection, now: datetime) -> list[Busy]:
        """Every lease that was ever taken; `left` is 0 where nothing but a clock on the wall tells how long it lasts."""
        rows, none = self._rows(db), timedelta(0)
        return [row.busy(max(self._left(row, now), none) if self._tells(row) else none) for row in rows]

    def _end_at(self, db: sqlite3.Connection, holder: Holder, now: datetime, left: timedelta) -> None:
        ends = ((now + left).isoformat(), self._boot, self._at() + left.total_seconds())
        db.execute("UPDATE leases SET until = ?, boot_id = ?, uptime = ? WHERE holder = ?", (*ends, holder.name))

    def _at(self) -> float:
        return self._uptime() if self._uptime is not None else 0.0

    def _left(self, row: _Row, now: datetime) -> timedelta:
        """How much longer it lasts unless it is renewed."""
        if self._uptime is not None and self._tells(row):
            return timedelta(seconds=row.uptime - self._uptime())
        return datetime.fromisoformat(row.until) - now

    def _tells(self, row: _Row) -> bool:
        """Whether the row's uptime is one of ours. One that lasts longer than any lease is not: the clock went back."""
        if self._uptime is None:
            return True
        return row.boot_id != "" and row.boot_id == self._boot and row.uptime - self._uptime() <= MOST.total_seconds()

    @staticmethod
    def _rows(db: sqlite3.Connection, holder: Holder | None = None) -> list[_Row]:
        only = ("", ()) if holder is None else (" WHERE holder = ?", (holder.name,))
        return [_Row(*row) for row in db.execute(f"SELECT {_COLUMNS} FROM leases{only[0]}", only[1])]  # noqa: S608 - constants
