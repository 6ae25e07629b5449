"""Any plan in the simulated world: each step keeps its order, gates and kind, and acts on a fact of its own name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any, ClassVar

from runbooks.plan import Plan, PlannedStep, change_type
from tasks.clients import Clients
from tasks.contract import ActionType
from tests.flows.world import WORLD, Fact, Set, Watch


class Back(Set):
    """A change whose undo looks first, as every shipped one's does: the engine may call it again after a crash."""

    name: ClassVar[str] = "sim.back"

    def undo(self, before: Fact, clients: Clients) -> None:
        if WORLD[0].get(self.fact) != before.value:
            super().undo(before, clients)


@cache
def simulated(kind: ActionType) -> ActionType:
    """A simulated action with the same promises as a real one: fence, writer, reversible, resend."""
    change = kind if change_type_of(kind) else None
    if change is None:
        return Watch
    same = ("fences", "makes_writer", "fences_itself", "reversible", "point_of_no_return", "loses", "resend", "interval")
    fields: dict[str, Any] = {name: getattr(kind, name) for name in same}
    fields |= {"name": f"sim.{kind.name}", "__module__": __name__, "__doc__": "Simulated."}
    return type(f"Simulated{kind.__name__}", (Back,), fields)


def change_type_of(kind: ActionType) -> bool:
    from tasks.contract import Change

    return issubclass(kind, Change)


def rehearse(plan: Plan, takes: Mapping[str, float] | None = None) -> Plan:
    """The plan with simulated actions. takes: seconds that a change is under way."""

    def mimic(step: PlannedStep) -> PlannedStep:
        if step.action_type is None:
            return replace(step, when=())
        arguments: dict[str, Any] = {"fact": step.id}
        if change_type(step) is not None:
            arguments["takes"] = (takes or {}).get(step.id, 0.0)
        return replace(step, action_type=simulated(step.action_type), arguments=arguments, when=(),
                       timeout=max(step.timeout, timedelta(seconds=30)))  # fmt: skip

    return replace(plan, steps=tuple(mimic(step) for step in plan.steps))
