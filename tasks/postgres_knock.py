"""Knock at a PostgreSQL server: libpq hides the SQLSTATE of a connect that failed, the wire does not."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

PROTOCOL = 3 << 16  # version 3.0 of PostgreSQL's protocol, understood by every server


@dataclass(frozen=True)
class Knock:
    """The first answer to a startup message. closed: none came, the connection was closed instead."""

    closed: bool
    code: str = ""
    routine: str = ""


def knock(host: str, port: int, user: str, database: str, timeout: timedelta) -> Knock:
    """Say who we would be and read the first answer; raises OSError when there is none."""
    words = f"user\0{user}\0database\0{database}\0\0".encode()
    with _line(host, port, timeout.total_seconds()) as line:
        line.sendall(struct.pack("!ii", len(words) + 8, PROTOCOL) + words)
        answer = line.recv(4096)
    if answer[:1] != b"E":
        return Knock(closed=not answer)
    fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in answer[5:].split(b"\0")}
    return Knock(closed=False, code=fields.get(b"C", ""), routine=fields.get(b"R", ""))


@contextlib.contextmanager
def _line(host: str, port: int, seconds: float) -> Iterator[socket.socket]:
    if not host.startswith("/"):
        with socket.create_connection((host, port), timeout=seconds) as line:
            yield line
        return
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(seconds)
        line.connect(f"{host}/.s.PGSQL.{port}")
        yield line
