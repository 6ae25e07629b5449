"""The Auto Scaling of the lab: each group's instances in the cloud become running processes, healthy or not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .addresses import NODES, Addresses, Endpoint, NodeName
from .processes import Child
from .programs import Programs
from .web import call

_PERIOD = 0.1  # seconds between two looks at an instance
_HEALTH_TIMEOUT = 1.5  # the service itself answers within 1 s
_REBOOT = 1.0  # seconds from one boot of an instance to the next, where its process ends at once
_UNHEALTHY_AFTER = 3  # failed looks in a row


@dataclass
class Instance:
    """One instance of the service: a place to listen, a process, and what the last looks at it said."""

    id: str
    region: NodeName
    slot: int
    endpoint: Endpoint
    process: Child | None = None
    in_service: bool = False
    healthy: bool = False
    failures: int = 0
    booted: float = float("-inf")
    watch: asyncio.Task[None] | None = None

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.running


@dataclass
class Fleet:
    """All instances. `follow` is fed the cloud's groups; `reports` are what the cloud should be told."""

    addresses: Addresses
    programs: Programs
    instances: dict[str, Instance] = field(default_factory=dict)
    _reported: dict[str, tuple[str, str]] = field(default_factory=dict)

    def follow(self, groups: Mapping[NodeName, Mapping[str, Any]]) -> None:
        """Start what is wanted and not there, stop what is not wanted any more."""
        wanted = {instance: region for region in NODES for instance in groups[region]["instances"]}
        for gone in set(self.instances) - set(wanted):
            self._terminate(self.instances.pop(gone))
            self._reported.pop(gone, None)
        for name, region in wanted.items():
            instance = self.instances.get(name) or self._launch(name, region)
            if not instance.runs and time.monotonic() - instance.booted > _REBOOT:
                self._boot(instance)

    def targets(self, region: NodeName) -> Sequence[Endpoint]:
        """Where the region's load balancer sends: healthy instances in service, or all of these if none is healthy."""
        serving = [one for one in self.instances.values() if one.region == region and one.in_service]
        return [instance.endpoint for instance in serving if instance.healthy] or [one.endpoint for one in serving]

    def reports(self) -> list[tuple[NodeName, str, str, str]]:
        """List region, id, lifecycle state and health of the instances of which the cloud does not know it yet."""
        now = {one.id: ("InService" if one.in_service else "Pending", _health(one)) for one in self.instances.values()}
        changed = [name for name, state in now.items() if self._reported.get(name, ("Pending", "Healthy")) != state]
        return [(self.instances[name].region, name, *now[name]) for name in changed]

    def reported(self, reports: Sequence[tuple[NodeName, str, str, str]]) -> None:
        """Note that the cloud knows these."""
        self._reported.update({name: (lifecycle, health) for _, name, lifecycle, health in reports})

    async def stop(self) -> None:
        """End every instance, at once."""
        processes = [one.process for one in self.instances.values() if one.process]
        for instance in self.instances.values():
            self._terminate(instance)
        self.instances.clear()
        self._reported.clear()
        await asyncio.gather(*(process.exited.wait() for process in processes))

    def _launch(self, name: str, region: NodeName) -> Instance:
        taken = {instance.slot for instance in self.instances.values() if instance.region == region}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        instance = Instance(name, region, slot, self.addresses.instance(region, slot))
        self.instances[name] = instance
        return instance

    def _boot(self, instance: Instance) -> None:
        instance.in_service = instance.healthy = False
        instance.booted = time.monotonic()
        instance.process = self.programs.start(
            f"checkout-{instance.region}-{instance.slot}",
            "checkout",
            "--region",
            instance.region,
            "--instance",
            instance.id,
            "--slot",
            str(instance.slot),
        )
        if instance.watch is None:
            instance.watch = asyncio.create_task(self._watch(instance))

    def _terminate(self, instance: Instance) -> None:
        if instance.watch is not None:
            instance.watch.cancel()
        if instance.process is not None and instance.process.running:
            instance.process.popen.kill()

    async def _watch(self, instance: Instance) -> None:
        while True:
            try:
                healthy = (await call(instance.endpoint, "GET", "/health", seconds=_HEALTH_TIMEOUT)).status == 200
            except OSError:
                healthy = False
            instance.failures = 0 if healthy else instance.failures + 1
            instance.in_service = instance.in_service or healthy
            instance.healthy = healthy or (instance.healthy and instance.failures < _UNHEALTHY_AFTER)
            await asyncio.sleep(_PERIOD)


def _health(instance: Instance) -> str:
    return "Healthy" if instance.healthy or not instance.in_service else "Unhealthy"
