"""A simulated world for the engine's core: actions that read and write a dict, and a clock that jumps."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from flows.core import Core, next_due, react
from flows.events import Checked, Event, ExecutionStarted
from flows.fencing import fences_before, last_seen
from flows.journal import InboxEntry, Received
from flows.messages import (
    ActReturned,
    Command,
    DoAct,
    DoLook,
    DoPreflight,
    DoUndo,
    Failure,
    Letter,
    Look,
    Looked,
    Message,
    Revoke,
    Saw,
    Stop,
    Tick,
    UndoReturned,
    Write,
)
from flows.state import ExecutionState, fold
from flows.step import Work, act, look, undo
from runbooks.model import Approval, Mode, Objectives, Retry, Runbook
from runbooks.plan import CriticalPath, GateRule, Plan, PlannedStep
from runbooks.problems import Place
from tasks.clients import Clients
from tasks.contract import Change, Loss, Probe, Steady
from tasks.errors import ActionFailed

START = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)


@dataclass
class World:
    """What is so, when it changes by itself, and every call that had an effect."""

    now: datetime = START
    real: bool = False
    """Whether its time is the machine's."""
    facts: dict[str, Any] = field(default_factory=dict)
    later: list[tuple[datetime, str, Any]] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)
    fail_acts: dict[str, list[ActionFailed]] = field(default_factory=dict)
    fail_looks: dict[str, list[Exception]] = field(default_factory=dict)

    def tick(self) -> None:
        """Let real time go on."""
        if self.real:
            self.now = datetime.now(UTC)

    def get(self, name: str) -> Any:
        """What is so now."""
        self.tick()
        for due in sorted(change for change in self.later if change[0] <= self.now):
            self.facts[due[1]] = due[2]
            self.later.remove(due)
        return self.facts.get(name)


WORLD: list[World] = [World()]
"""The world of the running test; actions have no other way to it."""


class Fact(BaseModel):
    """One fact of the world."""

    value: int | None = None


class Watch(Probe[Fact]):
    """Wait until a fact is at least so much."""

    name: ClassVar[str] = "sim.watch"
    interval: ClassVar[timedelta] = timedelta(milliseconds=500)
    fact: str
    least: int = 1
    times: int = 1
    ends_run: bool = False

    def observe(self, clients: Clients) -> Fact:
        failures = WORLD[0].fail_looks.get(self.fact, [])
        if failures:
            raise failures.pop(0)
        return Fact(value=WORLD[0].get(self.fact))

    def done(self, state: Fact) -> bool:
        return (state.value or 0) >= self.least

    def loss(self, state: Fact) -> Loss | None:
        known: Loss | None = WORLD[0].get(f"{self.fact} tells")
        return known

    @property
    def steady(self) -> Steady:
        return Steady(self.times)

    def ends(self, state: Fact) -> str | None:
        return "nothing to do" if self.ends_run else None


class Set(Change[Fact]):
    """Set a fact, at once or after a while."""

    name: ClassVar[str] = "sim.set"
    interval: ClassVar[timedelta] = timedelta(milliseconds=500)
    reversible: ClassVar[bool] = True
    fact: str
    to: int = 1
    takes: float = 0.0

    @property
    def target(self) -> str:
        return f"sim:{self.fact}"

    def observe(self, clients: Clients) -> Fact:
        failures = WORLD[0].fail_looks.get(self.fact, [])
        if failures:
            raise failures.pop(0)
        return Fact(value=WORLD[0].get(self.fact))

    def loss(self, state: Fact) -> Loss | None:
        known: Loss | None = WORLD[0].get(f"{self.fact} loses")
        return known or (Loss(at_most=0.0, grows=False) if type(self).loses else None)

    def done(self, state: Fact) -> bool:
        return state.value == self.to

    def underway(self, state: Fact) -> bool:
        return state.value == -1

    def describe(self, before: Fact) -> str:
        return f"set {self.fact}: {before.value} -> {self.to}"

    def act(self, before: Fact, clients: Clients) -> None:
        clients.check()
        world = WORLD[0]
        failures = world.fail_acts.get(self.fact, [])
        if failures:
            raise failures.pop(0)
        world.tick()
        world.effects.append(self.fact)
        if self.takes:
            world.facts[self.fact] = -1
            world.later.append((world.now + timedelta(seconds=self.takes), self.fact, self.to))
        else:
            world.facts[self.fact] = self.to

    def undo(self, before: Fact, clients: Clients) -> None:
        WORLD[0].effects.append(f"undo {self.fact}")
        WORLD[0].facts[self.fact] = before.value


