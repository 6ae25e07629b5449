"""One small HTTP call, for the supervisor's loop and for the lab's clients: standard library only."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from .addresses import Endpoint


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def call(endpoint: Endpoint, method: str, path: str, content: object = None, *, seconds: float) -> Answer:
    """Make one request on a connection of its own. Fails with OSError, also after `seconds` (TimeoutError)."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        try:
            body = b"" if content is None else json.dumps(content).encode()
            head = f"{method} {path} HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            return await _read(reader)
        finally:
            writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> Answer:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if "content-length" in headers:
            return Answer(status, await reader.readexactly(int(headers["content-length"])))
        return Answer(status, await reader.read())
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError) as error:
        raise ConnectionError(f"not a whole HTTP answer: {error}") from error
