"""The line to the journal's PostgreSQL server: it never hangs, and a lost answer is looked up instead of guessed.

Every call ends within `patience`: the first attempt within half of it, so that there is time to ask again on a new
connection. Work is asked again only after a lost connection or a deadlock, and is written so that this does no harm:
it finds what an earlier attempt may have committed (`Turn.in_doubt`).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from flows.journal import InDoubt, JournalError
from tasks.postgres_session import NotResolved, Session, Unanswered

Result = TypeVar("Result")
Row = tuple[Any, ...]

_PAUSE = 0.1  # between two attempts to connect
# Worth asking again, on a new connection: lost, serialization, deadlock, read-only since a switchover, stopping, starting.
_AGAIN = ("08", "40", "25006", "57P01", "57P02", "57P03", "53300")


class Turn:
    """One attempt at a piece of work: some looks, or one transaction."""

    def __init__(self, session: Session, ends: float, *, in_doubt: bool) -> None:
        """ends: by the monotonic clock. in_doubt: an earlier attempt's commit went out and no answer came."""
        self.session, self.in_doubt, self.committing = session, in_doubt, False
        self._ends, self._begun = ends, False

    def look(self, text: str, *values: Any) -> list[Row]:
        """One statement, one round trip: its rows."""
        return self._send(text, values)[0]

    def ask(self, text: str, *values: Any) -> list[list[Row]]:
        """Statements of the transaction, in one round trip: the rows of each that gives rows."""
        begin, self._begun = "" if self._begun else "BEGIN; ", True
        return self._send(begin + text, values)

    def commit(self, text: str, *values: Any) -> list[list[Row]]:
        """The last statements and the COMMIT, in one round trip."""
        begin, self._begun = "" if self._begun else "BEGIN; ", False
        self.committing = True
        return self._send(f"{begin}{text}; COMMIT", values)

    def leave(self) -> None:
        """Roll back what was not committed."""
        if self._begun and not self.session.closed:
            self._send("ROLLBACK", ())

    def _send(self, text: str, values: tuple[Any, ...]) -> list[list[Row]]:
        self.session.patience = max(0.001, self._ends - time.monotonic())
        cursor = psycopg.ClientCursor(self.session)  # it alone sends several statements with values at once
        cursor.execute(text.encode(), values)
        return [one.fetchall() for one in cursor.results() if one.description]


class Line:
    """One connection, opened again when it was lost. Safe from several threads: they take turns."""

    def __init__(self, url: str, patience: timedelta) -> None:
        """Connect at once; raises JournalError, also for an address that cannot be read (without showing it)."""
        self._patience = patience.total_seconds()
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._closed = False
        self._params = _read(url)
        self.place = _place(self._params)
        try:
            self._session = self._connect(time.monotonic() + self._patience)
        except psycopg.Error as error:
            raise self._failed(error, "cannot be opened") from None

    def close(self) -> None:
        """Hang up, for good."""
        self._closed = True
        with self._lock:
            self._drop()

    def carry_out(self, work: Callable[[Turn], Result]) -> Result:
        """Do the work on the connection, again if it was lost meanwhile; raises JournalError within `patience`."""
        with self._lock:
            begun, in_doubt = time.monotonic(), False
            ends = begun + self._patience / 2
            while True:
                turn: Turn | None = None
                try:
                    turn = Turn(self._connected(ends), ends, in_doubt=in_doubt)
                    return _whole(turn, work)
                except psycopg.Error as error:
                    in_doubt = in_doubt or (turn is not None and turn.committing and turn.session.closed)
                    again = _worth_again(turn, error)
                    self._drop()
                    ends = begun + self._patience
                    if not again or time.monotonic() + _PAUSE > ends:
                        raise self._failed(error, "cannot be used", in_doubt=in_doubt) from None
                    if turn is None:
                        time.sleep(_PAUSE)
                except JournalError:
                    self._leave(turn)
                    raise
                except BaseException:
                    self._drop()
                    raise

    def _leave(self, turn: Turn | None) -> None:
        """Roll back because the work says so; what it said counts, whatever becomes of the session."""
        try:
            if turn is not None:
                turn.leave()
        except psycopg.Error:
            self._drop()

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(psycopg.Error):
                session.close()

    def _connected(self, ends: float) -> Session:
        if self._closed:
            raise JournalError(f"journal {self.place}: is closed")
        if self._session is None or self._session.closed:
            self._session = self._connect(ends)
        return self._session

    def _connect(self, ends: float) -> Session:
        """Ask all hosts of the address at once; the first that can be written to is taken."""
        answers: SimpleQueue[Session | Exception] = SimpleQueue()
        over = threading.Event()
        deciding = threading.Lock()
        hosts = _hosts(self._params)

        def attempt(one: dict[str, Any]) -> None:
            try:
                answer: Session | Exception = _open(one, max(2, round(ends - time.monotonic())))
            except Exception as error:  # noqa: BLE001 - carried to the caller
                answer = error
            with deciding:
                if not over.is_set():
                    answers.put(answer)
                elif isinstance(answer, Session):
                    answer.close()

        for one in hosts:
            threading.Thread(target=attempt, args=(one,), name="journal-connect", daemon=True).start()
        try:
            session = _first(answers, len(hosts), ends)
        finally:
            with deciding:
                over.set()
            while not answers.empty():
                late = answers.get()
                if isinstance(late, Session):
                    late.close()
        try:
            self._set_up(session, ends)
        except BaseException:
            session.close()
            raise
        return session

    def _set_up(self, session: Session, ends: float) -> None:
        """What must hold whatever the role's or the server's defaults are; the server gives up when we do."""
        limit = f"{self._patience / 2 * 1000:.0f}ms"
        settings = {
            "synchronous_commit": "on", "default_transaction_isolation": "read committed", "TimeZone": "UTC",
            "statement_timeout": limit, "lock_timeout": limit, "idle_in_transaction_session_timeout": limit,
            "search_path": "pg_catalog",
        }  # fmt: skip
        Turn(session, ends, in_doubt=False).look(
            "SELECT " + ", ".join("set_config(%s, %s, false)" for _ in settings),
            *(word for setting in settings.items() for word in setting),
        )

    def _failed(self, error: psycopg.Error, trouble: str, *, in_doubt: bool = False) -> JournalError:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        why = lines[0]
        password = self._params.get("password")
        if password:
            why = why.replace(str(password), "***")
        doubt = "; whether the last thing was written is not known: no answer came to its commit" if in_doubt else ""
        return (InDoubt if in_doubt else JournalError)(f"journal {self.place}: {trouble} ({why}){doubt}")