class FenceOff(Set):
    """A fence."""

    name: ClassVar[str] = "sim.fence"
    fences: ClassVar[bool] = True
    reversible: ClassVar[bool] = False


class MakeWriter(Set):
    """A promotion: irreversible, sent again while nothing happens."""

    name: ClassVar[str] = "sim.promote"
    makes_writer: ClassVar[bool] = True
    loses: ClassVar[bool] = True
    reversible: ClassVar[bool] = False
    point_of_no_return: ClassVar[bool] = True
    resend: ClassVar[timedelta | None] = timedelta(milliseconds=50)


def step(name: str, kind: type[Any] | None = Set, /, **more: Any) -> PlannedStep:
    """A planned step with short defaults; its fact is its own name."""
    arguments = {"fact": name, **more.pop("with_", {})} if kind is not None else {}
    planned = PlannedStep(
        id=name, title=name, place=Place("test"), kind="manual" if kind is None else "change",
        uses=kind.name if kind is not None else None, action_type=kind, arguments=arguments,
        manual=more.pop("manual", None if kind is not None else f"do {name}"), after=(), when=(), gates=(),
        budget=timedelta(seconds=10), timeout=timedelta(seconds=20), retry=Retry(), on_failure="halt", handles=(),
        drill="run", fenced_by=(),
    )  # fmt: skip
    return replace(planned, **more)


def make_plan(*steps: PlannedStep, mode: Mode = Mode.live, gates: Mapping[str, Approval] | None = None, goal: str = "",
              rto: timedelta = timedelta(minutes=5), rpo: timedelta | None = None) -> Plan:  # fmt: skip
    """A plan without a file. Gates are rules by name; what a gate covers is told by the steps."""
    goal = goal or steps[-1].id
    runbook = Runbook.model_validate(
        {"schema": "failover/v1", "name": "test", "title": "Test", "service": "shop", "owner": "me",
         "objectives": Objectives(), "steps": [{"id": one.id, "manual": "x"} for one in steps], "recovered_when": [goal]}
    )  # fmt: skip
    rules = []
    for name, rule in (gates or {}).items():
        covers = tuple(one.id for one in steps if name in one.gates)
        rules.append(GateRule(name, covers[0], covers, rule))
    return Plan(
        runbook=runbook, text="", file="test", mode=mode, inputs={}, rto=rto, rpo=rpo, steps=steps,
        gates=tuple(rules), critical_path=CriticalPath((), timedelta(0)), hash="",
    )  # fmt: skip


class Crash(Exception):
    """The simulated process died."""


