"""Once: every shipped runbook, crashed before and after every journal event and in the middle of every call, then resumed.

Exhaustive and seeded; each run is a simulation, so thousands take seconds. What must be the same in the end: the world,
and that every effect happened once.
"""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from flows.events import Answer, Verdict
from flows.journal import SaidAboutGate
from runbooks.loader import load
from runbooks.model import Mode
from runbooks.plan import Plan, is_change
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
