"""The whole lab in one object: brought up, watched over, reset and ended."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from . import binaries
from .addresses import NODES, SERVICE_NAME, Addresses, NodeName
from .balancer import Balancer
from .database import Database
from .errors import LabError
from .events import EventLog
from .fleet import Fleet
from .names import Record, Responder, Weighted, Zone, serving
from .programs import MARK, Programs
from .report import TRAFFIC_FILE
from .slack_server import Fault, SlackServer
from .storage import Storage
from .watchdogs import Watchdogs
from .web import call

_PERIOD = 0.1  # seconds between two looks at the cloud
_CLOUD_TIMEOUT = 5.0
_READY = 60.0  # seconds; 4 on an idle machine of 2 cores, and a loaded one is no fault


@dataclass(frozen=True)
class Options:
    """How a lab is wanted. `rate` is in orders a second."""

    sync: bool = False
    supervise: bool = False
    watchdog: bool = False
    traffic: bool = True
    rate: float = 20.0


class World:
    """Owns every process and socket of a lab."""

    def __init__(self, addresses: Addresses, options: Options, password: str, programs: Programs) -> None:
        self.addresses = addresses
        self.options = options
        self.events = EventLog(addresses.folder / "events.jsonl")
        self.ready = False
        self._programs = programs
        postgres = binaries.find({MARK: str(addresses.folder)})
        self._storage = Storage(addresses, postgres, addresses.folder / "nodes", password)
        self.database = Database(self._storage, programs, self.events, supervise=options.supervise)
        self.watchdogs = Watchdogs(addresses, self.database, programs, self.events)
        self.fleet = Fleet(addresses, programs)
        self.slack = SlackServer(addresses.slack)
        self._zone: Zone | None = None
        self._groups: dict[NodeName, Any] = {}
        self._responder = Responder(addresses.dns, lambda: self._zone)
        self._balancers = [Balancer(addresses.balancer(at), functools.partial(self.fleet.targets, at)) for at in NODES]
        self._following: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    async def up(self) -> None:
        """Bring everything up and return when the whole lab works: orders flow, if traffic is wanted."""
        self.events.add("up", **asdict(self.options))
        await self._responder.open()
        for balancer in self._balancers:
            await balancer.open()
        self.slack.open()
        self._programs.start("cloud", "cloud")
        await asyncio.to_thread(self._storage.create, sync=self.options.sync)
        await self.database.build()
        await self.watchdogs.open(agents=self.options.watchdog)
        await self._flow()
        self.events.add("ready")

    async def reset(self) -> None:
        """Return to the first day: data, record, capacities, traffic records, links and fences."""
        async with self._changing:
            self.events.add("reset")
            self.ready = False
            self.slack.workspace.clear()
            await asyncio.to_thread(self.slack.suffer, Fault())
            await self.set_traffic(running=False)
            await self._unfollow()
            await self.fleet.stop()
            self._zone, self._groups = None, {}
            if self._programs.named("cloud") is None:
                self._programs.start("cloud", "cloud")
            else:
                await self._tell("/lab/reset", {})
            await self.watchdogs.close()
            await self.database.build()
            await self.watchdogs.open(agents=self.options.watchdog)
            (self.addresses.folder / TRAFFIC_FILE).unlink(missing_ok=True)
            await self._flow()
            self.events.add("reset-done")

    async def close(self) -> None:
        """End everything, nicely where that is quick."""
        await self._unfollow()
        await asyncio.to_thread(self.slack.close)
        for balancer in self._balancers:
            await balancer.close()
        self._responder.close()
        await self.watchdogs.close()
        await self.database.close()
        for child in list(self._programs.living.values()):
            await child.stop()

    async def heal(self) -> list[str]:
        async with self._changing:
            await self.watchdogs.heal()
            return await self.database.heal()

    async def break_node(self, which: str, how: Any) -> tuple[NodeName, datetime]:
        async with self._changing:
            name, at = await self.database.break_node(which, how)
            if how == "freeze":
                self.watchdogs.freeze(name)
            elif how == "disconnect":
                await self.watchdogs.cut(name, "blackhole")
            return name, at

    async def set_traffic(self, *, running: bool) -> None:
        """Let customers order, or send them away. What they recorded stays."""
        traffic = self._programs.named("traffic")
        if running and traffic is None:
            self._programs.start("traffic", "traffic", "--rate", str(self.options.rate))
        elif not running and traffic is not None:
            await traffic.stop()

    def status(self) -> dict[str, Any]:
        """Tell everything that can be seen from here, as JSON."""
        found = self._zone.get((f"{SERVICE_NAME}.", "A")) if self._zone else None
        sets = serving(found) if found is not None else ()
        values = tuple(dict.fromkeys(value for one in sets for value in one.values))
        return {
            "lab": self.addresses.number,
            "ready": self.ready,
            "options": asdict(self.options),
            "nodes": {name: self._node(name) for name in NODES},
            "groups": {region: self._group(region) for region in NODES},
            "record": {"name": SERVICE_NAME, "values": values, "ttl": max(one.ttl for one in sets)} if sets else None,
            "traffic": self.traffic(),
        }

    def traffic(self) -> dict[str, Any]:
        file = self.addresses.folder / TRAFFIC_FILE
        lines = file.read_bytes().count(b"\n") if file.exists() else 0
        running = self._programs.named("traffic") is not None
        return {"running": running, "rate": self.options.rate, "records": lines, "file": str(file)}

    def _node(self, name: NodeName) -> dict[str, Any]:
        cuts = {way: asdict(cut) for way, cut in self.database.cuts(name).items()}
        return asdict(self.database.nodes[name].status()) | {"links": cuts}

    def _group(self, region: NodeName) -> dict[str, Any]:
        instances = [
            {"id": one.id, "endpoint": str(one.endpoint), "in_service": one.in_service, "healthy": one.healthy}
            for one in self.fleet.instances.values()
            if one.region == region
        ]
        return {"desired": self._groups.get(region, {}).get("desired"), "instances": instances}

    async def _flow(self) -> None:
        """From running databases to a ready lab."""
        self._following = asyncio.create_task(self._follow())
        await self._until("every instance is in service and the record is there", self._all_in_service)
        if self.options.traffic:
            await self.set_traffic(running=True)
            await self._until("orders are acknowledged", lambda: self.traffic()["records"] > 0)
        self.ready = True

    def _all_in_service(self) -> bool:
        counts = {region: len(self.fleet.targets(region)) for region in NODES}
        return (
            bool(self._groups) and bool(self._zone) and all(counts[at] == self._groups[at]["desired"] for at in NODES)
        )

    async def _until(self, what: str, holds: Any) -> None:
        try:
            async with asyncio.timeout(_READY):
                while not holds():
                    if self._programs.named("cloud") is None:
                        raise LabError(f"the cloud ended; see {self.addresses.folder}/logs/cloud.log")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise LabError(f"not so after {_READY:g} s: {what}; see {self.addresses.folder}/logs") from None

    async def _follow(self) -> None:
        """Carry the cloud's wishes to the fleet and the zone, and the fleet's state to the cloud, for ever."""
        while True:
            with contextlib.suppress(OSError, LabError):  # a control plane that is away changes nothing that runs
                answer = await call(self.addresses.cloud, "GET", "/lab/world", seconds=_CLOUD_TIMEOUT)
                if answer.status == 200 and (world := answer.json()) is not None:
                    self._groups = world["groups"]
                    self._zone = _zone(world["records"])
                    self.fleet.follow(world["groups"])
                if reports := self.fleet.reports():
                    await self._tell("/lab/instances", reports)
                    self.fleet.reported(reports)
            await asyncio.sleep(_PERIOD)

    async def _tell(self, path: str, content: object) -> None:
        answer = await call(self.addresses.cloud, "POST", path, content, seconds=_CLOUD_TIMEOUT)
        if answer.status != 200:
            raise LabError(f"the cloud answered {answer.status} to {path}; see {self.addresses.folder}/logs/cloud.log")

    async def _unfollow(self) -> None:
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
            self._following = None


def _zone(records: list[dict[str, Any]]) -> Zone:
    zone: dict[tuple[str, str], Record | Weighted] = {}
    weighted: dict[tuple[str, str], list[tuple[Record, int]]] = {}
    for one in records:
        record = Record(one["Name"], one["Type"], one["TTL"] or 0, tuple(one["ResourceRecords"]))
        if one["Weight"] is None:
            zone[record.name, record.type] = record
        else:
            weighted.setdefault((record.name, record.type), []).append((record, one["Weight"]))
    for key, sets in weighted.items():
        zone[key] = Weighted(tuple(record for record, _ in sets), tuple(weight for _, weight in sets))
    return zone
