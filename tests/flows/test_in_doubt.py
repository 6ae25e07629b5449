"""A change that was announced when its process died and cannot be looked at by the one that goes on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import ClassVar

import pytest

from flows.events import Acting, Choice, DecisionClosed, DecisionOpened, Event, RollbackStarted, Status, Verdict
from flows.journal import SaidAboutFailure
from flows.state import ExecutionState
from runbooks.plan import Plan
from tests.flows.world import START, Crash, FenceOff, Set, Simulation, World, failure, make_plan, step

LOOKS: dict[str, Callable[[], Exception]] = {
    "the world says no": failure,
    "nobody answers until the timeout": lambda: failure("no answer", retry=True),
    "a defect of ours": ZeroDivisionError,
}
ON_FAILURE = ("ask", "halt", "continue", "roll-back", "mend")


class Once(Set):
    """Cannot be undone."""

    name: ClassVar[str] = "sim.once"
    reversible: ClassVar[bool] = False


def plan_of(on_failure: str, kind: type[Set] = Once) -> Plan:
    return make_plan(
        step("first", Set),
        step("a", kind, after=("first",), on_failure=on_failure),
        step("mend", Set, after=("a",), handles=("a",)),
        step("b", Set, after=("a", "mend")),
    )


def crashed(plan: Plan, when: str = "after act a") -> Simulation:
    sim = Simulation(plan, World(), crash=lambda what, _count: what == when)
    with pytest.raises(Crash):
        sim.run()
    return sim


def resumed(died: Simulation, look: Callable[[], Exception], *letters: tuple[timedelta, Choice]) -> tuple[ExecutionState, list[Event]]:
    """Go on where nothing can be seen of `a` for 10 minutes; what was written since."""
    known = len(died.journal)
    died.world.fail_looks = {"a": [look() for _ in range(1200)]}
    said = [(died.world.now + late, SaidAboutFailure(step="a", choice=choice, by="kim")) for late, choice in letters]
    sim = Simulation(died.plan, died.world, journal=died.journal, letters=said)  # type: ignore[arg-type]
    return sim.run(), sim.journal[known:]


def of(events: list[Event], kind: type[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("on_failure", ON_FAILURE)
@pytest.mark.parametrize("when", ["before act a", "after act a"])
def test_one_that_cannot_be_undone_nor_seen_asks_whatever_its_failure_leads_to(when: str, on_failure: str, look: str) -> None:
    """Must never happen: it is done a second time, or passed over without a person."""
    died = crashed(plan_of(on_failure), when)
    before = list(died.world.effects)
    state, since = resumed(died, LOOKS[look])
    assert died.world.effects == before
    assert not of(since, Acting) + of(since, RollbackStarted)
    (asked,) = of(since, DecisionOpened)
    assert (asked.step, asked.default) == ("a", Choice.abort)
    assert [(one.step, one.by, one.choice) for one in of(since, DecisionClosed)] == [("a", "nobody", Choice.abort)]
    assert not state.step("a").lets_go_on
    assert state.step("b").started is None
    assert state.verdict is Verdict.failed


def test_a_fence_in_doubt_that_cannot_be_seen_asks_and_nothing_passes_it() -> None:
    died = crashed(plan_of("halt", FenceOff))
    state, since = resumed(died, failure, (timedelta(seconds=30), Choice.abort))
    assert [one.by for one in of(since, DecisionClosed)] == ["kim"]
    assert state.step("b").started is None


@pytest.mark.parametrize(("on_failure", "mended"), [("continue", Status.skipped), ("mend", Status.done)])
def test_a_person_who_skips_it_lets_the_run_go_on_as_the_runbook_says(on_failure: str, mended: Status) -> None:
    died = crashed(plan_of(on_failure))
    state, _ = resumed(died, failure, (timedelta(seconds=30), Choice.skip))
    assert (state.step("a").status, state.step("mend").status) == (Status.skipped, mended)
    assert state.verdict is Verdict.recovered
    assert died.world.effects.count("a") == 1


def test_a_person_who_says_again_has_it_looked_at_again() -> None:
    died = crashed(plan_of("continue"))
    state, since = resumed(died, failure, (timedelta(seconds=30), Choice.retry))
    assert len(of(since, DecisionOpened)) == 2  # it could not be seen then either
    assert died.world.effects == ["first", "a"]
    assert state.verdict is Verdict.failed


def test_a_process_that_dies_before_it_asks_leaves_the_question_to_the_next() -> None:
    died = crashed(plan_of("continue"))
    died.world.fail_looks = {"a": [failure()]}
    again = Simulation(died.plan, died.world, journal=died.journal, crash=lambda what, _count: what == "after step-finished")
    with pytest.raises(Crash):
        again.run()
    state, since = resumed(again, failure)
    assert of(since, DecisionOpened)
    assert not state.step("a").lets_go_on


@pytest.mark.parametrize("on_failure", ON_FAILURE)
def test_one_that_is_seen_not_to_have_happened_is_done(on_failure: str) -> None:
    died = crashed(plan_of(on_failure), "before act a")
    died.world.fail_looks = {"a": [failure(retry=True)] * 3}
    assert Simulation(died.plan, died.world, journal=died.journal).run().verdict is Verdict.recovered
    assert died.world.effects.count("a") == 1


def test_one_that_can_be_undone_or_was_never_announced_does_as_the_runbook_says() -> None:
    never = Simulation(plan_of("continue"), World(fail_looks={"a": [failure()]}))
    undoable = crashed(plan_of("continue", Set))
    undoable.world.fail_looks = {"a": [failure()]}
    for sim in (never, Simulation(undoable.plan, undoable.world, journal=undoable.journal)):
        state = sim.run()
        assert state.step("a").accepted
        assert not of(sim.journal, DecisionOpened)
        assert sim.world.now - START < timedelta(minutes=5)
