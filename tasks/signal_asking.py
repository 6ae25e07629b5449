"""Ask each party of `detect.outage`, and say what its answer proves.

up        it answers as it should
dead      proof: a host that answers refuses or closes the connection, or the provider says stopped
silent    no answer in time, or an answer that proves nothing (HTTP 503, PostgreSQL starting up, host frozen)
unknown   could not ask: no such name, no network here, no access
"""

from __future__ import annotations

import errno
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from tasks.clients import Clients, Late
from tasks.errors import ActionFailed
from tasks.postgres_knock import knock
from tasks.postgres_server import Server, connect
from tasks.signals import Control, Http, Kind, Reading, Says, Signal, Tcp, status_fits

_OURS = frozenset(  # errors that tell of this host, not of the other one
    {errno.ENETUNREACH, errno.ENETDOWN, errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM}
)
_CLOSED = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})
LOOK = timedelta(milliseconds=100)  # longest look; who takes longer is heard at a later one
_STATES = {"running": Says.up, "frozen": Says.silent, "stopped": Says.dead}


@dataclass(frozen=True)
class Said:
    """One party's answer. answered: whether a host answered at all."""

    says: Says
    detail: str
    answered: bool = True
    closed: bool = False
    """Of a stream: closed by its other side, not given up on silence."""


def ask_all(signals: Mapping[str, Signal], clients: Clients, patience: timedelta) -> tuple[Reading, ...]:
    """Ask every signal at the same time, and hear at the next look who has not answered within a tenth of a second.

    So a party that hangs delays no proof that another one has; whether it has hung for `patience`, the history says.
    """
    calls: dict[str, Callable[[], Said]] = {
        name: partial(_ask, one, clients, patience) for name, one in signals.items()
    }
    answers = clients.parallel(calls, min(LOOK, patience), belated=True)
    readings = []
    for name, signal in signals.items():
        answer = answers[name]
        if isinstance(answer, Exception):
            raise answer
        late = isinstance(answer, Late)
        said = _late(signal.kind, patience) if isinstance(answer, Late) else answer
        told = {"says": said.says, "answered": said.answered, "detail": said.detail, "closed": said.closed}
        readings.append(Reading(name=name, waiting=late, **told))
    return tuple(readings)


def _ask(signal: Signal, clients: Clients, patience: timedelta) -> Said:
    if signal.http:
        return _ask_http(signal.http, clients, patience)
    if signal.tcp:
        return _ask_tcp(signal.tcp, clients, patience)
    if signal.postgres:
        return _ask_postgres(signal.postgres, clients, patience)
    if signal.standby:
        return _ask_standby(signal.standby, clients)
    assert signal.control  # noqa: S101 - Signal has exactly one way
    return _ask_control(signal.control, clients, patience)


def _late(kind: Kind, patience: timedelta) -> Said:
    detail = f"no answer within {patience.total_seconds():g}s"
    return Said(Says.unknown if kind in ("standby", "control") else Says.silent, detail, answered=False)


def _ask_http(http: Http, clients: Clients, patience: timedelta) -> Said:
    import httpx

    seconds = min(http.timeout or patience, patience).total_seconds()
    try:
        # A connection of its own each time: an idle one that the server has closed would look like a death.
        status = clients.http().get(http.url, timeout=seconds, headers={"Connection": "close"}).status_code
    except httpx.TimeoutException:
        return Said(Says.silent, f"no answer within {seconds:g}s", answered=False)
    except httpx.RemoteProtocolError:
        return Said(Says.dead, "connection closed without an answer")
    except httpx.HTTPError as error:
        return _of_error(error)
    if status_fits(status, http.expect):
        return Said(Says.up, f"HTTP {status}")
    return Said(Says.silent, f"HTTP {status}, which proves nothing")


def _ask_tcp(tcp: Tcp, clients: Clients, patience: timedelta) -> Said:
    clients.check()
    try:
        with socket.create_connection((tcp.host, tcp.port), timeout=patience.total_seconds()):
            return Said(Says.up, "accepts connections")
    except (OSError, UnicodeError) as error:
        return _of_error(error)


def _ask_postgres(server: Server, clients: Clients, patience: timedelta) -> Said:
    """Ask on the session that is kept open; when it is lost, ask who answers there now.

    A lost session alone proves no death (an administrator may have ended it): a new one that opens says up, a host
    that refuses says dead, and a new one that gets no answer is silence.
    """
    import psycopg

    key = ("parked", server)

    def park() -> Any:
        return clients.keep(key, lambda: connect(server, clients.check, patience), lambda session: session.hang_up())

    try:
        return _role(park())
    except psycopg.Error:
        clients.forget(key)
    except ActionFailed:
        return _knock(server, clients, patience)
    try:
        return _role(park())
    except (psycopg.Error, ActionFailed):
        clients.forget(key)
        return _knock(server, clients, patience)


