"""An approval is for now: what people said for another hour lets nothing act, in this process or the next."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flows.events import Acting, Answer, Event, GateClosed, GateOpened, Status, Verdict
from flows.journal import SaidAboutGate
from runbooks.loader import load
from runbooks.model import Approval, Mode
from runbooks.plan import Plan
from runbooks.planner import plan as make_real_plan
from runbooks.shipped import shipped
from tests.flows.rehearsal import rehearse
from tests.flows.shifting import Customers, customers, shift_plan
from tests.flows.world import START, Crash, FenceOff, MakeWriter, Set, Simulation, World, make_plan, step

DAYS = timedelta(days=2)
HOUR = timedelta(hours=1)
LIMIT = DAYS + 2 * HOUR


def yes(gate: str = "go", by: str = "kim") -> SaidAboutGate:
    return SaidAboutGate(gate=gate, answer=Answer.approve, by=by)


def gated(**rule: object) -> Plan:
    return make_plan(
        step("fence", FenceOff, gates=("go",)),
        step("promote", MakeWriter, after=("fence",), gates=("go",), fenced_by=("fence",)),
        gates={"go": Approval(timeout=timedelta(minutes=5), **rule)},  # type: ignore[arg-type]
    )


def crashed_at(plan: Plan, world: World, what: str) -> list[Event]:
    sim = Simulation(plan, world, letters=[(START, yes())], crash=lambda point, _count: point == what)
    with pytest.raises(Crash):
        sim.run()
    world.now += DAYS
    return sim.journal


def test_a_run_resumed_days_later_asks_again_and_silence_is_a_no() -> None:
    world = World()
    journal = crashed_at(gated(), world, "after gate-closed")
    again = Simulation(gated(), world, journal=journal)
    state = again.run()
    assert (state.verdict, world.effects) == (Verdict.refused, [])
    asked = [event for event in again.journal if isinstance(event, GateOpened)]
    assert asked[0].again == ""
    assert "by kim" in asked[1].again
    assert asked[1].again in asked[1].evidence[0]


def test_an_answer_to_the_new_question_lets_it_act_once() -> None:
    world = World()
    journal = crashed_at(gated(), world, "after gate-closed")
    letters = [(START, yes()), (world.now + timedelta(minutes=1), yes())]
    assert Simulation(gated(), world, journal=journal, letters=letters).run().verdict is Verdict.recovered
    assert world.effects == ["fence", "promote"]


def test_a_resume_within_the_time_asks_nobody() -> None:
    world = World()
    journal = crashed_at(gated(valid_for=DAYS + HOUR), world, "after gate-closed")
    assert Simulation(gated(valid_for=DAYS + HOUR), world, journal=journal).run().verdict is Verdict.recovered
    assert [event.kind for event in journal].count("gate-opened") == 1


def test_a_promotion_found_acting_days_later_is_not_sent_again_without_a_new_word() -> None:
    world = World()
    journal = crashed_at(gated(), world, "before act promote")
    state = Simulation(gated(), world, journal=journal).run()
    assert world.effects == ["fence"]
    assert state.step("promote").status is Status.refused


def test_a_promotion_that_happened_is_taken_days_later_without_a_question() -> None:
    world = World()
    journal = crashed_at(gated(), world, "after act promote")
    assert Simulation(gated(), world, journal=journal).run().verdict is Verdict.recovered
    assert world.effects == ["fence", "promote"]
    assert [event.kind for event in journal].count("gate-opened") == 1


def test_a_later_step_that_one_approval_covers_asks_again_when_the_way_to_it_took_too_long() -> None:
    plan = make_plan(
        step("first", Set, gates=("go",)),
        step("long", Set, after=("first",), with_={"takes": 3000.0}, timeout=HOUR),
        step("last", Set, after=("long",), gates=("go",)),
        gates={"go": Approval(timeout=timedelta(minutes=5), valid_for=timedelta(minutes=30))}, rto=3 * HOUR,
    )  # fmt: skip
    silent = World()
    state = Simulation(plan, silent, letters=[(START, yes())]).run()
    assert (state.step("last").status, silent.effects) == (Status.refused, ["first", "long"])
    answered = World()
    letters = [(START, yes()), (START + timedelta(minutes=52), yes())]
    assert Simulation(plan, answered, letters=letters).run().verdict is Verdict.recovered


def test_drills_that_pass_by_themselves_are_not_asked_however_long_they_take() -> None:
    plan = make_plan(
        step("long", Set, with_={"takes": 3000.0}, timeout=HOUR, gates=("go",)),
        step("last", Set, after=("long",), gates=("go",)), mode=Mode.drill, rto=3 * HOUR,
        gates={"go": Approval(valid_for=timedelta(minutes=5), preapprove=("drill",))},
    )  # fmt: skip
    assert Simulation(plan, World()).run().verdict is Verdict.recovered


def shifting(crash: str | None = None) -> tuple[Simulation, Plan]:
    plan = make_plan(
        *shift_plan(gates=("go",)).steps, gates={"go": Approval(valid_for=timedelta(seconds=15))}, rto=timedelta(hours=1)
    )
    world = World(facts={"customers": Customers()})
    end = crash or "never"
    return Simulation(plan, world, letters=[(START, yes())], crash=lambda what, count: what == end and count > 12), plan


def test_a_change_in_phases_goes_on_as_long_as_it_acts_within_the_time() -> None:
    sim, _ = shifting()
    assert sim.run().verdict is Verdict.recovered
    assert [event.kind for event in sim.journal].count("gate-opened") == 1


def test_a_change_in_phases_asks_again_after_a_pause() -> None:
    sim, plan = shifting("after acted")
    with pytest.raises(Crash):
        sim.run()
    sim.world.now += DAYS
    share = customers(sim.world).share
    state = Simulation(plan, sim.world, journal=sim.journal).run(LIMIT)
    assert state.step("shift").status is Status.refused
    assert customers(sim.world).share == share


def test_a_phase_that_fails_is_taken_back_at_once_and_only_going_on_asks() -> None:
    sim, plan = shifting("after acted")
    with pytest.raises(Crash):
        sim.run()
    sim.world.now += DAYS
    them, resumed = customers(sim.world), sim.world.now
    before = them.share
    assert before is not None
    them.fails_at = {before: None}
    state = Simulation(plan, sim.world, journal=sim.journal).run(LIMIT)
    assert them.moves[-1][1:] == (before, 5 if before == 25 else 0)
    assert them.moves[-1][0] - resumed < timedelta(seconds=5)
    assert state.step("shift").status is Status.refused
    assert [event.kind for event in sim.journal].count("gate-opened") == 2


def covered_acts_are_fresh(plan: Plan, journal: list[Event]) -> None:
    """Every act behind a gate: approved, at most `valid_for` ago, or right after an act of the same step."""
    for number, event in enumerate(journal):
        for gate in plan.by_id[event.step].gates if isinstance(event, Acting) else ():
            before = journal[:number]
            words = [one.at for one in before if isinstance(one, GateClosed) and one.gate == gate and one.approved]
            words += [one.at for one in before if isinstance(one, Acting) and one.step == event.step and one.at >= words[-1]]
            assert event.at - max(words) <= plan.gate_by_name[gate].rule.valid_for


def test_a_crash_at_every_point_and_a_resume_days_later_acts_on_no_old_word() -> None:
    made = make_real_plan(load(shipped()["region-failover"]), mode=Mode.live, inputs={})
    plan = rehearse(made, takes={one.id: 3.0 for number, one in enumerate(made.steps) if number % 2})
    asked = [*plan.gate_by_name, *(one.id for one in plan.steps if one.manual)]
    letters = [(START, yes(name)) for name in asked]

    def there() -> World:
        return World(facts={one.id: 1 for one in plan.steps if one.kind == "probe"})

    reference = Simulation(plan, there(), letters=letters)
    reference.run()
    again = 0
    for point in range(1, reference.points + 1):
        world = there()
        first = Simulation(plan, world, letters=letters, crash=lambda _what, count, at=point: count == at)
        with pytest.raises(Crash):
            first.run()
        world.now += DAYS
        answers = [(world.now + timedelta(minutes=1), yes(name)) for name in asked]
        resumed = Simulation(plan, world, journal=first.journal, letters=[*letters, *answers])
        assert resumed.run().verdict is Verdict.recovered, point
        assert sorted(world.effects) == sorted(reference.world.effects), point
        covered_acts_are_fresh(plan, resumed.journal)
        again += any(isinstance(event, GateOpened) and event.again for event in resumed.journal)
    assert again > 5
