"""Several acts in one step: each announced, none skipped, none twice, wherever the engine dies.

Exhaustive like test_every_crash; the action is the real one, only Route 53 and the new side are the simulated world's.
"""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from flows.events import Acting, Answer, Choice, Status, Verdict
from flows.journal import SaidAboutFailure, SaidAboutGate, SaidStop
from flows.state import fold
from runbooks.model import Approval, Mode
from runbooks.plan import Plan
from tasks.errors import ActionFailed
from tests.flows.shifting import INPUTS, SOAK, Customers, customers, shift_plan
from tests.flows.world import START, Crash, Simulation, World, make_plan, step

PAUSE = timedelta(seconds=20)
LONG = timedelta(hours=3)
FORWARD = [(0, 5), (5, 25), (25, 50), (50, 100)]


def world(**fields: object) -> World:
    return World(facts={"customers": Customers(**fields)})  # type: ignore[arg-type]


def moves(of: World) -> list[tuple[int, int]]:
    return [(before, after) for _, before, after in customers(of).moves]


def check_soaks(of: World) -> None:
    """No phase is skipped or done twice, and nobody is moved on before the phase was held for the whole soak."""
    steps = (0, 5, 25, 50, 100)
    at, share = START, 0
    for when, before, after in customers(of).moves:
        assert before == share
        assert abs(steps.index(after) - steps.index(before)) == 1
        if after > before > 0:
            assert when - at >= SOAK
        at, share = when, after


def crashed(plan: Plan, of: World, at: int, pause: timedelta = PAUSE) -> Simulation:
    """Run until a point, die there, and go on after a while."""
    first = Simulation(plan, of, crash=lambda _what, count: count == at)
    with pytest.raises(Crash):
        first.run()
    of.now += pause
    return Simulation(plan, of, journal=first.journal)


def test_every_phase_is_announced_soaked_and_done_once() -> None:
    there = world()
    sim = Simulation(shift_plan(), there)
    state = sim.run()
    assert state.verdict is Verdict.recovered
    assert moves(there) == FORWARD
    check_soaks(there)
    announced = [event for event in sim.journal if isinstance(event, Acting)]
    assert [event.describe for event in announced][:2] == [
        "checkout.shop.example: east 0 -> 5 of 100, west 100 -> 95",
        "checkout.shop.example: east 5 -> 25 of 100, west 95 -> 75",
    ]
    assert [when for when, *_ in customers(there).moves] == [event.at for event in announced]


@pytest.mark.parametrize("pause", [timedelta(0), PAUSE, LONG])
def test_a_crash_at_every_point_skips_no_phase_and_does_none_twice(pause: timedelta) -> None:
    reference = Simulation(shift_plan(), world())
    reference.run()
    for point in range(1, reference.points + 1):
        there = world()
        again = crashed(shift_plan(), there, point, pause)
        resumed = there.now
        assert again.run(limit=LONG).verdict is Verdict.recovered, point
        assert moves(there) == FORWARD, point
        check_soaks(there)
        later = [when for when, before, _ in customers(there).moves if when >= resumed and before]
        assert pause < LONG or not later or later[0] - resumed >= SOAK, "nobody watched, so what held does not count"


def test_two_crashes_at_any_two_points_skip_no_phase_and_do_none_twice() -> None:
    rng = random.Random(20261121)  # noqa: S311 - a seed, not a secret
    reference = Simulation(shift_plan(), world())
    reference.run()
    for _ in range(150):
        there, journal = world(), []
        for _ in range(2):
            at = rng.randint(1, reference.points)
            sim = Simulation(shift_plan(), there, journal=journal, crash=lambda _what, count, at=at: count == at)
            try:
                sim.run()
            except Crash:
                there.now += timedelta(seconds=rng.choice([0, 1, 5, 30, 4000]))
        if fold(journal).verdict is None:
            Simulation(shift_plan(), there, journal=journal).run()
        assert fold(journal).verdict is Verdict.recovered
        assert moves(there) == FORWARD
        check_soaks(there)


@pytest.mark.parametrize("lost", range(4))
def test_an_answer_that_is_lost_after_any_phase_repeats_nothing(lost: int) -> None:
    there = world()
    there.fail_acts["shift"] = [None] * lost + [ActionFailed("connection lost", retry=True)]  # type: ignore[list-item]
    assert Simulation(shift_plan(), there).run().verdict is Verdict.recovered
    assert moves(there) == FORWARD
    check_soaks(there)


def test_a_trip_goes_back_one_phase_soaks_there_and_goes_on() -> None:
    there = world(fails_at={50: START + timedelta(seconds=25)})
    state = Simulation(shift_plan(), there).run()
    assert state.verdict is Verdict.recovered
    assert moves(there) == [*FORWARD[:3], (50, 25), (25, 50), (50, 100)]
    check_soaks(there)


def test_a_crash_at_every_point_of_a_shift_that_trips_keeps_its_promises() -> None:
    def fails() -> World:
        return world(fails_at={50: START + timedelta(seconds=25)})

    reference = Simulation(shift_plan(), fails())
    reference.run()
    for point in range(1, reference.points + 1):
        there = fails()
        state = crashed(shift_plan(), there, point, timedelta(seconds=1)).run()
        assert state.verdict is Verdict.recovered, point
        assert customers(there).share == 100
        check_soaks(there)


