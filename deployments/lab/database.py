"""The two nodes and everything in front of them, and what can be done to them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias, get_args

from .addresses import NODES, WAYS, NodeName, Way, node_name, other
from .admission import Admission
from .errors import LabError, Refused
from .events import EventLog
from .link import Direction, Link, LinkState, dial
from .node import Node
from .programs import Programs
from .rebuild import Host
from .storage import Storage

How: TypeAlias = Literal["kill", "freeze", "disconnect"]
HOWS: Final[tuple[How, ...]] = get_args(How)
_RESTART = 1.0  # seconds, as systemd's Restart=always RestartSec=1
_ATTACH = 10.0  # seconds for the standby to stream; it retries each 5 s (wal_retrieve_retry_interval)


@dataclass
class Cut:
    """What is wanted of a link; what it does also depends on whether its node lives."""

    state: LinkState = "open"
    direction: Direction = "both"


class Database:
    """Primary, standby and their links."""

    def __init__(self, storage: Storage, programs: Programs, events: EventLog, *, supervise: bool = False) -> None:
        self.storage = storage
        self._events = events
        self._supervise = supervise
        self._cuts: dict[tuple[NodeName, Way], Cut] = {(node, way): Cut() for node in NODES for way in WAYS}
        self.closed_ways: set[NodeName] = set()
        self._links: dict[tuple[NodeName, Way], Link] = {}
        self.nodes: dict[NodeName, Node] = {}
        self.admission = Admission(storage, self.nodes, events)
        self._rebuilding = False
        self._restarts: set[asyncio.Task[None]] = set()
        for name in NODES:
            own_side = functools.partial(dial, storage.addresses.own_side(name))
            for way in WAYS:
                self._links[name, way] = Link(storage.addresses.way(name, way), own_side)
            self.nodes[name] = Node(name, storage, programs.adopt, functools.partial(self._follow, name))
        self.hosts = {
            name: Host(node, self.nodes[other(name)], storage, events, self.start) for name, node in self.nodes.items()
        }

    async def build(self) -> None:
        """Bring both nodes to their first day, whatever they are now, and return when the standby streams."""
        self._rebuilding = True
        for host in self.hosts.values():
            await host.end()
        try:
            for node in self.nodes.values():
                self.admission.forget(node.name)
                await node.kill()
            await asyncio.gather(*(asyncio.to_thread(self.storage.build, name) for name in NODES))
        finally:
            self._rebuilding = False
        self.closed_ways.clear()
        for key in self._cuts:
            self._cuts[key] = Cut()
        for node in self.nodes.values():  # east first: a standby that misses its primary tries again after 5 s only
            await node.start()
        await self._attached()

    async def break_node(self, which: str, how: How) -> tuple[NodeName, datetime]:
        """Break a node ("primary": whichever is); return which it was and the moment of the fault."""
        name = self.primary() if which == "primary" else node_name(which)
        node = self.nodes[name]
        if node.state == "stopped" and how != "disconnect":
            raise Refused(f"node {name}: is stopped, so it cannot be broken by {how}")
        at = self._events.add("break", node=name, how=how)
        match how:
            case "kill":
                await node.kill()
            case "freeze":
                await node.freeze()
            case "disconnect":
                # Its own three ways, and the one on which it could reach the other node.
                ways = [*((name, way) for way in WAYS), (other(name), WAYS[-1])]
                await asyncio.gather(*(self.cut(at, way, Cut("blackhole")) for at, way in ways))
        return name, at

    async def heal(self) -> list[str]:
        """Undo every fault: open links, thaw, start. What was powered off stays off. Return what was done."""
        done = []
        for (name, way), cut in self._cuts.items():
            if cut.state != "open":
                await self.cut(name, way, Cut())
                done.append(f"{name}: {way} link opened")
        for node in self.nodes.values():
            if node.state == "frozen":
                await node.thaw()
                done.append(f"{node.name}: thawed")
        for node in self.nodes.values():
            if node.state == "stopped" and node.stays_off:
                done.append(f"{node.name}: powered off, stays off")
            elif node.state == "stopped":
                await self.start(node.name)
                done.append(f"{node.name}: started")
        self._events.add("heal", done=done)
        return done

    async def start(self, name: NodeName) -> None:
        """Start a stopped node. Refused while it was powered off and not released."""
        node = self.nodes[name]
        async with node.lock:
            if node.state == "stopped":
                self.admission.close(name)
            await node.start()
            await self.admission.admit(name)
        self._events.add("start", node=name)

    async def power_off(self, name: NodeName) -> None:
        """Kill a node, frozen or cut off or not, so that nothing starts it again before `release`."""
        if self._rebuilding:
            raise Refused("the lab is being reset; try again when it is done")
        self._events.add("power-off", node=name)
        await self.nodes[name].power_off()
        self._events.add("off", node=name)

    def release(self, name: NodeName) -> None:
        self.nodes[name].release()
        self._events.add("release", node=name)

    async def cut(self, name: NodeName, way: Way, cut: Cut) -> None:
        """Change one link."""
        self._cuts[name, way] = cut
        self._events.add("link", node=name, way=way, state=cut.state, direction=cut.direction)
        await self._apply(name, way)

    async def close_way(self, name: NodeName, *, closed: bool) -> None:
        """Close the way on which clients reach the node, or open it; closed, it outlasts everything but a reset."""
        (self.closed_ways.add if closed else self.closed_ways.discard)(name)
        self._events.add("way-closed" if closed else "way-opened", node=name)
        await self._apply(name, "service")

    def cuts(self, name: NodeName) -> dict[Way, Cut]:
        return {way: self._cuts[name, way] for way in WAYS}

    def primary(self) -> NodeName:
        """Return the primary. Refused when there are two, or none."""
        primaries = self.primaries()
        if len(primaries) != 1:
            raise Refused(f"{len(primaries)} running primaries: {', '.join(primaries) or 'none'}; name a node")
        return primaries[0]

    def primaries(self) -> Sequence[NodeName]:
        statuses = [node.status() for node in self.nodes.values()]
        return [status.node for status in statuses if status.role == "primary" and status.state != "stopped"]

    async def close(self) -> None:
        """Kill both nodes and close every link."""
        self._supervise = False
        for task in self._restarts:
            task.cancel()
        for host in self.hosts.values():
            await host.end()
        for node in self.nodes.values():
            self.admission.forget(node.name)
            await node.kill()
        for link in self._links.values():
            await link.close()

    async def _follow(self, name: NodeName) -> None:
        await asyncio.gather(*(self._apply(name, way) for way in WAYS))
        if self._supervise and not self._rebuilding and self.nodes[name].state == "stopped":
            self._restarts.add(task := asyncio.create_task(self._restart(name)))
            task.add_done_callback(self._restarts.discard)

    async def _apply(self, name: NodeName, way: Way) -> None:
        """Silence on the network hides a dead node; nothing else does."""
        cut, link = self._cuts[name, way], self._links[name, way]
        state: LinkState = cut.state
        if way == "service" and name in self.closed_ways:
            state = "refuse"  # by whoever owns the way, so no heal and no restart of the node opens it
        elif state in {"open", "reset"} and not self.nodes[name].reachable:
            state = "refuse"
        await link.become(state, cut.direction)

    async def _restart(self, name: NodeName) -> None:
        await asyncio.sleep(_RESTART)
        node = self.nodes[name]
        if node.state == "stopped" and not node.stays_off and self._supervise:
            await self.start(name)

    async def _attached(self) -> None:
        try:
            async with asyncio.timeout(_ATTACH):
                while not self.nodes["east"].feeds():  # noqa: ASYNC110 - a process's title raises no event
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise LabError(f"node west: does not stream from east after {_ATTACH:g} s; see its log") from None
