"""The nodes' leases, their ways to the lease service, their watchdog agents, and the timers that reset a hung host.

The service stands for one outside both regions; each node reaches it by a link of its own, which a disconnect cuts.
The timer stands for the board's hardware watchdog: it runs down whatever the host does, frozen or not, and only a fresh
lease winds it up (the agent writes the time of its last granted question into a file).
"""

from __future__ import annotations

import asyncio
import functools
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .addresses import NODES, Addresses, Endpoint, NodeName
from .admission import takes_writes
from .database import Database
from .errors import LabError
from .events import EventLog
from .leases import TTL, Lease
from .link import Link, LinkState, dial
from .processes import Child
from .programs import Programs

_LOOK = 0.05  # seconds between two looks at the timers


def way_to_leases(addresses: Addresses, node: NodeName) -> Endpoint:
    """The node's own way to the lease service."""
    return addresses.at(1 + NODES.index(node), 9, addresses.control.port)


def wound_file(addresses: Addresses, node: NodeName) -> Path:
    """Where the agent says when it last asked for a lease that it got: seconds of the machine's monotonic clock."""
    return addresses.folder / f"wound-{node}"


class Watchdogs:
    """Used by the supervisor's main thread only. Without `agents` there are leases and links, and nobody renews."""

    def __init__(self, addresses: Addresses, database: Database, programs: Programs, events: EventLog) -> None:
        self.leases = {name: Lease() for name in NODES}
        self._addresses = addresses
        self._database = database
        self._programs = programs
        self._events = events
        self._links = {
            name: Link(way_to_leases(addresses, name), functools.partial(dial, addresses.control)) for name in NODES
        }
        self._agents: dict[NodeName, Child] = {}
        self._timers: asyncio.Task[None] | None = None
        database.admission.reaches = self._may_go_on

    async def open(self, *, agents: bool) -> None:
        """Open the ways and start an agent for each node, if wanted."""
        for name in NODES:
            self.leases[name] = Lease()
            await self._links[name].become("open")
        if not agents:
            return
        for name in NODES:
            wound_file(self._addresses, name).write_text(repr(time.monotonic()))
            self._agents[name] = self._programs.start(f"watchdog-{name}", "watchdog", "--node", name)
        self._timers = asyncio.create_task(self._run_down())

    async def close(self) -> None:
        """End agents, timers and ways."""
        if self._timers is not None:
            self._timers.cancel()
            with suppress(asyncio.CancelledError):
                await self._timers
            self._timers = None
        for agent in self._agents.values():
            await agent.stop()
        self._agents.clear()
        for link in self._links.values():
            await link.close()

    async def cut(self, name: NodeName, state: LinkState) -> None:
        """Change the node's way to the lease service."""
        await self._links[name].become(state)

    def freeze(self, name: NodeName) -> None:
        """The agent is frozen with its host."""
        if name in self._agents:
            self._agents[name].signal(signal.SIGSTOP)

    async def heal(self) -> None:
        """Open every way and let frozen agents go on."""
        for name in NODES:
            await self.cut(name, "open")
        for agent in self._agents.values():
            agent.signal(signal.SIGCONT)

    def ask(self, method: str, name: NodeName, verb: list[str]) -> dict[str, Any] | None:
        """Answer a request about a lease; None when there is no such thing."""
        lease = self.leases[name]
        match method, verb:
            case "GET", []:
                return lease.status()
            case "POST", ["renew"]:
                return {"granted": lease.renew(), **lease.status()}
            case "POST", ["close" | "release" as word]:
                lease.close() if word == "close" else lease.release()
                self._events.add(f"lease-{word}", node=name)
                return lease.status()
        return None

    def _may_go_on(self, name: NodeName) -> bool:
        """Whether a node that is closed may open: it reaches the service and, with an agent, holds a fresh lease."""
        fresh = not self._agents or time.monotonic() - self._wound(name) < TTL / 2
        return self._links[name].state == "open" and not self.leases[name].closed and fresh

    def _wound(self, name: NodeName) -> float:
        return float(wound_file(self._addresses, name).read_text())

    async def _run_down(self) -> None:
        while True:
            for name in NODES:
                node = self._database.nodes[name]
                if node.state != "stopped" and takes_writes(node.data) and time.monotonic() > self._wound(name) + TTL:
                    self._events.add("hardware-reset", node=name)
                    with suppress(LabError):
                        await node.kill()
            await asyncio.sleep(_LOOK)
