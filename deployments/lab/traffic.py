"""Customers: steady orders from clients with a resolver cache, open connections and the patience of real ones.

Every order that was acknowledged, and every one that was given up, is one line in a file that only grows. What the
failover cost is computed from that file and the database, not from what the engine believes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.exception
import dns.message
import dns.rdatatype
import httpx

from .addresses import SERVICE_NAME, WEB_PORT, Addresses, Endpoint
from .report import TRAFFIC_FILE

WORKERS = 16  # orders in flight: enough for the rate, few enough that retries do not become a load test
PATIENCE = 60.0  # seconds until a customer gives an order up
_TIMEOUT = httpx.Timeout(connect=1.0, read=2.0, write=2.0, pool=2.0)
_BACKOFF = (0.1, 0.25)  # seconds
_DNS_TIMEOUT = 0.5


class Resolver:
    """Resolves one name and remembers the answer for its TTL, or until a connection failed."""

    def __init__(self, server: Endpoint, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._name = name
        self._clock = clock
        self._address: str | None = None
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def address(self) -> str:
        """Return the address to connect to; the last known one while DNS does not answer. Fails if there is none."""
        if self._address is None or self._clock() >= self._until:
            async with self._asking:
                if self._address is None or self._clock() >= self._until:
                    await self._ask()
        if self._address is None:
            raise OSError(f"cannot resolve {self._name}")
        return self._address

    def forget(self, address: str) -> None:
        """Ask again at the next use, because connecting to `address` failed."""
        if address == self._address:
            self._until = 0.0

    async def _ask(self) -> None:
        try:
            query = dns.message.make_query(self._name, dns.rdatatype.A)
            reply = await dns.asyncquery.udp(query, self._server.host, timeout=_DNS_TIMEOUT, port=self._server.port)
        except (dns.exception.DNSException, OSError):
            return
        for rrset in reply.answer:
            if rrset.rdtype == dns.rdatatype.A:
                self._address = random.choice(list(rrset)).address  # noqa: S311 - as clients spread themselves
                self._until = self._clock() + rrset.ttl


class Customers:
    """Places orders at a steady rate, whether or not the ones before were answered.

    Each customer has a resolver cache of their own: weighted records split them, and do not throw them all to and fro.
    """

    def __init__(
        self, resolver: Callable[[], Resolver], client: httpx.AsyncClient, record: Callable[[dict[str, Any]], None]
    ) -> None:
        self._resolver = resolver
        self._client = client
        self._record = record
        self._waiting: asyncio.Queue[tuple[uuid.UUID, datetime]] = asyncio.Queue()

    async def run(self, rate: float) -> None:
        """Order for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())
            next_order = time.monotonic()
            while True:
                self._waiting.put_nowait((uuid.uuid4(), datetime.now(UTC)))
                next_order += 1 / rate
                await asyncio.sleep(max(0.0, next_order - time.monotonic()))

    async def _work(self) -> None:
        resolver = self._resolver()
        while True:
            ref, sent = await self._waiting.get()
            await self._order(resolver, ref, sent)

    async def _order(self, resolver: Resolver, ref: uuid.UUID, sent: datetime) -> None:
        """Send one order until it is acknowledged or the customer has lost patience."""
        failed: datetime | None = None
        reason = ""
        attempts = 0
        while (datetime.now(UTC) - sent).total_seconds() < PATIENCE:
            attempts += 1
            answer = await self._send(resolver, ref)
            now = datetime.now(UTC)
            line = {"ref": str(ref), "sent": sent.isoformat(), "attempts": attempts}
            if isinstance(answer, dict):
                line |= {"acked": now.isoformat(), "region": answer["region"], "node": answer["node"]}
                self._record(line | {"failed": failed and failed.isoformat(), "reason": reason})
                return
            failed, reason = failed or now, answer
            await asyncio.sleep(random.uniform(*_BACKOFF))  # noqa: S311 - spreads retries
        self._record({"ref": str(ref), "sent": sent.isoformat(), "attempts": attempts,
                      "given_up": datetime.now(UTC).isoformat(), "failed": failed and failed.isoformat(),
                      "reason": reason})  # fmt: skip

    async def _send(self, resolver: Resolver, ref: uuid.UUID) -> dict[str, Any] | str:
        """Post the order once: the acknowledgement, or why there is none."""
        address = ""
        try:
            address = await resolver.address()
            url = f"http://{address}:{WEB_PORT}/orders"
            content = {"ref": str(ref), "item": "book", "amount": 1}
            reply = await self._client.post(url, json=content, headers={"Host": SERVICE_NAME})
        except (httpx.HTTPError, OSError) as error:
            resolver.forget(address)
            return type(error).__name__
        if reply.status_code not in {200, 201}:
            return f"HTTP {reply.status_code}"
        acknowledgement: dict[str, Any] = reply.json()
        return acknowledgement


async def run(addresses: Addresses, rate: float) -> None:
    """Order from the lab's service for ever, recording below its folder."""
    limits = httpx.Limits(max_connections=WORKERS, max_keepalive_connections=WORKERS)
    file: Path = addresses.folder / TRAFFIC_FILE
    async with httpx.AsyncClient(timeout=_TIMEOUT, limits=limits, trust_env=False) as client:
        with file.open("a", buffering=1) as lines:  # a line each, whole, even if we are killed
            customers = Customers(
                lambda: Resolver(addresses.dns, SERVICE_NAME), client, lambda line: print(json.dumps(line), file=lines)
            )
            await customers.run(rate)


def main() -> None:
    """Order until killed."""
    parser = argparse.ArgumentParser(prog="python -m deployments.lab.traffic")
    parser.add_argument("--lab", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="orders a second")
    given = parser.parse_args()
    asyncio.run(run(Addresses(given.lab), given.rate))


if __name__ == "__main__":
    main()
