"""The engine's decisions, in a simulated world with a clock that jumps."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

import pytest

from flows.events import (
    Acting,
    Answer,
    Choice,
    DecisionOpened,
    ExecutionFinished,
    Forecasted,
    GateOpened,
    Status,
    Verdict,
)
from flows.journal import SaidAboutFailure, SaidAboutGate
from runbooks.model import Approval, Mode, Retry
from tasks.clients import Clients
from tasks.contract import Seen
from tests.flows.world import (
    START,
    WORLD,
    Crash,
    Fact,
    FenceOff,
    MakeWriter,
    Set,
    Simulation,
    Watch,
    World,
    failure,
    make_plan,
    step,
)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def yes(gate: str, by: str = "kim", answer: Answer = Answer.approve) -> SaidAboutGate:
    return SaidAboutGate(gate=gate, answer=answer, by=by)


def failover_plan(**more: object):  # noqa: ANN201
    return make_plan(
        step("detect", Watch),
        step("scale", Set, after=("detect",), with_={"takes": 5}),
        step("fence", FenceOff, after=("detect",), gates=("go",)),
        step("promote", MakeWriter, after=("fence",), gates=("go",), fenced_by=("fence",)),
        step("dns", Set, after=("promote", "scale")),
        step("smoke", Watch, after=("dns",), with_={"fact": "dns", "times": 3}),
        gates={"go": Approval(timeout=timedelta(minutes=5))},
        **more,
    )


def statuses(state) -> dict[str, str]:  # noqa: ANN001
    return {name: record.status.value for name, record in state.steps.items() if record.status}


def test_a_run_recovers_and_changes_each_thing_once() -> None:
    world = World(facts={"detect": 1})
    sim = Simulation(failover_plan(), world, letters=[(START + seconds(30), yes("go"))])
    state = sim.run()
    assert state.verdict is Verdict.recovered
    assert statuses(state) == dict.fromkeys(["detect", "scale", "fence", "promote", "dns", "smoke"], "done")
    assert world.effects == ["scale", "fence", "promote", "dns"]


def test_a_refused_gate_touches_nothing_that_it_covers() -> None:
    world = World(facts={"detect": 1})
    sim = Simulation(failover_plan(), world, letters=[(START + seconds(3), yes("go", answer=Answer.deny))])
    state = sim.run()
    assert state.verdict is Verdict.refused
    assert world.effects == ["scale"]
    assert statuses(state) == {"detect": "done", "scale": "done", "fence": "refused"}


def test_silence_is_a_refusal() -> None:
    world = World(facts={"detect": 1})
    state = Simulation(failover_plan(), world).run()
    assert state.verdict is Verdict.refused
    assert world.now - START >= timedelta(minutes=5)


def test_an_approval_in_advance_opens_the_gate_at_once() -> None:
    world = World(facts={"detect": 1})
    sim = Simulation(failover_plan(), world, letters=[(START, yes("go"))])
    state = sim.run()
    assert state.verdict is Verdict.recovered
    assert world.now - START < seconds(10)


def test_independent_branches_go_on_while_a_gate_waits() -> None:
    world = World(facts={"detect": 1})
    sim = Simulation(failover_plan(), world, letters=[(START + seconds(60), yes("go"))])
    state = sim.run()
    assert state.step("scale").finished < state.gate("go").closed.at


def test_a_step_that_is_already_so_is_not_done_again_and_asks_nobody() -> None:
    world = World(facts={"detect": 1, "fence": 1, "promote": 1})
    state = Simulation(failover_plan(), world).run()
    assert statuses(state)["fence"] == statuses(state)["promote"] == "already"
    assert world.effects == ["scale", "dns"]


def test_it_looks_again_after_the_gate_and_adopts_what_somebody_did_meanwhile() -> None:
    world = World(facts={"detect": 1}, later=[(START + seconds(20), "fence", 1)])
    sim = Simulation(failover_plan(), world, letters=[(START + seconds(30), yes("go"))])
    state = sim.run()
    assert statuses(state)["fence"] == "already"
    assert "fence" not in world.effects


def test_nothing_is_promoted_when_the_fence_does_not_hold_any_more() -> None:
    plan = failover_plan()
    world = World(facts={"detect": 1})
    sim = Simulation(plan, world, letters=[(START, yes("go"))], latency=seconds(2))
    world.later.append((START + seconds(9), "fence", 0))  # somebody started the old primary again
    state = sim.run()
    assert "promote" not in world.effects
    assert state.step("promote").status is Status.failed
    assert state.step("promote").code == "unfenced"


def test_a_skipped_fence_is_no_fence() -> None:
    plan = make_plan(
        step("fence", FenceOff, on_failure="ask"), step("promote", MakeWriter, after=("fence",), fenced_by=("fence",))
    )
    world = World(fail_acts={"fence": [failure()]})
    said = SaidAboutFailure(step="fence", choice=Choice.skip, by="kim")
    state = Simulation(plan, world, letters=[(START + seconds(5), said)]).run()
    assert world.effects == []
    assert state.step("promote").status is Status.failed
    assert state.verdict is Verdict.failed


def test_a_passing_refusal_is_tried_again_after_a_look() -> None:
    world = World(fail_acts={"a": [failure(retry=True), failure(retry=True)]})
    state = Simulation(make_plan(step("a", Set)), world).run()
    assert statuses(state) == {"a": "done"}
    assert world.effects == ["a"]


def test_a_lost_answer_is_not_acted_on_twice() -> None:
    class Lossy(list):  # the effect happens, the answer is lost
        def pop(self, index: int = 0):  # noqa: ANN202
            world.facts["a"] = 1
            world.effects.append("a")
            return super().pop(index)

    world = World()
    world.fail_acts["a"] = Lossy([failure("connection lost", retry=True)])
    state = Simulation(make_plan(step("a", Set)), world).run()
    assert statuses(state) == {"a": "done"}
    assert world.effects == ["a"]


def test_attempts_end_and_the_step_fails_with_the_worlds_words() -> None:
    world = World(fail_acts={"a": [failure("throttled", retry=True) for _ in range(9)]})
    state = Simulation(make_plan(step("a", Set, retry=Retry(attempts=2))), world).run()
    assert state.step("a").status is Status.failed
    assert "throttled" in state.step("a").detail
    assert len(world.fail_acts["a"]) == 7


def test_a_step_past_its_timeout_is_given_up_and_holds_what_comes_after() -> None:
    world = World()
    plan = make_plan(step("a", Set, with_={"takes": 100}), step("b", Set, after=("a",)))
    state = Simulation(plan, world).run()
    assert state.step("a").status is Status.timed_out
    assert state.step("b").status is None
    assert state.verdict is Verdict.failed
    assert world.now - START <= seconds(21)


def test_an_accepted_failure_lets_what_comes_after_go_on() -> None:
    world = World(fail_acts={"a": [failure()]})
    plan = make_plan(step("a", Set, on_failure="continue"), step("b", Set, after=("a",)))
    state = Simulation(plan, world).run()
    assert state.verdict is Verdict.recovered
    assert world.effects == ["b"]


def test_a_failure_leads_to_its_handler_which_else_does_not_run() -> None:
    plan = make_plan(
        step("a", Set, on_failure="mend"), step("mend", Set, after=("a",), handles=("a",)), step("b", Set, after=("a", "mend"))
    )
    good, bad = World(), World(fail_acts={"a": [failure()]})
    assert statuses(Simulation(plan, good).run())["mend"] == "skipped"
    assert good.effects == ["a", "b"]
    assert Simulation(plan, bad).run().verdict is Verdict.recovered
    assert bad.effects == ["mend", "b"]


@pytest.mark.parametrize(
    ("choice", "verdict", "effects"),
    [
        (Choice.retry, Verdict.recovered, ["a", "b", "c"]),
        (Choice.skip, Verdict.recovered, ["a", "c"]),
        (Choice.abort, Verdict.failed, ["a"]),
        (Choice.roll_back, Verdict.rolled_back, ["a", "undo a"]),
    ],
)
def test_a_failed_step_asks_and_does_what_is_decided(choice: Choice, verdict: Verdict, effects: list[str]) -> None:
    plan = make_plan(step("a", Set), step("b", Set, after=("a",), on_failure="ask"), step("c", Set, after=("b",)))
    world = World(fail_acts={"b": [failure()]})
    said = SaidAboutFailure(step="b", choice=choice, by="kim")
    state = Simulation(plan, world, letters=[(START + seconds(60), said)]).run()
    assert state.verdict is verdict
    assert world.effects == effects


def test_nobody_answering_a_failed_step_ends_the_run() -> None:
    world = World(fail_acts={"a": [failure()]})
    sim = Simulation(make_plan(step("a", Set, on_failure="ask")), world)
    assert sim.run().verdict is Verdict.failed
    assert any(isinstance(event, DecisionOpened) for event in sim.journal)


def test_a_failed_step_waits_for_people_as_long_as_its_runbook_says() -> None:
    plan = make_plan(step("a", Set, on_failure="ask", ask_timeout=timedelta(minutes=2)))
    retry = SaidAboutFailure(step="a", choice=Choice.retry, by="kim")
    in_time = World(fail_acts={"a": [failure()]})
    assert Simulation(plan, in_time, letters=[(START + seconds(110), retry)]).run().verdict is Verdict.recovered
    late = World(fail_acts={"a": [failure()]})
    sim = Simulation(plan, late, letters=[(START + seconds(130), retry)])
    assert sim.run().verdict is Verdict.failed
    (asked,) = [event for event in sim.journal if isinstance(event, DecisionOpened)]
    assert asked.deadline - asked.at == timedelta(minutes=2)
    assert late.effects == []


def test_rollback_never_goes_back_over_the_point_of_no_return() -> None:
    plan = make_plan(
        step("a", Set), step("fence", FenceOff, after=("a",)),
        step("promote", MakeWriter, after=("fence",), fenced_by=("fence",)),
        step("b", Set, after=("promote",)), step("c", Set, after=("b",), on_failure="roll-back"),
    )  # fmt: skip
    world = World(fail_acts={"c": [failure()]})
    state = Simulation(plan, world).run()
    assert state.verdict is Verdict.rolled_back
    assert world.effects == ["a", "fence", "promote", "b", "undo b"]
    assert world.facts["a"] == 1
    assert set(state.rollback.left) == {"a", "fence", "promote"}


def test_a_dry_run_changes_nothing_and_describes_everything() -> None:
    world = World(facts={"detect": 0})
    state = Simulation(failover_plan(mode=Mode.dry_run), world).run()
    assert state.verdict is Verdict.would
    assert world.effects == []
    assert state.step("dns").detail == "would set dns: None -> 1"


def test_a_probe_that_ends_the_run_ends_it_well_without_a_change() -> None:
    plan = make_plan(step("assess", Watch, with_={"ends_run": True}), step("a", Set, after=("assess",)))
    world = World(facts={"assess": 1})
    state = Simulation(plan, world).run()
    assert state.verdict is Verdict.no_action
    assert world.effects == []
    assert state.step("a").status is Status.skipped


def test_steadiness_counts_looks_in_a_row() -> None:
    world = World(facts={"a": 1}, later=[(START + seconds(0.7), "a", 0), (START + seconds(1.2), "a", 1)])
    Simulation(make_plan(step("a", Watch, with_={"times": 3})), world).run()
    assert world.now - START > seconds(2)


def test_a_look_that_fails_for_a_passing_reason_is_repeated() -> None:
    world = World(fail_looks={"a": [failure(retry=True)] * 3})
    assert Simulation(make_plan(step("a", Set)), world).run().verdict is Verdict.recovered


def test_our_own_defect_is_shown_as_one() -> None:
    world = World(fail_looks={"a": [ZeroDivisionError()]})
    state = Simulation(make_plan(step("a", Set)), world).run()
    assert state.step("a").status is Status.errored
    assert world.effects == []


def test_a_stop_starts_no_change_and_observes_what_is_under_way() -> None:
    plan = make_plan(step("a", Set, with_={"takes": 3}), step("b", Set, after=("a",)))
    world = World()
    state = Simulation(plan, world, stops=[START + seconds(0.015)]).run()
    assert state.interrupted is not None
    assert world.effects == ["a"]
    assert state.finished is None


def test_a_manual_step_waits_for_the_person_who_did_it() -> None:
    plan = make_plan(step("call", None), step("b", Set, after=("call",)))
    world = World()
    state = Simulation(plan, world, letters=[(START + seconds(5), yes("call"))]).run()
    assert state.verdict is Verdict.recovered
    assert state.step("call").status is Status.done


def test_drill_steps_are_simulated_or_left_out() -> None:
    plan = make_plan(
        step("a", Set, drill="skip"), step("b", Set, after=("a",), drill="simulate"), step("c", Set, after=("b",)),
        mode=Mode.drill,
    )  # fmt: skip
    world = World()
    state = Simulation(plan, world).run()
    assert statuses(state) == {"a": "skipped", "b": "would", "c": "done"}
    assert world.effects == ["c"]


def test_the_forecast_says_at_risk_and_missed_once_each() -> None:
    plan = failover_plan(rto=timedelta(seconds=40))
    sim = Simulation(plan, World(facts={"detect": 1}), letters=[(START + seconds(60), yes("go"))])
    sim.run()
    assert [event.verdict for event in sim.journal if isinstance(event, Forecasted)] == ["at-risk", "missed"]


def test_every_act_stands_behind_its_announcement() -> None:
    world = World(facts={"detect": 1})
    sim = Simulation(failover_plan(), world, letters=[(START, yes("go"))])
    sim.run()
    assert [event.step for event in sim.journal if isinstance(event, Acting)] == world.effects


def crash_everywhere(plan_of, letters, facts):  # noqa: ANN001, ANN201
    """Crash at every point of a run, resume each time; give every final world and state."""
    reference = Simulation(plan_of(), World(facts=dict(facts)), letters=letters)
    reference.run()
    for point in range(1, reference.points + 1):
        world = World(facts=dict(facts))
        first = Simulation(plan_of(), world, letters=letters, crash=lambda _what, count, at=point: count == at)
        with pytest.raises(Crash):
            first.run()
        world.now += timedelta(seconds=20)
        second = Simulation(plan_of(), world, letters=letters, journal=first.journal)
        yield reference.world, world, second.run()


def test_a_crash_at_any_point_then_resume_gives_the_same_world_and_no_effect_twice() -> None:
    runs = 0
    for wanted, world, state in crash_everywhere(failover_plan, [(START, yes("go"))], {"detect": 1}):
        assert state.verdict is Verdict.recovered
        assert world.facts == wanted.facts
        assert sorted(world.effects) == sorted(wanted.effects)
        runs += 1
    assert runs > 40


def test_a_crash_in_a_rollback_undoes_the_same() -> None:
    def plan():  # noqa: ANN202
        return make_plan(step("a", Set), step("b", Set, after=("a",)), step("c", Watch, after=("b",), on_failure="roll-back"))

    for wanted, world, state in crash_everywhere(plan, [], {"c": 0}):
        assert state.verdict is Verdict.rolled_back
        assert world.facts == wanted.facts


def test_the_last_event_is_the_verdict() -> None:
    sim = Simulation(failover_plan(), World(facts={"detect": 1}), letters=[(START, yes("go"))])
    sim.run()
    assert isinstance(sim.journal[-1], ExecutionFinished)
    assert sum(isinstance(event, GateOpened) for event in sim.journal) == 1


class Remember(Set):
    """Says what it was told of before."""

    name: ClassVar[str] = "sim.remember"

    def fold(self, earlier: Seen[Fact] | None, now: Seen[Fact]) -> Fact:
        TOLD.append(earlier.state.value if earlier else "nothing")
        return now.state


TOLD: list[object] = []


def test_a_resumed_step_is_told_what_was_journaled_before_it_acted() -> None:
    TOLD.clear()
    world = World(facts={"a": 7})
    sim = Simulation(make_plan(step("a", Remember, with_={"takes": 3.0})), world, crash=lambda what, _: what == "after act a")
    with pytest.raises(Crash):
        sim.run()
    sim.crash = lambda _what, _count: False
    assert sim.run().verdict is Verdict.recovered
    assert TOLD[:2] == ["nothing", 7]


class Stages(MakeWriter):
    """Two moves, as a switchover makes: out of 0 to 1, which takes a while (-1), and on to 2."""

    name: ClassVar[str] = "sim.stages"
    fences_itself: ClassVar[bool] = True
    to: int = 2

    def act(self, before: Fact, clients: Clients) -> None:
        world = WORLD[0]
        world.effects.append(f"{self.fact} from {before.value or 0}")
        if before.value:
            world.facts[self.fact] = 2
        else:
            world.facts[self.fact] = -1
            world.later.append((world.now + timedelta(seconds=3), self.fact, 1))


def test_a_change_of_several_moves_that_is_found_underway_after_a_crash_makes_the_rest_of_them() -> None:
    plan = make_plan(step("over", Stages))
    for crash in ("after act over", "after acted"):
        world = World()
        first = Simulation(plan, world, crash=lambda what, _count, crash=crash: what == crash)
        with pytest.raises(Crash):
            first.run()
        world.now += timedelta(seconds=1)
        again = Simulation(plan, world, journal=first.journal)
        assert again.run().verdict is Verdict.recovered
        assert world.effects == ["over from 0", "over from 1"]
