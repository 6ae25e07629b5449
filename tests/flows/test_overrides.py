"""Passing a fence that does not hold: two people, each with a reason, after it failed; and everybody sees it for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import overrides
from flows.events import Acting, Answer, Choice, GateOpened, OverrideGiven, Status, Verdict
from flows.journal import SaidAboutFailure, SaidAboutGate, SaidOverride
from flows.report import Source, build
from flows.report_text import markdown
from flows.watching import view
from runbooks.model import Approval, Mode
from tests.flows.world import START, Crash, FenceOff, MakeWriter, Simulation, World, failure, make_plan, step


def at(seconds: float):
    return START + timedelta(seconds=seconds)


def word(by: str, when: float, reason: str = "the host is on fire") -> OverrideGiven:
    return OverrideGiven(at=at(when), step="fence", by=by, how="self-declared", reason=reason, given_at=at(when), entry=1)


def test_two_people_with_reasons_after_the_failure_override() -> None:
    passed = overrides.judge([word("ana", 11), word("bo", 12)], at(10), at(13))
    assert passed is not None
    assert passed.by == ("ana", "bo")


@pytest.mark.parametrize(
    ("said", "failed", "now"),
    [
        ([word("ana", 11)], 10, 13),
        ([word("ana", 11), word(" ANA ", 12)], 10, 13),
        ([word("ana", 9), word("bo", 12)], 10, 13),
        ([word("ana", 11), word("bo", 12, " ")], 10, 13),
        ([word("ana", 11), word("  ", 12)], 10, 13),
        ([word("ana", 11), word("bo", 12)], None, 13),
        ([word("ana", 11), word("bo", 1000)], 10, 1001),
    ],
    ids=["one", "one person twice", "in advance", "no reason", "no name", "nothing failed", "too long apart"],
)
def test_anything_less_overrides_nothing(said, failed, now) -> None:
    assert overrides.judge(said, None if failed is None else at(failed), at(now)) is None


names = st.sampled_from(["ana", "Ana ", "bo", "", " "])


@given(st.lists(st.tuples(names, st.integers(0, 2000), st.sampled_from(["", "why"])), max_size=6), st.integers(0, 2000))
def test_nobody_ever_overrides_alone(said, now) -> None:
    passed = overrides.judge([word(by, when, reason) for by, when, reason in said], at(100), at(now))
    if passed is not None:
        assert len({by.casefold() for by in passed.by}) >= 2
        assert all(by for by in passed.by)


def plan(on_failure: str = "ask", mode: Mode = Mode.live):
    return make_plan(
        step("fence", FenceOff, gates=("go",), on_failure=on_failure),
        step("promote", MakeWriter, after=("fence",), gates=("go",), fenced_by=("fence",)),
        gates={"go": Approval(timeout=timedelta(minutes=5))},
        mode=mode,
    )


YES = (START, SaidAboutGate(gate="go", answer=Answer.approve, by="kim"))


def says(by: str, when: float, reason: str = "the data hall is under water"):
    return (at(when), SaidOverride(step="fence", by=by, reason=reason))


def broken() -> World:
    return World(fail_acts={"fence": [failure("no power to stop it")] * 99})


def run(letters, world: World | None = None, **more) -> tuple[Simulation, World]:
    world = world or broken()
    sim = Simulation(more.pop("plan", plan()), world, letters=[YES, *letters], **more)
    return sim, world


def test_a_promotion_goes_on_behind_an_overridden_fence_and_everything_says_so() -> None:
    sim, world = run([says("ana", 5), says("bo", 8)])
    state = sim.run()
    assert world.effects == ["promote"]
    assert state.step("fence").status is Status.skipped
    assert state.verdict is Verdict.recovered
    for text in (
        state.finished.detail,
        state.step("fence").detail,
        next(one.describe for one in sim.journal if isinstance(one, Acting) and one.step == "promote"),
        markdown(build(Source("x", sim.plan, sim.journal))),
        view(sim.plan, state, at(60), {}).warnings[0],
    ):
        assert "FENCE OVERRIDDEN by ana and bo" in text
        assert "under water" in text


def test_a_promotions_gate_shows_the_override_first() -> None:
    gated = make_plan(
        step("fence", FenceOff, on_failure="ask"),
        step("promote", MakeWriter, after=("fence",), gates=("go",), fenced_by=("fence",)),
        gates={"go": Approval(timeout=timedelta(minutes=5))},
    )
    sim = Simulation(gated, broken(), letters=[says("ana", 5), says("bo", 8), (at(30), YES[1])])
    sim.run()
    opened = next(one for one in sim.journal if isinstance(one, GateOpened))
    assert "FENCE OVERRIDDEN by ana and bo" in opened.evidence[0]


@pytest.mark.parametrize(
    "letters",
    [
        [says("ana", 5)],
        [says("ines", 5), says("ines", 6)],  # ines started the run
        [says("ana", 0), says("bo", 0)],  # before the fence failed
        [says("ana", 5), says("bo", 6, "")],
        [(at(5), SaidAboutFailure(step="fence", choice=Choice.skip, by="ana"))],
        [(at(5), SaidAboutGate(gate="fence", answer=Answer.approve, by="ana")), says("bo", 6)],
    ],
    ids=["one", "the initiator twice", "in advance", "no reason", "a skip", "an approval"],
)
def test_nothing_else_lets_a_promotion_pass(letters) -> None:
    sim, world = run(letters)
    state = sim.run()
    assert world.effects == []
    assert state.verdict is Verdict.failed


def test_people_who_said_no_at_the_gate_are_not_overridden() -> None:
    no = (START, SaidAboutGate(gate="go", answer=Answer.deny, by="kim"))
    sim = Simulation(plan(), World(), letters=[no, says("ana", 5), says("bo", 6)])
    assert sim.run().verdict is Verdict.refused
    assert sim.world.effects == []


def test_an_override_of_one_fence_is_none_of_another() -> None:
    two = make_plan(
        step("fence", FenceOff, on_failure="ask"),
        step("other", FenceOff, on_failure="ask"),
        step("promote", MakeWriter, after=("fence", "other"), fenced_by=("fence", "other")),
    )
    world = World(fail_acts={"fence": [failure()] * 9, "other": [failure()] * 9})
    skip = (at(9), SaidAboutFailure(step="other", choice=Choice.skip, by="kim"))
    state = Simulation(two, world, letters=[says("ana", 5), says("bo", 6), skip]).run()
    assert "promote" not in world.effects
    assert state.step("promote").code == "unfenced"


def test_a_fence_that_halts_is_overridden_by_a_resume_which_tries_it_once_more_first() -> None:
    halting = plan("halt")
    first, world = run([], plan=halting)
    assert first.run().verdict is Verdict.failed
    from flows.events import Resumed

    world.now += timedelta(seconds=60)
    journal = [*first.journal, Resumed(at=world.now, version="0", by="ana", host="h", pid=1, again=("fence",))]
    again = Simulation(halting, world, journal=journal, letters=[YES, says("ana", 40), says("bo", 41)])
    state = again.run()
    assert world.effects == ["promote"]
    assert state.step("fence").attempt == 2
    assert state.step("fence").overridden


def test_a_fence_that_holds_after_all_needs_no_override() -> None:
    halting = plan("halt")
    first, world = run([], plan=halting)
    first.run()
    from flows.events import Resumed

    world.fail_acts.clear()
    world.now += timedelta(seconds=60)
    journal = [*first.journal, Resumed(at=world.now, version="0", by="ana", host="h", pid=1, again=("fence",))]
    state = Simulation(halting, world, journal=journal, letters=[YES, says("ana", 40), says("bo", 41)]).run()
    assert world.effects == ["fence", "promote"]
    assert state.step("fence").status is Status.done
    assert not state.step("fence").overridden


def test_a_crash_at_every_point_of_an_overridden_run_promotes_once_or_never() -> None:
    letters = [says("ana", 5), says("bo", 8)]
    reference, _ = run(letters)
    reference.run()
    for point in range(1, reference.points + 1):
        first, world = run(letters, crash=lambda _what, count, at=point: count == at)
        with pytest.raises(Crash):
            first.run()
        failed = any(one.kind == "step-finished" for one in first.journal)
        world.now += timedelta(seconds=20)
        again, _ = run(letters, world, journal=first.journal)
        state = again.run()
        # where the fence had not failed yet when they spoke, they spoke in advance
        assert world.effects == (["promote"] if failed else []), point
        assert bool(state.step("fence").overridden) is failed, point


def test_a_dry_run_overrides_nothing() -> None:
    sim, world = run([says("ana", 0), says("bo", 0)], plan=replace(plan(), mode=Mode.dry_run))
    sim.run()
    assert world.effects == []