def test_after_the_declared_trips_it_fails_and_keeps_count_over_every_crash() -> None:
    expected = [(0, 5), (5, 25), (25, 5), (5, 25), (25, 5)]
    reference = Simulation(shift_plan(), world(fails_at={25: None}))
    state = reference.run()
    assert state.step("shift").status is Status.refused
    assert "tripped 2 times" in state.step("shift").detail
    assert moves(reference.world) == expected
    for point in range(1, reference.points + 1):
        there = world(fails_at={25: None})
        state = crashed(shift_plan(), there, point).run()
        assert (state.step("shift").status, moves(there)) == (Status.refused, expected), point


def test_when_the_new_side_dies_for_good_everyone_is_home_before_people_are_asked() -> None:
    dead = dict.fromkeys((5, 25, 50, 100))
    there = world(fails_at={50: None})
    sim = Simulation(shift_plan(), there, crash=lambda what, _count: customers(there).share == 50 and what == "after acted")
    with pytest.raises(Crash):
        sim.run()
    customers(there).fails_at = dead
    state = Simulation(shift_plan(), there, journal=sim.journal).run()
    assert state.step("shift").status is Status.refused
    assert customers(there).share == 0
    check_soaks(there)


def test_sent_home_by_a_trip_customers_stay_there_for_a_whole_soak() -> None:
    there = world(fails_at={5: START + timedelta(seconds=4)})
    assert Simulation(shift_plan(), there).run().verdict is Verdict.recovered
    assert moves(there) == [(0, 5), (5, 0), *FORWARD]
    _, back, again = [when for when, *_ in customers(there).moves][:3]
    assert again - back >= SOAK


def test_a_person_who_says_retry_gives_it_new_trips() -> None:
    there = world(fails_at={25: START + timedelta(minutes=2)})
    letters = [(START + timedelta(minutes=3), SaidAboutFailure(step="shift", choice=Choice.retry, by="kim"))]
    sim = Simulation(shift_plan(on_failure="ask"), there, letters=letters)
    assert sim.run().verdict is Verdict.recovered
    check_soaks(there)
    assert customers(there).share == 100


def test_nobody_is_moved_while_the_new_side_is_not_well() -> None:
    there = world(fails_at={0: START + timedelta(seconds=30)})
    assert Simulation(shift_plan(), there).run().verdict is Verdict.recovered
    assert customers(there).moves[0][0] >= START + timedelta(seconds=30)
    assert moves(there) == FORWARD


def test_weights_that_somebody_else_sets_in_the_middle_are_left_alone() -> None:
    there = world()
    sim = Simulation(shift_plan(), there, crash=lambda what, count: what == "after acted" and count > 12)
    with pytest.raises(Crash):
        sim.run()
    before = moves(there)
    customers(there).share = 37
    state = Simulation(shift_plan(), there, journal=sim.journal).run()
    assert state.step("shift").status is Status.refused
    assert "east 37" in state.step("shift").detail
    assert moves(there) == before


def test_a_stop_in_a_soak_moves_nobody_on_and_a_resume_soaks_again() -> None:
    there = world()
    at = START + timedelta(seconds=15)
    sim = Simulation(shift_plan(), there, letters=[(at, SaidStop(by="kim", reason="lunch"))])
    assert sim.run().interrupted is not None
    assert moves(there) == FORWARD[: len(moves(there))] != FORWARD
    assert there.now - at < timedelta(seconds=2)


def test_a_rollback_puts_back_what_was_before_the_first_phase() -> None:
    there = world(share=None)
    there.fail_acts["after"] = [ActionFailed("no")]
    plan = make_plan(*shift_plan().steps, step("after", on_failure="roll-back", after=("shift",)), rto=timedelta(hours=1))
    assert Simulation(plan, there).run().verdict is Verdict.rolled_back
    assert moves(there) == FORWARD
    assert customers(there).share is None


def test_a_rollback_does_not_wait_for_a_soak_to_end() -> None:
    there = world()
    slow = {**INPUTS, "soak": "10m"}
    failing = step("other", on_failure="roll-back", after=("wait",))
    wait = step("wait", with_={"takes": 15.0}, after=())
    there.fail_acts["other"] = [ActionFailed("no")]
    plan = make_plan(*shift_plan(arguments=slow, timeout=timedelta(hours=1)).steps, wait, failing, rto=timedelta(hours=1))
    assert Simulation(plan, there).run().verdict is Verdict.rolled_back
    assert moves(there) == FORWARD[:1]
    assert customers(there).share == 0
    assert there.now - START < timedelta(seconds=25)


def test_a_dry_run_moves_nobody_and_says_what_would_come() -> None:
    there = world()
    plan = make_plan(*shift_plan().steps, mode=Mode.dry_run)
    state = Simulation(plan, there).run()
    assert state.step("shift").status is Status.would
    assert "east 0 -> 5 of 100" in state.step("shift").detail
    assert moves(there) == []


def test_a_gate_holds_the_first_phase_and_is_not_asked_at_every_phase() -> None:
    there = world()
    plan = make_plan(*shift_plan(gates=("go",)).steps, gates={"go": Approval()}, rto=timedelta(hours=1))
    yes = SaidAboutGate(gate="go", answer=Answer.approve, by="kim")
    sim = Simulation(plan, there, letters=[(START + timedelta(minutes=1), yes)])
    assert sim.run().verdict is Verdict.recovered
    assert customers(there).moves[0][0] >= START + timedelta(minutes=1)
    assert [event.kind for event in sim.journal].count("gate-opened") == 1
    assert moves(there) == FORWARD
