"""The proxy's ways to fail, against a plain echo server, as a client sees them."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Awaitable, Callable

import pytest

from deployments.lab.addresses import Endpoint
from deployments.lab.link import Link, abort, dial

from .conftest import worker

UP = Endpoint(f"127.{211 + worker()}.1.1", 15555)
FRONT = Endpoint(f"127.{211 + worker()}.1.2", 15555)


def scenario(play: Callable[[Link], Awaitable[None]]) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1000):
            writer.write(chunk)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(echo, UP.host, UP.port)
        link = Link(FRONT, functools.partial(dial, UP))
        await link.become("open")
        try:
            async with asyncio.timeout(20):
                await play(link)
        finally:
            await link.close()
            server.close()

    asyncio.run(run())


async def connect(seconds: float = 1.0) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    try:
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(client, (FRONT.host, FRONT.port)), seconds)
    except BaseException:
        client.close()
        raise
    return client


async def says(client: socket.socket, text: bytes, seconds: float = 0.3) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, text)
    return await asyncio.wait_for(loop.sock_recv(client, 1000), seconds)


def test_an_open_link_passes_bytes_and_ends() -> None:
    async def play(_link: Link) -> None:
        client = await connect()
        assert await says(client, b"hello") == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert await asyncio.get_running_loop().sock_recv(client, 10) == b""
        client.close()

    scenario(play)


def test_a_blackhole_stalls_old_connections_and_delivers_when_it_ends() -> None:
    async def play(link: Link) -> None:
        client = await connect()
        assert await says(client, b"a") == b"a"
        await link.become("blackhole")
        with pytest.raises(TimeoutError):
            await says(client, b"b")
        await link.become("open")
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 10), 1) == b"b"
        client.close()

    scenario(play)


def test_a_blackhole_lets_new_connects_time_out_and_take_up_again() -> None:
    async def play(link: Link) -> None:
        await link.become("blackhole")
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await connect(0.2)
        await link.become("open")
        client = await connect(5)
        assert await says(client, b"back") == b"back"
        client.close()

    scenario(play)


@pytest.mark.parametrize("direction", ["to", "from"])
def test_a_cut_of_one_direction_lets_the_other_pass(direction: str) -> None:
    async def play(link: Link) -> None:
        server = socket.create_server((UP.host, UP.port + 1))
        server.setblocking(False)
        own = Link(Endpoint(FRONT.host, FRONT.port + 1), functools.partial(dial, Endpoint(UP.host, UP.port + 1)))
        await own.become("open")
        client = await dial(Endpoint(FRONT.host, FRONT.port + 1))
        loop = asyncio.get_running_loop()
        node, _ = await loop.sock_accept(server)
        await own.become("blackhole", direction)
        await loop.sock_sendall(client, b"to")
        await loop.sock_sendall(node, b"from")
        passes, stalls = (client, node) if direction == "to" else (node, client)
        assert await asyncio.wait_for(loop.sock_recv(passes, 10), 1) == (b"from" if direction == "to" else b"to")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.sock_recv(stalls, 10), 0.2)
        for end in (client, node, server):
            end.close()
        await own.close()

    scenario(play)


def test_the_death_of_the_server_is_not_noticed_through_a_blackhole() -> None:
    async def play(_link: Link) -> None:
        server = socket.create_server((UP.host, UP.port + 1))
        server.setblocking(False)
        own = Link(Endpoint(FRONT.host, FRONT.port + 1), functools.partial(dial, Endpoint(UP.host, UP.port + 1)))
        await own.become("open")
        client = await dial(Endpoint(FRONT.host, FRONT.port + 1))
        loop = asyncio.get_running_loop()
        node, _ = await loop.sock_accept(server)
        await own.become("blackhole")
        abort(node)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.sock_recv(client, 10), 0.3)
        await own.become("open")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(loop.sock_recv(client, 10), 1)
        client.close()
        server.close()
        await own.close()

    scenario(play)


@pytest.mark.parametrize("state", ["reset", "refuse"])
def test_resets_end_old_connections_at_once(state: str) -> None:
    async def play(link: Link) -> None:
        client = await connect()
        assert await says(client, b"a") == b"a"
        await link.become(state)
        with pytest.raises(ConnectionResetError):
            await says(client, b"b")
        client.close()

    scenario(play)


def test_refuse_refuses_and_reset_resets_new_connections() -> None:
    async def play(link: Link) -> None:
        await link.become("refuse")
        with pytest.raises(ConnectionRefusedError):
            await connect()
        await link.become("open")
        client = await connect()
        assert await says(client, b"a") == b"a"
        client.close()

    scenario(play)


def test_a_server_that_is_not_there_resets() -> None:
    async def play(_link: Link) -> None:
        own = Link(Endpoint(FRONT.host, FRONT.port + 1), functools.partial(dial, Endpoint(UP.host, UP.port + 9)))
        await own.become("open")
        client = await dial(Endpoint(FRONT.host, FRONT.port + 1))
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 10), 1)
        client.close()
        await own.close()

    scenario(play)


def test_states_set_at_the_same_time_end_in_the_last_one() -> None:
    async def play(link: Link) -> None:
        states = ["blackhole", "refuse", "open", "blackhole", "reset", "open"]
        await asyncio.gather(*(link.become(state) for state in states))
        client = await connect(5)
        assert await says(client, b"a") == b"a"
        client.close()

    scenario(play)