@dataclass
class Simulation:
    """Runs the core against the world: no threads, no waiting, every call takes `latency`."""

    plan: Plan
    world: World
    latency: timedelta = timedelta(milliseconds=10)
    journal: list[Event] = field(default_factory=list)
    letters: list[tuple[datetime, InboxEntry]] = field(default_factory=list)
    stops: list[datetime] = field(default_factory=list)
    crash: Callable[[str, int], bool] = lambda _what, _count: False
    hangs: frozenset[str] = frozenset()
    """Calls that never come back, as 'undo a'."""
    lost_calls: int = 0
    points: int = 0
    checks: tuple[Checked, ...] | None = None
    """What a preflight finds, 100 ms after it was asked for; None: there is none."""

    def run(self, limit: timedelta = timedelta(hours=2)) -> ExecutionState:
        """Run to the end; raises Crash where told, AssertionError when it does not end."""
        WORLD[0] = self.world
        if not self.journal:
            self.journal.append(started(self.plan, self.world.now))
        core = Core(self.plan, fold(self.journal), checks=self.checks is not None)
        queue: list[tuple[datetime, int, Message]] = []
        order = itertools.count()
        for number, (at, said) in enumerate(self.letters, start=1):
            if number > core.state.adopted:
                heapq.heappush(queue, (max(at, self.world.now), next(order), Letter(at, Received(number, at, said))))
        for at in self.stops:
            heapq.heappush(queue, (at, next(order), Stop(at, "test", "stop")))
        heapq.heappush(queue, (self.world.now, next(order), Tick(self.world.now)))
        end = self.world.now + limit
        while not core.ended:
            due = next_due(core)
            if queue and (due is None or queue[0][0] <= due):
                at, _, message = heapq.heappop(queue)
            elif due is not None:
                at, message = due, Tick(due)
            else:
                raise AssertionError("nothing is due and nothing is under way, yet it has not ended")
            self.world.now = max(self.world.now, at)
            assert self.world.now < end, "does not end"
            core, commands = react(core, replace(message, at=self.world.now))
            for command in commands:
                answer = self._carry_out(core, command)
                if answer is not None:
                    heapq.heappush(queue, (answer.at, next(order), answer))
        return core.state

    def _point(self, what: str) -> None:
        self.points += 1
        if self.crash(what, self.points):
            raise Crash(what)

    def _carry_out(self, core: Core, command: Command) -> Message | None:
        later = self.world.now + self.latency
        match command:
            case Write():
                self._point(f"before {command.event.kind}")
                self.journal.append(command.event)
                self._point(f"after {command.event.kind}")
            case DoLook():
                told = look(self._work(core, command.step), command.earlier, acted=command.acted, now=lambda: self.world.now)
                return Saw(later, command.step, command.attempt, told)
            case DoAct():
                self._point(f"before act {command.step}")
                failure = act(self._work(core, command.step), command.before)
                self._point(f"after act {command.step}")
                return ActReturned(later, command.step, command.attempt, failure)
            case DoUndo():
                self._point(f"before undo {command.step}")
                if f"undo {command.step}" in self.hangs:
                    return None
                failure = undo(self._work(core, command.step), command.before)
                self._point(f"after undo {command.step}")
                return UndoReturned(later, command.step, failure)
            case DoPreflight():
                self._point("in the preflight")
                return Looked(self.world.now + timedelta(milliseconds=100), self.checks or (), 0.1)
            case Revoke():
                pass
        return None

    def _work(self, core: Core, name: str) -> Work:
        planned = core.plan.by_id[name]
        standing = fences_before(planned, core.state)
        fences = {fence: core.plan.by_id[fence].action(lambda ref: ref) for fence in standing.held}
        seen = last_seen(standing.held, core.plan, core.state)
        return Work(planned.action(lambda ref: ref), Clients(), fences, standing.missing, standing.overridden, fences_seen=seen)


def started(plan: Plan, at: datetime) -> ExecutionStarted:
    """The first event of a simulated execution."""
    return ExecutionStarted(
        at=at, version="0", runbook="test", title="Test", service="shop", file="test", text="", plan_hash="",
        mode=plan.mode, inputs={}, rto=plan.rto.total_seconds(), initiator="ines", channel="test", host="h", pid=1,
        rpo=plan.rpo.total_seconds() if plan.rpo is not None else None,
    )  # fmt: skip


def failure(reason: str = "no", *, retry: bool = False) -> ActionFailed:
    """What the world says when it says no."""
    return ActionFailed(reason, retry=retry)


__all__ = [
    "START", "WORLD", "Crash", "Fact", "Failure", "FenceOff", "Field", "Look", "MakeWriter", "Set", "Simulation", "Watch", "World",
    "failure", "make_plan", "started", "step",
]  # fmt: skip
