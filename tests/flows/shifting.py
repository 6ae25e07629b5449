"""`aws.route53.shift_weights` itself, with Route 53 and the new side taken from the simulated world."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

from runbooks.plan import Plan
from tasks.aws.route53_weights import ShiftWeights
from tasks.aws.weighted_sets import RecordSet, Shift, is_simple
from tasks.clients import Clients
from tasks.errors import ActionFailed
from tasks.soaking import Sample
from tests.flows.world import WORLD, World, make_plan, step

SOAK = timedelta(seconds=8)
INPUTS: dict[str, Any] = {
    "zone": "shop.example", "record": "checkout.shop.example", "soak": "8s", "minimum": 10, "latest": 20,
    "old": {"id": "west", "values": ["192.0.2.2"]}, "new": {"id": "east", "values": ["192.0.2.1"]},
    "base": "http://checkout.shop.example", "requests": [{"name": "health", "url": "/health"}],
}  # fmt: skip
GOOD, BAD = Sample(ms=10.0, good=True, error=False), Sample(ms=None, good=False, error=True)


@dataclass
class Customers:
    """Where the world sends customers, each move with its time, and at which shares the new side fails until when."""

    share: int | None = 0
    moves: list[tuple[datetime, int, int]] = field(default_factory=list)
    fails_at: dict[int, datetime | None] = field(default_factory=dict)
    """By share: until when it fails there; None: always."""

    def fails(self, now: datetime) -> bool:
        if self.share not in self.fails_at:
            return False
        until = self.fails_at[self.share]
        return until is None or now < until


class SimulatedShift(ShiftWeights):
    """The real decisions; only the calls are the world's."""

    name: ClassVar[str] = "sim.shift"

    def observe(self, clients: Clients) -> Shift:
        world, them = WORLD[0], customers(WORLD[0])
        world.tick()
        sample = BAD if them.fails(world.now) else GOOD
        return Shift(zone_id="Z1", record=self.full_name, type="A", sets=sets(self, them.share), sent=(sample,) * self.rounds)

    def act(self, before: Shift, clients: Clients) -> None:
        world, them = WORLD[0], customers(WORLD[0])
        going = self.next_step(before)
        assert going is not None
        failures = world.fail_acts.get("shift", [])
        lost = failures.pop(0) if failures else None
        if before.sets != sets(self, them.share):
            raise ActionFailed("not what was seen", retry=True)
        world.tick()
        them.moves.append((world.now, them.share or 0, going.share))
        them.share = going.share
        if lost:
            raise lost

    def undo(self, before: Shift, clients: Clients) -> None:
        customers(WORLD[0]).share = None if is_simple(before) else self.share_of(before)


def sets(shift: ShiftWeights, share: int | None) -> tuple[RecordSet, ...]:
    """The pair at a share; None: a simple record of the old side."""
    ttl = timedelta(seconds=2)
    if share is None:
        return (RecordSet(id=None, weight=None, values=shift.old.values, ttl=ttl),)
    return tuple(
        RecordSet(id=side.id, weight=weight, values=side.values, ttl=ttl)
        for side, weight in ((shift.old, 100 - share), (shift.new, share))
    )


def customers(world: World) -> Customers:
    """The customers of a world."""
    found: Customers = world.facts["customers"]
    return found


def shift_plan(**more: Any) -> Plan:
    """One shift, and nothing else."""
    fields = {"arguments": INPUTS, "timeout": timedelta(minutes=20), "budget": timedelta(minutes=5)}
    return make_plan(step("shift", SimulatedShift, **{**fields, **more}), rto=timedelta(hours=1))
