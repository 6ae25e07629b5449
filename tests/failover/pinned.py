"""Clients pinned to a node: they write to it for as long as it lets them, whatever else happens.

From the node's own side, which no cut reaches; or by the way of the service, where the round closes that way as a fence.
"""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field

import psycopg

from deployments.lab import Lab
from deployments.lab.addresses import NODES, NodeName

WRITE = """
INSERT INTO orders (ref, region, instance, item, amount) VALUES (%s, %s, %s, 'book', 1)
RETURNING node, substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
"""
EACH = 2
"""Clients a node."""
PAUSE = 0.02
"""Seconds between two writes of one client: about 80 a second to a node that takes them."""


@dataclass(frozen=True)
class Ack:
    """One acknowledged write. Times are seconds of this machine's monotonic clock; `timeline` is the writer's own."""

    node: str
    timeline: int
    ref: str
    sent: float
    acked: float


@dataclass
class Pinned:
    """All clients of a lab. They never stop trying until `stop`, and keep every acknowledgement."""

    lab: Lab
    by_way: frozenset[NodeName] = frozenset()
    """Nodes whose clients come by the way of the service."""
    acks: list[Ack] = field(default_factory=list)
    refused: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> Pinned:
        for node in NODES:
            for number in range(EACH):
                thread = threading.Thread(target=self._work, args=(node, number), daemon=True)
                self._threads.append(thread)
                thread.start()
        return self

    def stop(self) -> None:
        """End them; one that waits for a node that never answers is left behind and ends with it."""
        self._over.set()
        until = time.monotonic() + 3
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def by(self, node: NodeName) -> list[Ack]:
        """Its acknowledgements, oldest first."""
        return sorted((ack for ack in [*self.acks] if ack.node == node), key=lambda ack: ack.acked)

    def wait_for(self, node: NodeName, more: int, seconds: float = 15) -> bool:
        """Wait until the node has acknowledged so many more; False when it did not in time."""
        wanted, until = len(self.by(node)) + more, time.monotonic() + seconds
        while len(self.by(node)) < wanted:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def _place(self, node: NodeName) -> str:
        place = self.lab.conninfo(node, "checkout")
        return f"{place} host={self.lab.addresses.way(node, 'service').host}" if node in self.by_way else place

    def _work(self, node: NodeName, number: int) -> None:
        who = f"pinned-{node}-{number}"
        while not self._over.is_set():
            try:
                with psycopg.connect(self._place(node), autocommit=True) as session:
                    while not self._over.is_set():
                        self._write(session, node, who)
                        time.sleep(PAUSE)
            except psycopg.Error:
                self.refused += 1
                time.sleep(PAUSE)

    def _write(self, session: psycopg.Connection, node: NodeName, who: str) -> None:
        ref, sent = str(uuid.uuid4()), time.monotonic()
        row = session.execute(WRITE, (ref, node, who)).fetchone()
        acked = time.monotonic()
        assert row is not None
        self.acks.append(Ack(row[0], int(row[1], 16), ref, sent, acked))
