"""A TCP link that can fail the ways networks and hosts do: silence, resets, refusals, in one direction or both."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, Literal, TypeAlias, get_args

from .addresses import Endpoint

LinkState: TypeAlias = Literal["open", "blackhole", "reset", "refuse"]
Direction: TypeAlias = Literal["both", "to", "from"]
LINK_STATES: Final[tuple[LinkState, ...]] = get_args(LinkState)
DIRECTIONS: Final[tuple[Direction, ...]] = get_args(Direction)
Dial: TypeAlias = Callable[[], Awaitable[socket.socket]]

_BACKLOG = 128
_CHUNK = 65536
_LOOPBACK = 0.002  # seconds; a handshake over loopback is done when connect returns
_FILL = 8  # a backlog of 0 takes one connection on Linux; more only if the kernel changes its mind


class Link:
    """Listens at one address and passes bytes to whatever `dial` connects to.

    - open: bytes pass.
    - blackhole: established connections stall without a FIN or an RST and go on where they were when it ends, as TCP
      does; new ones get no answer to their SYN. `direction` "to" or "from" (the node) cuts only that direction; a new
      connection needs both.
    - reset: established connections and new ones get an RST.
    - refuse: nothing listens; established connections get an RST. A dead process on a live host.
    """

    def __init__(self, listen: Endpoint, dial: Dial) -> None:
        self.listen = listen
        self.state: LinkState = "refuse"
        self.direction: Direction = "both"
        self._dial = dial
        self._to, self._from = asyncio.Event(), asyncio.Event()  # set: bytes pass
        self._server: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._fillers: list[socket.socket] = []
        self._pairs: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()

    async def become(self, state: LinkState, direction: Direction = "both") -> None:
        """Change what the link does to old and new connections, at once."""
        async with self._lock:
            self.state, self.direction = state, direction
            if state == "blackhole":
                self._gate(to=direction == "from", back=direction == "to")
                await self._stop_accepting()
                self._fill()
                return
            if state in {"reset", "refuse"}:
                await self._stop_accepting()
                await self._drop_all()
            self._gate(to=True, back=True)
            if state == "refuse":
                self._close_server()
            else:
                self._listen()

    async def close(self) -> None:
        """End the link as the end of its host would: resets, and nothing listens."""
        await self.become("refuse")

    def _gate(self, *, to: bool, back: bool) -> None:
        for gate, passes in ((self._to, to), (self._from, back)):
            gate.set() if passes else gate.clear()

    def _listen(self) -> None:
        server = self._open_server()
        server.listen(_BACKLOG)
        fillers = {filler.getsockname() for filler in self._fillers}
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        if self._accepting is None:
            self._accepting = asyncio.create_task(self._accept(server, fillers))

    def _open_server(self) -> socket.socket:
        if self._server is None:
            self._server = socket.socket()
            self._server.setblocking(False)
            self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._server.bind((self.listen.host, self.listen.port))
        return self._server

    def _close_server(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        if self._server is not None:
            self._server.close()
            self._server = None

    def _fill(self) -> None:
        """Fill the accept queue with connections of our own, so that the kernel drops every further SYN."""
        server = self._open_server()
        server.listen(0)
        for _ in range(_FILL):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((self.listen.host, self.listen.port))
            if not select.select([], [filler], [], _LOOPBACK)[1]:  # no answer: the queue is full
                filler.close()
                return
            self._fillers.append(filler)

    async def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._accepting
            self._accepting = None

    async def _drop_all(self) -> None:
        for pair in self._pairs:
            pair.cancel()
        if self._pairs:
            await asyncio.wait(self._pairs)

    async def _accept(self, server: socket.socket, fillers: set[tuple[str, int]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, peer = await loop.sock_accept(server)
            if self.state == "reset" or peer in fillers:
                fillers.discard(peer)
                abort(client)
                continue
            pair = asyncio.create_task(self._pass(client))
            self._pairs.add(pair)
            pair.add_done_callback(self._pairs.discard)

    async def _pass(self, client: socket.socket) -> None:
        client.setblocking(False)
        upstream: socket.socket | None = None
        try:
            upstream = await self._dial()
            for end in (client, upstream):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await _both(
                _pump(client, upstream, self._to, self._from),
                _pump(upstream, client, self._from, self._to),
            )
            client.close()
            upstream.close()
        except OSError:
            pass  # one end is gone; so is the other, below
        finally:
            abort(client)
            if upstream is not None:
                abort(upstream)


async def dial(endpoint: Endpoint) -> socket.socket:
    """Connect to `endpoint`."""
    upstream = socket.socket()
    upstream.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(upstream, (endpoint.host, endpoint.port))
    except BaseException:
        upstream.close()
        raise
    return upstream


def abort(connection: socket.socket) -> None:
    """Close with an RST instead of a FIN; nothing if it is closed already."""
    if connection.fileno() >= 0:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


async def _pump(source: socket.socket, sink: socket.socket, gate: asyncio.Event, back: asyncio.Event) -> None:
    """Pass bytes one way while `gate` is open. The death of an end travels the way its RST would, through the gates."""
    loop = asyncio.get_running_loop()
    while True:
        await gate.wait()
        try:
            chunk = await loop.sock_recv(source, _CHUNK)
        except OSError:
            await gate.wait()
            raise
        await gate.wait()  # again: what came while the link was cut is on the wire, not at the other end
        try:
            if not chunk:
                sink.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(sink, chunk)
        except OSError:
            await back.wait()
            raise


async def _both(*pumps: Coroutine[None, None, None]) -> None:
    """Run both to the end; when one fails, cancel the other and raise."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
