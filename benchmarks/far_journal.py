"""What a journal that is far away costs a step: the no-ops of `overhead`, on PostgreSQL behind a proxy that takes its time."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from benchmarks import overhead
from flows.clock import SystemClock
from flows.journal_postgres import PostgresJournal
from flows.runs import Request, start
from runbooks.loader import load_text
from runbooks.model import Mode
from runbooks.planner import plan
from tasks import registry
from tests.tasks.postgres_nodes import Node, installed, until

STEPS = 20
WAYS = (0.0, 0.01, 0.04, 0.08)
"""Seconds there and back."""


class Proxy:
    """Hands everything on after half of `way` seconds, in order, each connection on its own."""

    def __init__(self, host: str, port: int, way: float) -> None:
        self._to, self._way = (host, port), way / 2
        self._listen = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listen.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, sock=self._listen), self._loop).result()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._listen.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        server, there = await asyncio.open_connection(*self._to)
        with suppress(asyncio.CancelledError):  # its end
            await asyncio.gather(self._carry(client, there), self._carry(server, back))

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                self._loop.call_later(self._way, target.write, data)
        self._loop.call_later(self._way, target.close)


def run(rounds: int) -> dict[float, list[float]]:
    """Milliseconds a step, for each way."""
    registry.OURS.setdefault("bench.noop", "benchmarks.overhead:Noop")
    results: dict[float, list[float]] = {way: [] for way in WAYS}
    with _server() as node:
        for _ in range(rounds):
            for way in WAYS:
                results[way].append(_once(node, way))
    return results


@contextmanager
def _server() -> Iterator[Node]:
    with installed(90) as installation:
        node = installation.node("journal", fsync="on").start()
        until(lambda: node.ask("SELECT true") is True)
        yield node


def _once(node: Node, way: float) -> float:
    overhead.DONE.clear()
    proxy = Proxy(node.host, node.port, way)
    journal = PostgresJournal(f"postgresql://failover@127.0.0.1:{proxy.port}/postgres", timedelta(seconds=5))
    try:
        planned = plan(load_text(overhead.runbook_text(STEPS), "noops.yaml"), mode=Mode.live, inputs={})
        engine = start(journal, Request(planned, "bench", "bench"), SystemClock())
        begun = time.perf_counter()
        state = engine.run()
        took = time.perf_counter() - begun
        if state.verdict is None or state.verdict.value != "recovered":
            raise RuntimeError(f"the no-ops ended {state.verdict}")
        return took / STEPS * 1000
    finally:
        journal.close()
        proxy.close()


if __name__ == "__main__":
    from benchmarks.measure import spread

    os.environ.setdefault("FAILOVER_JOURNAL_KEY_FILE", "/dev/null")
    for way, times in run(5).items():
        print(f"{way * 1000:.0f} ms there and back: {spread(times, 'ms')} a step", flush=True)
