"""The journal in a PostgreSQL database: for several machines, and to outlive the region that it recovers.

Two round trips to append, one to read. Each execution has an advisory lock, so a writer waits for the writer before
it, and whoever looks up a commit whose answer was lost waits until that commit is over.
Leases go by the server's clock: the clocks of the machines that share it differ.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

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
    Received,
    Summary,
    demand_lease,
    demand_no_halt,
    read_entry,
    read_event,
    sealing,
    summary,
)
from flows.journal_chain import Row as Stored
from flows.journal_chain import Vouch, canonical, examine, extend
from flows.journal_keys import KeyFile
from flows.journal_past import PAST_EVENTS, PAST_EXECUTIONS, PAST_KINDS, Past, grouped
from flows.journal_postgres_schema import EVENTS_LOCK, INBOX_LOCK, SWITCH_LOCK, prepare

if TYPE_CHECKING:
    from flows.journal_postgres_line import Row, Turn

PATIENCE = timedelta(seconds=5)
"""Longest time that a call may take, asking again included; well below a lease, which lasts 15 s."""

LeaseClock = Callable[[datetime, datetime], datetime]
"""Which time leases go by, of (the caller's, the server's)."""

_ROW = "execution, number, at, kind, body, hash, key, mac"
_LAST = f"SELECT {_ROW} FROM failover.events WHERE execution = %s ORDER BY number DESC LIMIT 1"  # noqa: S608 - constants
_HELD = "SELECT target, until FROM failover.leases WHERE holder = %s ORDER BY target FOR UPDATE"
_WANTED = """SELECT target, token, execution, holder, host, pid, boot, since, until FROM failover.leases
  WHERE target = ANY(%s) OR holder IN (SELECT holder FROM failover.leases WHERE target = ANY(%s) AND holder <> '')
  ORDER BY target FOR UPDATE"""
_TIME = "SELECT clock_timestamp()"  # a statement of its own: in the one above it might be read before the rows are locked
_INSERT = f"INSERT INTO failover.events ({_ROW}) VALUES "  # noqa: S608 - constants
_HALTS = """SELECT target, by, reason, at FROM failover.switches one WHERE halted
  AND number = (SELECT max(number) FROM failover.switches WHERE target = one.target) ORDER BY number"""


def server_time(_caller: datetime, server: datetime) -> datetime:
    """The default: one clock for all machines."""
    return server


def caller_time(caller: datetime, _server: datetime) -> datetime:
    """For tests that say what time it is."""
    return caller


class PostgresJournal:
    """A journal on a server; safe from several threads, processes and machines."""

    def __init__(self, url: str, patience: timedelta = PATIENCE, lease_clock: LeaseClock = server_time,
                 keys: KeyFile | None = None) -> None:  # fmt: skip
        """Open it, and create its tables when they are missing. url: as libpq reads it, several hosts allowed."""
        from flows.journal_postgres_line import Line  # psycopg, which nobody else needs

        self._url, self._patience = url, patience
        self._line = Line(url, patience)
        self._lease_clock = lease_clock
        self._keys = keys or KeyFile()
        try:
            prepare(self._line, lambda: sealing(self._keys, lambda: None))
        except BaseException:
            self._line.close()
            raise

    @property
    def place(self) -> str:
        """The address, without its password."""
        return self._line.place

    def free_bytes(self) -> int | None:
        """Not known: SQL does not tell what is left on the server's disk."""
        return None

    @property
    def copy_of(self) -> str | None:
        """See Journal.copy_of: a database is never one."""
        return None

    @contextmanager
    def reading(self) -> Iterator[Journal]:
        """See Journal.reading: another connection, for a look takes a way to the server and back."""
        other = PostgresJournal(self._url, self._patience, self._lease_clock, self._keys)
        try:
            yield other
        finally:
            other.close()

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def _rows(self, query: str, *values: Any) -> list[Row]:
        return self._line.carry_out(lambda turn: turn.look(query, *values))

    def append(self, execution: str, after: int, events: Sequence[Event], lease: Holder | None = None) -> int:
        """See Journal.append."""
        key = sealing(self._keys, self._known_key)
        bodies = [(event.at, event.kind, canonical(event.model_dump(mode="json"))) for event in events]
        sent: Stored | None = None

        def write(turn: Turn) -> int:
            nonlocal sent
            found, *checks = self._begin(turn, execution, lease)
            last = Stored(*found[0]) if found else None
            if turn.in_doubt and last is not None and last == sent:
                return last.number  # the answer was lost, not the commit
            _demand_after(execution, last, after)
            if lease is not None:
                self._may_act(lease, checks, events[-1].at)
            rows = extend(execution, last, bodies, key)
            sent = rows[-1]
            turn.commit(*_inserting(rows))
            return sent.number

        return self._line.carry_out(write)

    def _known_key(self) -> str | None:
        rows = self._rows("SELECT key FROM failover.events WHERE key <> '' LIMIT 1")
        return str(rows[0][0]) if rows else None

    @staticmethod
    def _begin(turn: Turn, execution: str, lease: Holder | None) -> list[list[Row]]:
        """Lock the execution; give its last row and, where a lease counts, all that decides whether to act."""
        text, values = f"SELECT pg_advisory_xact_lock(%s, %s); {_LAST}", [EVENTS_LOCK, _half(execution), execution]
        if lease is not None:  # shared: a switch that is being turned is waited for, other executions are not
            text += f"; SELECT pg_advisory_xact_lock_shared(%s, 0); {_HELD}; {_TIME}; {_HALTS}"
            values += [SWITCH_LOCK, lease.name]
        _locked, last, *checks = turn.ask(text, *values)
        return [last, *checks[1:]]

    def _may_act(self, holder: Holder, checks: list[list[Row]], at: datetime) -> None:
        """Must never happen: an act is announced while its lease is another's, or while its target is halted."""
        held, ((server,),), halts = checks
        demand_no_halt(demand_lease(holder, held, self._lease_clock(at, server)), _halts(halts))

    def read(self, execution: str, after: int = 0) -> list[tuple[int, Event]]:
        """See Journal.read."""
        query = "SELECT number, body FROM failover.events WHERE execution = %s AND number > %s ORDER BY number"
        return [(number, read_event(execution, number, body)) for number, body in self._rows(query, execution, after)]

    def executions(self, limit: int = 100) -> list[Summary]:
        """See Journal.executions."""
        rows = self._rows(
            """SELECT first.execution, first.body, last.body FROM failover.events first CROSS JOIN LATERAL
                 (SELECT body FROM failover.events WHERE execution = first.execution ORDER BY number DESC LIMIT 1) last
               WHERE first.number = 1 ORDER BY first.at DESC LIMIT %s""",
            limit,
        )
        return [line for execution, first, last in rows if (line := summary(execution, first, last)) is not None]

    def find(self, prefix: str) -> list[str]:
        """See Journal.find."""
        rows = self._rows("SELECT execution FROM failover.events WHERE number = 1 AND starts_with(execution, %s)", prefix)
        return [execution for (execution,) in rows]

    def past(self, runbook: str, limit: int = 50) -> list[Past]:
        """See Journal.past."""
        rows = self._rows(
            f"""SELECT event.execution, event.body FROM
                  (SELECT execution, at FROM
                     (SELECT execution, at, body FROM failover.events WHERE number = 1
                      ORDER BY at DESC LIMIT {PAST_EXECUTIONS}) newest
                   WHERE strpos(body, %s) > 0 AND strpos(body, '"mode":"dry-run"') = 0 ORDER BY at DESC LIMIT %s) known
                JOIN failover.events event ON event.execution = known.execution
                WHERE event.kind = ANY(%s)
                ORDER BY known.at DESC, event.execution, event.number LIMIT {PAST_EVENTS}""",  # noqa: S608 - constants
            f'"runbook":{json.dumps(runbook)}', limit, list(PAST_KINDS),
        )  # fmt: skip
        return grouped((execution, body) for execution, body in rows)

    def put(self, execution: str, said: InboxEntry, at: datetime) -> int:
        """See Journal.put."""
        key, body = uuid4(), canonical(said.model_dump(mode="json"))

        def write(turn: Turn) -> int:  # locked: else a greater number could be seen, and adopted, before a smaller one
            *_, ((number,),) = turn.commit(
                """SELECT pg_advisory_xact_lock(%s, %s);
                   INSERT INTO failover.inbox (key, execution, at, body) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING;
                   SELECT number FROM failover.inbox WHERE key = %s""",
                INBOX_LOCK, _half(execution), key, execution, at, body, key,
            )  # fmt: skip
            return int(number)

        return self._line.carry_out(write)

    def inbox(self, execution: str, after: int = 0) -> list[Received]:
        """See Journal.inbox."""
        query = "SELECT number, at, body FROM failover.inbox WHERE execution = %s AND number > %s ORDER BY number"
        return [Received(number, at, read_entry(body)) for number, at, body in self._rows(query, execution, after)]

    def acquire(self, targets: Iterable[str], holder: Holder, ttl: timedelta, now: datetime) -> Held | Busy:
        """See Journal.acquire."""
        wanted = sorted(set(targets))

        def write(turn: Turn) -> Held | Busy:  # in order of names, as everywhere: two that want the same do not deadlock
            rows, ((server,),) = turn.ask(
                f"""INSERT INTO failover.leases (target) SELECT name FROM unnest(%s::text[]) name ORDER BY name
                      ON CONFLICT DO NOTHING;
                    {_WANTED};
                    {_TIME}""",  # noqa: S608 - constants
                wanted, wanted, wanted,
            )  # fmt: skip
            at = self._lease_clock(now, server)
            tokens, since, losers = {}, [], set()
            for target, token, *who, began, until in rows:
                if target not in wanted:
                    continue
                ours = who[1] == holder.name and until > at
                if until > at and not ours:
                    return Busy(target, Holder(*who), began, until.isoformat(), until - at)
                tokens[target] = token if ours else token + 1
                since.append(began if ours else at)
                losers.add(who[1])
            # Must never happen: who lost one lease acts on another that, by a server's clock that went back, still looks
            # like its own; so it loses all of them.
            turn.commit(
                """UPDATE failover.leases SET holder = '', until = 'epoch' WHERE holder = ANY(%s) AND target <> ALL(%s);
                   UPDATE failover.leases old SET token = new.token, since = new.since, until = %s,
                     execution = %s, holder = %s, host = %s, pid = %s, boot = %s
                   FROM unnest(%s::text[], %s::bigint[], %s::timestamptz[]) new (target, token, since)
                   WHERE old.target = new.target""",
                list(losers - {holder.name, ""}), wanted,
                at + ttl, holder.execution, holder.name, holder.host, holder.pid, holder.boot,
                list(tokens), list(tokens.values()), since,
            )  # fmt: skip
            return Held(tokens, at + ttl)

        return self._line.carry_out(write)

    def renew(self, holder: Holder, ttl: timedelta, now: datetime) -> datetime:
        """See Journal.renew."""

        def write(turn: Turn) -> datetime:
            held, ((server,),) = turn.ask(f"{_HELD}; {_TIME}", holder.name)
            at = self._lease_clock(now, server)
            demand_lease(holder, held, at)
            turn.commit("UPDATE failover.leases SET until = %s WHERE holder = %s", at + ttl, holder.name)
            return at + ttl

        return self._line.carry_out(write)

    def release(self, holder: Holder, now: datetime) -> None:
        """See Journal.release."""

        def write(turn: Turn) -> None:
            _, ((server,),) = turn.ask(f"{_HELD}; {_TIME}", holder.name)
            at = self._lease_clock(now, server)
            turn.commit("UPDATE failover.leases SET until = %s WHERE holder = %s", at, holder.name)

        self._line.carry_out(write)

    def break_lease(self, holder: Holder, now: datetime) -> None:
        """See Journal.break_lease."""
        self.release(holder, now)

    def switch(self, target: str, by: str, reason: str, at: datetime, *, on: bool) -> None:
        """See Journal.switch. Announcements that did not see it are over when it returns."""
        key = uuid4()
        self._line.carry_out(
            lambda turn: turn.commit(
                """SELECT pg_advisory_xact_lock(%s, 0);
                   INSERT INTO failover.switches (key, target, halted, by, reason, at) VALUES (%s, %s, %s, %s, %s, %s)
                     ON CONFLICT DO NOTHING""",
                SWITCH_LOCK, key, target, on, by, reason, at,
            )
        )  # fmt: skip

    def halts(self) -> list[Halt]:
        """See Journal.halts."""
        return _halts(self._rows(_HALTS))

    def verify(self, execution: str) -> list[str]:
        """See Journal.verify."""
        found = examine(execution, self.stored(execution), self.vouched(execution), self._keys.find)
        return [finding.text for finding in found]

    def stored(self, execution: str) -> list[Stored]:
        """See Journal.stored."""
        query = f"SELECT {_ROW} FROM failover.events WHERE execution = %s ORDER BY number"  # noqa: S608 - constants
        return [Stored(*values) for values in self._rows(query, execution)]

    def head(self, execution: str) -> Stored | None:
        """See Journal.head."""
        rows = self._rows(_LAST, execution)
        return Stored(*rows[0]) if rows else None

    def vouched(self, execution: str) -> Vouch | None:
        """See Journal.vouched."""
        rows = self._rows("SELECT execution, number, hash, key, mac FROM failover.vouches WHERE execution = %s", execution)
        return Vouch(*rows[0]) if rows else None

    def names(self) -> list[str]:
        """See Journal.names."""
        query = "SELECT execution FROM failover.events UNION SELECT execution FROM failover.vouches ORDER BY 1"
        return [name for (name,) in self._rows(query)]

    def take_in(self, execution: str, after: int, rows: Sequence[Stored], imported: Import) -> None:
        """See Journal.take_in."""

        def write(turn: Turn) -> None:
            (found,) = self._begin(turn, execution, None)
            last = Stored(*found[0]) if found else None
            if turn.in_doubt and last == rows[-1]:
                return
            _demand_after(execution, last, after)
            text, *values = _inserting(rows)
            turn.commit(
                text + "; INSERT INTO failover.imports VALUES (%s, %s, %s, %s, %s, %s)",  # noqa: S608 - constants
                *values,
                imported.execution, imported.first, imported.last, imported.source, imported.by, imported.at,
            )  # fmt: skip

        self._line.carry_out(write)

    def imports(self, execution: str) -> list[Import]:
        """See Journal.imports."""
        query = "SELECT execution, first, last, source, by, at FROM failover.imports WHERE execution = %s ORDER BY first"
        return [Import(*row) for row in self._rows(query, execution)]


def _demand_after(execution: str, last: Stored | None, after: int) -> None:
    number = last.number if last else 0
    if number != after:
        raise Conflict(f"execution {execution}: somebody else wrote event {number}, we knew {after}")


def _inserting(rows: Sequence[Stored]) -> tuple[Any, ...]:
    """The statement that appends rows, and its values."""
    values = [value for row in rows for value in (row.execution, row.number, row.at, row.kind, row.body, row.hash, row.key, row.mac)]
    return (_INSERT + ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s)"] * len(rows)), *values)


def _halts(rows: list[Row]) -> list[Halt]:
    return [Halt(*row) for row in rows]


def _half(execution: str) -> int:
    """The second half of an execution's advisory lock. Two of the same half wait for each other and are right."""
    return zlib.crc32(execution.encode()) - 2**31