def _whole(turn: Turn, work: Callable[[Turn], Result]) -> Result:
    result = work(turn)
    turn.leave()
    return result


def _worth_again(turn: Turn | None, error: psycopg.Error) -> bool:
    if turn is None or turn.session.closed:
        return isinstance(error, psycopg.OperationalError)
    return (error.sqlstate or "").startswith(_AGAIN)


def _read(url: str) -> dict[str, Any]:
    """The parameters of an address; what cannot be read is not shown, because it may hold a password."""
    try:
        params = {name: value for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.Error:
        params = {}
    ports = str(params.get("port", "")).split(",")
    misread = any("@" in str(params.get(name, ""))[1:] for name in ("host", "dbname")) or "@" in str(params.get("port", ""))
    if not params.get("host") or misread or not all(port.isdigit() or not port for port in ports):
        raise JournalError(
            "journal: the address is not one that PostgreSQL reads; write postgresql://USER@HOST:PORT/DATABASE, "
            "with %40 for @, %3A for : and %2F for / in a password"
        )
    return {"target_session_attrs": "read-write", "application_name": "failover journal", **params, "client_encoding": "UTF8"}


def _place(params: dict[str, Any]) -> str:
    """The address without password or options."""
    user = f"{params['user']}@" if "user" in params else ""
    hosts = ",".join(_shown(one["host"]) + (f":{one['port']}" if "port" in one else "") for one in _hosts(params))
    return f"postgresql://{user}{hosts}/{params.get('dbname', '')}"


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _hosts(params: dict[str, Any]) -> list[dict[str, Any]]:
    """One set of parameters for each host of the address."""
    names = str(params["host"]).split(",")
    ports = str(params.get("port", "")).split(",")
    ports = ports * len(names) if len(ports) == 1 else ports
    addresses = str(params.get("hostaddr", "")).split(",")
    hosts = []
    for number, name in enumerate(names):
        one = {key: value for key, value in params.items() if key not in {"host", "port", "hostaddr"}} | {"host": name}
        if number < len(ports) and ports[number]:
            one["port"] = ports[number]
        if number < len(addresses) and addresses[number]:
            one["hostaddr"] = addresses[number]
        hosts.append(one)
    return hosts


def _open(params: dict[str, Any], seconds: int) -> Session:
    """Connect to one host. Its name is resolved here: libpq would hold Python's lock meanwhile."""
    if not params["host"].startswith(("/", "@")) and "hostaddr" not in params:
        try:
            found = socket.getaddrinfo(params["host"], None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise NotResolved(f"'{params['host']}' has no address ({why})") from None
        params = params | {"hostaddr": str(found[0][4][0])}
    return Session.connect(**{**params, "connect_timeout": seconds}, autocommit=True, prepare_threshold=None)


def _first(answers: SimpleQueue[Session | Exception], hosts: int, ends: float) -> Session:
    """The first session; else the last error, or Unanswered when time is over."""
    error: Exception = Unanswered("no address")
    for _ in range(hosts):
        try:
            answer = answers.get(timeout=max(0.001, ends - time.monotonic()))
        except Empty:
            raise Unanswered("no answer in time") from None
        if isinstance(answer, Session):
            return answer
        error = answer
    raise error
