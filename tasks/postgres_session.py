"""A psycopg session that can be taken back: every statement checks right before it leaves, none hangs for ever."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import errors

if TYPE_CHECKING:
    from psycopg.abc import PQGen

    from tasks.postgres_server import Server

Answer = TypeVar("Answer")
RECEIVED_LSN = """
CASE WHEN (pg_last_wal_receive_lsn() - '0/0'::pg_lsn) %
            pg_size_bytes(current_setting('wal_segment_size')) = 0
      AND NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')
     THEN NULL ELSE pg_last_wal_receive_lsn()::text END"""
"""What a standby received; NULL where it never streamed: it then says where a segment begins, from where it would ask."""
_INTERVAL = 0.1  # psycopg's own pause between two looks for Ctrl-C


class Unanswered(psycopg.OperationalError):
    """The server gave no answer in time; the session is closed."""


class NotResolved(psycopg.OperationalError):
    """The server's name has no address, as far as we can tell."""


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose every round trip (statement, BEGIN, ROLLBACK) passes `check` and ends within `patience`.

    psycopg sends everything through `wait`; that is why the check stands there and not in a cursor.
    """

    check: Callable[[], None] = staticmethod(lambda: None)
    patience: float = 5.0

    def wait(self, gen: PQGen[Answer], interval: float = _INTERVAL, timeout: float | None = None) -> Answer:
        """Let one round trip out. Raises Revoked, or Unanswered when it takes longer than `patience`."""
        try:
            self.check()
        except BaseException:
            gen.close()
            raise
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except errors._WaitTimeout:  # noqa: SLF001 - its only name
            self.pgconn.finish()  # the answer may still come: nothing else can be asked on this session
            raise Unanswered(f"no answer within {self.patience:g}s") from None

    def hang_up(self) -> None:
        """End the session from any thread; a statement that another thread waits for fails at once.

        Freeing a connection under a thread that waits on it would leave that thread on a closed descriptor: then only
        the socket is shut down, and the waiting thread finds its server gone.
        """
        if self.lock.acquire(blocking=False):
            try:
                self.close()
            finally:
                self.lock.release()
            return
        with contextlib.suppress(Exception), socket.socket(fileno=os.dup(self.pgconn.socket)) as line:
            line.shutdown(socket.SHUT_RDWR)


def open_session(server: Server, check: Callable[[], None], timeout: timedelta) -> Session:
    """Connect on a daemon thread and give up after `timeout`.

    libpq rounds connect_timeout up to 2 s, resolves names while it holds Python's lock, and waits for a proxy that
    accepts and never answers: so the name is resolved here first and the waiting is ours. An abandoned attempt ends by
    its own connect_timeout, and is closed if it succeeds after all.
    """
    check()
    answer: Queue[Session | Exception] = Queue(maxsize=1)
    given_up = threading.Event()
    seconds = timeout.total_seconds()

    def attempt() -> None:
        try:
            session = Session.connect(
                host=server.host,
                hostaddr=_address(server),
                port=server.port,
                dbname=server.database,
                user=server.user,
                password=server.password.get_secret_value() if server.password else None,
                sslmode=server.sslmode,
                application_name=server.application_name,
                connect_timeout=max(2, round(seconds)),
                autocommit=True,
                prepare_threshold=None,
            )
        except Exception as error:  # noqa: BLE001 - carried to the caller
            answer.put(error)
            return
        session.check, session.patience = check, seconds
        answer.put(session)
        if given_up.is_set():
            session.close()

    threading.Thread(target=attempt, name=f"connect-{server.name}", daemon=True).start()
    try:
        found = answer.get(timeout=seconds)
    except Empty:
        given_up.set()
        with contextlib.suppress(Empty):
            late = answer.get_nowait()
            if isinstance(late, Session):
                late.close()
        raise Unanswered(f"no answer within {seconds:g}s") from None
    if isinstance(found, Exception):
        raise found
    return found


def _address(server: Server) -> str | None:
    if server.host.startswith("/"):
        return None
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotResolved(f"'{server.host}' has no address ({getattr(error, 'strerror', None) or error})") from None
    return str(found[0][4][0])
