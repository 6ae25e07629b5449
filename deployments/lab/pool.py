"""A few connections to PostgreSQL whose every use ends in time, whatever the server or the network does."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator

import psycopg

_TICK = 0.025  # seconds between two looks of the watchdog
_REDIAL = 0.05  # seconds after a connect that failed


class Unavailable(Exception):
    """No connection could be had in time."""


class Pool:
    """Keeps up to `size` autocommit connections open.

    Connecting is done by threads of its own, never by a user: libpq gives a connect at least 2 s, longer than a
    customer waits. A use that passes its end has its socket shut down under it, so that libpq fails at once; cancelling
    it politely would need an answer from the server that does not give one.
    """

    def __init__(self, conninfo: str, size: int) -> None:
        self._conninfo = conninfo
        self._idle: queue.LifoQueue[psycopg.Connection[tuple[object, ...]]] = queue.LifoQueue()
        self._busy: dict[int, tuple[psycopg.Connection[tuple[object, ...]], float]] = {}
        self._lock = threading.Lock()
        self._wanted = threading.Semaphore(size)
        self._refused = False  # the last connect failed at once: no use in waiting
        for work in (self._dial, self._dial, self._watch):
            threading.Thread(target=work, daemon=True).start()

    @contextlib.contextmanager
    def connection(self, seconds: float) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """Lend a connection for at most `seconds`, waiting for it included. A broken one is replaced afterwards."""
        end = time.monotonic() + seconds
        connection = self._take(end)
        with self._lock:
            self._busy[id(connection)] = connection, end
        try:
            yield connection
        finally:
            with self._lock:
                del self._busy[id(connection)]
            if connection.closed or connection.broken:
                connection.close()
                self._wanted.release()
            else:
                self._idle.put(connection)

    def _take(self, end: float) -> psycopg.Connection[tuple[object, ...]]:
        while True:
            patience = 0.02 if self._refused else max(0.0, end - time.monotonic())
            try:
                connection = self._idle.get(timeout=patience)
            except queue.Empty:
                raise Unavailable("no connection to the database") from None
            if not _hung_up(connection):
                return connection
            connection.close()
            self._wanted.release()

    def _dial(self) -> None:
        while True:
            self._wanted.acquire()
            try:
                connection = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
            except psycopg.Error:
                self._refused = True
                self._wanted.release()
                time.sleep(_REDIAL)
            else:
                self._refused = False
                self._idle.put(connection)

    def _watch(self) -> None:
        while True:
            time.sleep(_TICK)
            now = time.monotonic()
            with self._lock:
                for connection, end in self._busy.values():
                    if now > end:
                        _cut(connection)


def _cut(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def _hung_up(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Whether the server said something while the connection lay idle: an end of file, a reset, or its farewell."""
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except (psycopg.Error, OSError):
        return True
    return True
