"""Once: every shipped runbook, crashed before and after every journal event and in the middle of every call, then resumed.

Exhaustive and seeded; each run is a simulation, so thousands take seconds. What must be the same in the end: the world,
and that every effect happened once.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flows.events import Answer, Choice, DecisionOpened, Verdict
from flows.journal import SaidAboutFailure, SaidAboutGate
from runbooks.loader import load
from runbooks.model import Mode
from runbooks.plan import Plan, change_type, is_change
from runbooks.planner import plan as make_plan
from runbooks.shipped import shipped
from tasks.errors import ActionFailed
from tests.flows.rehearsal import rehearse
from tests.flows.world import START, Crash, Simulation, World

PAUSE = timedelta(seconds=20)


@pytest.fixture(params=sorted(shipped()))
def plan(request: pytest.FixtureRequest) -> Plan:
    made = make_plan(load(shipped()[request.param]), mode=Mode.live, inputs={})
    return rehearse(made, takes={step.id: 3.0 for number, step in enumerate(made.steps) if number % 2})


def probes_up(plan: Plan) -> dict[str, int]:
    return {step.id: 1 for step in plan.steps if not is_change(step)}


def yes_to_all(plan: Plan):
    asked = [*plan.gate_by_name, *(step.id for step in plan.steps if step.manual)]
    return [(START, SaidAboutGate(gate=name, answer=Answer.approve, by="kim")) for name in asked]


def run(plan: Plan, world: World, journal=None, **more) -> Simulation:
    return Simulation(plan, world, letters=yes_to_all(plan), journal=journal if journal is not None else [], **more)


def changes(plan: Plan) -> list[str]:
    return sorted(step.id for step in plan.steps if is_change(step))


def test_a_crash_at_every_point_repeats_nothing(plan: Plan) -> None:
    reference = run(plan, World(facts=probes_up(plan)))
    assert reference.run().verdict is Verdict.recovered
    assert sorted(reference.world.effects) == changes(plan)
    for point in range(1, reference.points + 1):
        world = World(facts=probes_up(plan))
        first = run(plan, world, crash=lambda _what, count, at=point: count == at)
        with pytest.raises(Crash):
            first.run()
        world.now += PAUSE
        again = run(plan, world, first.journal)
        assert again.run().verdict is Verdict.recovered, point
        assert sorted(world.effects) == changes(plan), point
        assert world.facts == reference.world.facts, point


def test_two_crashes_at_any_two_points_repeat_nothing(plan: Plan) -> None:
    rng = random.Random(20260102)  # noqa: S311 - a seed, not a secret
    reference = run(plan, World(facts=probes_up(plan)))
    reference.run()
    for _ in range(300):
        world = World(facts=probes_up(plan))
        journal: list = []
        for _ in range(2):
            at = rng.randint(1, reference.points)
            sim = run(plan, world, journal, crash=lambda _what, count, at=at: count == at)
            try:
                sim.run()
            except Crash:
                world.now += timedelta(seconds=rng.choice([1, 5, 30]))
        state = run(plan, world, journal).run() if not finished(journal) else None
        assert state is None or state.verdict is Verdict.recovered
        assert sorted(world.effects) == changes(plan)


def finished(journal: list) -> bool:
    return bool(journal) and journal[-1].kind == "execution-finished"


@pytest.mark.parametrize("late", [False, True])
def test_an_answer_that_is_lost_or_late_after_any_effect_repeats_nothing(plan: Plan, late: bool) -> None:
    for name in changes(plan):
        world = World(facts=probes_up(plan))
        world.fail_acts[name] = LostAnswer(world, name, late=late)
        state = run(plan, world).run()
        assert state.verdict is Verdict.recovered, name
        assert sorted(world.effects) == changes(plan), name


class LostAnswer(list):
    """The effect happens (at once, or a second later), and the caller hears of a broken connection."""

    def __init__(self, world: World, name: str, *, late: bool) -> None:
        super().__init__([ActionFailed("connection lost", retry=True)])
        self.world, self.fact, self.late = world, name, late

    def pop(self, index: int = 0) -> ActionFailed:
        self.world.effects.append(self.fact)
        if self.late:
            self.world.facts[self.fact] = -1  # the world shows that it has begun
            self.world.later.append((self.world.now + timedelta(seconds=1), self.fact, 1))
        else:
            self.world.facts[self.fact] = 1
        return super().pop(index)


def test_a_crash_while_people_are_asked_asks_again_and_passes_no_gate(plan: Plan) -> None:
    if not plan.gates:
        return
    world = World(facts=probes_up(plan))
    sim = Simulation(plan, world, crash=lambda what, _count: what == "after gate-opened")
    with pytest.raises(Crash):
        sim.run()
    world.now += PAUSE
    again = Simulation(plan, world, journal=sim.journal)
    silence = sum((gate.rule.timeout for gate in plan.gates), timedelta(hours=2))
    assert again.run(silence).verdict is Verdict.refused
    covered = {name for gate in plan.gates for name in gate.covers}
    assert not covered & set(world.effects)


@pytest.mark.parametrize("decided", [False, True], ids=["as the runbook says", "as a person decides"])
def test_a_crash_at_every_point_of_a_rollback_brings_everything_back_once(plan: Plan, decided: bool) -> None:
    brought_back: set[str] = set()
    for failing in (step for step in plan.steps if not step.manual):
        way = Way(plan, failing.id, decided=decided)
        reference = way.sim(way.world())
        state = reference.run()
        assert state.rollback is not None, failing.id
        undone = [f"undo {name}" for name in state.rollback.steps if name != failing.id]
        assert [one for one in reference.world.effects if one.startswith("undo ")] == undone, failing.id
        brought_back |= {name for name in state.rollback.steps if name != failing.id}
        for point in range(way.begins, reference.points + 1) if undone else ():
            world = way.world()
            first = way.sim(world, crash=lambda _what, count, at=point: count == at)
            with pytest.raises(Crash):
                first.run()
            world.now += PAUSE
            assert way.sim(world, journal=first.journal).run().verdict is Verdict.rolled_back, (failing.id, point)
            assert world.effects == reference.world.effects, (failing.id, point)
            assert world.facts == reference.world.facts, (failing.id, point)
    assert brought_back == {step.id for step in plan.steps if (kind := change_type(step)) and kind.reversible}


class Way:
    """A plan in which one step fails for good, and going back is what follows."""

    def __init__(self, plan: Plan, failing: str, *, decided: bool) -> None:
        then = "ask" if decided else "roll-back"
        fails = replace(plan.by_id[failing], on_failure=then, timeout=timedelta(seconds=30))
        self.plan = replace(plan, steps=tuple(fails if step.id == failing else step for step in plan.steps))
        self.failing = failing
        self.letters = yes_to_all(plan)
        self.begins = 0
        """The point at which going back begins."""
        points: dict[str, int] = {}
        asked = self.sim(self.world(), crash=lambda what, count: points.setdefault(what, count) < 0)
        asked.run()
        if decided:
            opened = next(event for event in asked.journal if isinstance(event, DecisionOpened))
            go_back = SaidAboutFailure(step=failing, choice=Choice.roll_back, by="kim")
            self.letters.append((opened.at + timedelta(seconds=30), go_back))
            self.sim(self.world(), crash=lambda what, count: points.setdefault(what, count) < 0).run()
        self.begins = points["before rollback-started"]

    def world(self) -> World:
        """Where everything works but the one step."""
        world = World(facts={name: 1 for name in probes_up(self.plan) if name != self.failing})
        world.fail_acts[self.failing] = [ActionFailed("it never will") for _ in range(9)]
        return world

    def sim(self, world: World, **more: Any) -> Simulation:
        return Simulation(self.plan, world, letters=self.letters, **more)