def _role(session: Any) -> Said:
    row = session.execute("SELECT pg_is_in_recovery()").fetchone()
    return Said(Says.up, "answers" + (" in recovery" if row[0] else ""))


def _knock(server: Server, clients: Clients, patience: timedelta) -> Said:
    clients.check()
    try:
        answer = knock(server.host, server.port, server.user, server.database, patience)
    except (OSError, UnicodeError) as error:
        return _of_error(error)
    if answer.closed:
        return Said(Says.dead, "connection closed without an answer")
    if answer.code.startswith(("57P", "53")):
        return Said(Says.silent, f"not ready for sessions (SQLSTATE {answer.code}), which proves nothing")
    return Said(
        Says.unknown, "answers, but gives us no session" + (f" (SQLSTATE {answer.code})" if answer.code else "")
    )


def _ask_standby(server: Server, clients: Clients) -> Said:
    """Ask the standby when it last heard from its primary.

    It pings a primary that says nothing for wal_receiver_timeout / 2. So a stream younger than that plus a little
    proves that the primary lives, an older one means an unanswered ping, and an idle primary never looks silent.
    """
    import psycopg

    query = """
        SELECT pg_is_in_recovery(), pid IS NOT NULL, status,
               extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::float8,
               extract(epoch FROM current_setting('wal_receiver_timeout')::interval)::float8,
               extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8
        FROM (SELECT) one LEFT JOIN pg_stat_wal_receiver ON true"""
    try:
        row = clients.postgres(server).execute(query).fetchone()
    except (psycopg.Error, ActionFailed) as error:
        return Said(Says.unknown, f"standby cannot be asked: {str(error).splitlines()[0]}", answered=False)
    in_recovery, receives, status, age, limit, commit = row or (False, False, None, None, 0.0, None)
    if not in_recovery:
        return Said(Says.unknown, "not a standby")
    if not receives:
        # A standby gives up on silence after wal_receiver_timeout at the earliest. One that replayed a younger commit
        # (2 s for clocks that differ) has not: its primary's side has closed the stream. Proof, though we came late.
        # A commit from the future tells of clocks that disagree, and none at all of a standby that never streamed.
        closed = commit is not None and -1 <= commit < (limit - 2 if limit else 30)
        told = f", {commit:.1f} s after the last commit" if closed else ""
        return Said(Says.dead, f"its stream from the primary is gone{told}", closed=closed)
    if age is None:
        return Said(Says.unknown, f"receiver is {status}, when it last heard is not shown to role '{server.user}'")
    if status == "streaming" and (limit == 0 or age <= limit / 2 + 2):
        return Said(Says.up, f"streams, last message {age:.1f} s ago")
    return Said(Says.silent, f"{status}, last message {age:.1f} s ago")


def _ask_control(control: Control, clients: Clients, patience: timedelta) -> Said:
    import httpx

    try:
        if control.url:
            answer = clients.http().get(control.url, timeout=patience.total_seconds()).raise_for_status().json()
            state = answer.get("state") if isinstance(answer, dict) else None
        else:
            state = clients.command(control.command, patience).stdout.strip().lower()
    except (httpx.HTTPError, ActionFailed, json.JSONDecodeError) as error:
        return Said(Says.unknown, f"provider cannot be asked: {str(error) or type(error).__name__}", answered=False)
    if state not in _STATES:
        return Said(Says.unknown, f"provider says {state!r}, expected running, frozen or stopped")
    return Said(_STATES[state], f"provider says {state}")


def _of_error(error: BaseException) -> Said:
    """Tell what a failed connection proves, by the system's error beneath it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, (OSError, UnicodeError)):
        cause = cause.__cause__ or cause.__context__
    if cause is None or isinstance(cause, (socket.gaierror, UnicodeError, ssl.SSLError)):
        return Said(Says.unknown, f"cannot ask: {cause or error}", answered=False)
    if isinstance(cause, TimeoutError):
        return Said(Says.silent, "no answer in time", answered=False)
    if cause.errno in _OURS:
        return Said(Says.unknown, f"cannot ask: {cause.strerror}", answered=False)
    if cause.errno in _CLOSED:
        return Said(Says.dead, f"{cause.strerror or 'connection closed'}".lower())
    return Said(Says.silent, f"{cause.strerror or cause}".lower(), answered=False)
