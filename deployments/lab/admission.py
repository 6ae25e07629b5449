"""A node that was down lets no client in until it has read, from outside its region, that it is the primary.

PostgreSQL comes back as what it was: a former primary as a primary. So it starts closed: `closed.conf`, which
pg_hba.conf includes first, rejects every client (only the engine's role and the stream get in). It is opened when the
authority says that this node is the primary, and the authority can be reached. default_transaction_read_only would be
no fence: any session may override it.

Must never happen: a former primary takes writes after a promotion of the other. `_may_open` is asked before `_open`, and
`close` runs before each start of a primary; a node that cannot reach the authority stays closed.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from .addresses import NODES, NodeName
from .events import EventLog
from .node import Node
from .storage import Storage

CLOSED = """
host replication replicator 127.0.0.0/8 scram-sha-256
host all         failover   127.0.0.0/8 scram-sha-256
host all         all        0.0.0.0/0   reject
"""
FILE = "closed.conf"
_AGAIN = 0.2  # seconds between two questions of a node that stays closed
_RELOAD = 0.05  # seconds for the postmaster to read its rules; it does so at once


def takes_writes(data: Path) -> bool:
    """Whether the node with this data folder would take clients' writes: neither a standby, nor closed to them."""
    return not (data / "standby.signal").exists() and not (data / FILE).exists()


def primary(storage: Storage) -> NodeName | None:
    """The authority: of the nodes that are no standby, the one on the newest timeline; None when two share it.

    From what the nodes last wrote, so it is known of dead ones as well: a promotion leaves the history of its timeline.
    """
    found = {name: _timeline(storage, name) for name in NODES if not (storage.data(name) / "standby.signal").exists()}
    newest = [name for name, timeline in found.items() if timeline == max(found.values())]
    return newest[0] if len(newest) == 1 else None


def _timeline(storage: Storage, name: NodeName) -> int:
    histories = (storage.data(name) / "pg_wal").glob("*.history")
    return max((int(file.stem, 16) for file in histories), default=1)


class Admission:
    """Who may let clients in. `reaches` tells whether a node's way to the authority is open."""

    def __init__(self, storage: Storage, nodes: Mapping[NodeName, Node], events: EventLog) -> None:
        self.reaches: Callable[[NodeName], bool] = lambda _name: True
        self._storage = storage
        self._nodes = nodes
        self._events = events
        self._asking: dict[NodeName, asyncio.Task[None]] = {}

    def close(self, name: NodeName) -> None:
        """Before a start: a primary comes back closed. A standby takes no writes and needs no closing."""
        file = self._storage.data(name) / FILE
        if (self._storage.data(name) / "standby.signal").exists():
            file.unlink(missing_ok=True)
            return
        file.write_text(CLOSED)
        self._storage.own(file)

    async def admit(self, name: NodeName) -> None:
        """After a start: open it, or keep asking while it lives."""
        if not self._closed(name):
            return
        if self._may_open(name):
            await self._open(name)
            return
        self._events.add("kept-closed", node=name, primary=primary(self._storage))
        self.forget(name)
        self._asking[name] = asyncio.create_task(self._ask(name))

    def forget(self, name: NodeName) -> None:
        """Ask no more for this node."""
        if (task := self._asking.pop(name, None)) is not None:
            task.cancel()

    def _closed(self, name: NodeName) -> bool:
        return (self._storage.data(name) / FILE).exists()

    def _may_open(self, name: NodeName) -> bool:
        return self.reaches(name) and primary(self._storage) == name

    async def _open(self, name: NodeName) -> None:
        (self._storage.data(name) / FILE).unlink()
        if (pid := self._nodes[name].status().pid) is not None:
            os.kill(pid, signal.SIGHUP)
            await asyncio.sleep(_RELOAD)
        self._events.add("admitted", node=name)

    async def _ask(self, name: NodeName) -> None:
        while self._nodes[name].state != "stopped" and self._closed(name):
            if self._nodes[name].state == "running" and self._may_open(name):
                await self._open(name)
            await asyncio.sleep(_AGAIN)
