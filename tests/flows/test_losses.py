"""Over the RPO nothing is promoted until a person accepted as much as may be lost, at the moment of acting."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.events import Acting, Answer, ApprovalGiven, GateOpened, Status, Verdict
from flows.gates import UNKNOWN, Approved, Asked, Refused, Stake, Waiting, enough, judge, read_accepted
from flows.journal import SaidAboutGate
from flows.prefect_questions import open_questions
from flows.report import Source, build
from flows.state import fold
from flows.terminal import Dialogue
from flows.watching import questions
from runbooks.model import Approval, Mode
from tasks.contract import Loss
from tests.flows.world import START, Crash, FenceOff, MakeWriter, Simulation, Watch, World, make_plan, step

MINUTE = timedelta(minutes=1)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def yes(accepts: str | None = None, by: str = "kim", answer: Answer = Answer.approve) -> SaidAboutGate:
    return SaidAboutGate(gate="go", answer=answer, by=by, accepts_loss=read_accepted(accepts) if accepts else None)


def lossy(**more: object):
    """One gate before the fence that covers the promotion, as runbooks have it."""
    return make_plan(
        step("look", Watch),
        step("fence", FenceOff, after=("look",), gates=("go",)),
        step("promote", MakeWriter, after=("fence",), gates=("go",), fenced_by=("fence",)),
        gates={"go": Approval(timeout=timedelta(minutes=10), **more)},
        rpo=MINUTE,
    )


def world(at_most: float | None, *, told: float | None = -1, grows: bool = False) -> World:
    """`at_most`: as the promotion sees it right before it acts; `told`: as the probe before the gate did."""
    before = Loss(at_most=at_most if told == -1 else told, grows=grows)
    return World(facts={"look": 1, "look tells": before, "promote loses": Loss(at_most=at_most, grows=False)})


def gates_opened(sim: Simulation) -> list[GateOpened]:
    return [event for event in sim.journal if isinstance(event, GateOpened)]


def test_within_the_rpo_a_plain_yes_is_enough() -> None:
    state = Simulation(lossy(), world(59.0), letters=[(START + seconds(5), yes())]).run()
    assert state.verdict is Verdict.recovered
    assert state.gate("go").opened.loss == Loss(at_most=59.0, grows=False)


@pytest.mark.parametrize("accepts", [None, "1m", "69s"])
def test_over_the_rpo_a_yes_that_accepts_too_little_opens_nothing(accepts: str | None) -> None:
    sim = Simulation(lossy(), world(70.0), letters=[(START + seconds(5), yes(accepts))])
    state = sim.run()
    assert state.verdict is Verdict.refused
    assert sim.world.effects == []


@pytest.mark.parametrize("accepts", ["70s", "5m", "unknown"])
def test_over_the_rpo_whoever_accepts_enough_lets_it_go_on_and_is_reported(accepts: str) -> None:
    sim = Simulation(lossy(), world(70.0), letters=[(START + seconds(5), yes(accepts))])
    state = sim.run()
    assert state.verdict is Verdict.recovered
    assert state.gate("go").closed.accepts_loss == read_accepted(accepts)
    report = build(Source("e1", sim.plan, sim.journal))
    assert [(one.step, one.at_most, one.accepted_by, one.within_rpo) for one in report.losses if one.step == "promote"] == [("promote", 70.0, ("kim",), False)]
    assert len(gates_opened(sim)) == 1


def test_a_loss_that_is_not_known_is_accepted_only_as_unknown() -> None:
    sim = Simulation(lossy(), world(None), letters=[(START + seconds(5), yes("300d"))])
    assert sim.run().verdict is Verdict.refused
    sim = Simulation(lossy(), world(None), letters=[(START + seconds(5), yes("unknown"))])
    assert sim.run().verdict is Verdict.recovered


def test_a_loss_that_grew_beyond_what_was_accepted_asks_again_right_before_the_promotion() -> None:
    letters = [(START + seconds(5), yes("80s")), (START + seconds(60), yes("100s", by="bo"))]
    sim = Simulation(lossy(), world(95.0, told=70.0), letters=letters)
    state = sim.run()
    assert [one.loss.at_most for one in gates_opened(sim)] == [70.0, 95.0]
    acts = {event.step: event.at - START for event in sim.journal if isinstance(event, Acting)}
    assert acts["fence"] < seconds(10)
    assert acts["promote"] > seconds(60)
    assert state.gate("go").closed.by == ("bo",)
    assert sim.world.effects == ["fence", "promote"]


def test_refused_when_asked_again_it_stays_fenced_and_unpromoted() -> None:
    letters = [(START + seconds(5), yes()), (START + seconds(60), yes(answer=Answer.deny))]
    sim = Simulation(lossy(), world(95.0, told=30.0), letters=letters)
    state = sim.run()
    assert state.step("promote").status is Status.refused
    assert sim.world.effects == ["fence"]


def test_while_the_gate_waits_the_loss_grows_past_the_rpo_and_a_plain_yes_no_longer_counts() -> None:
    grown = Simulation(lossy(), world(30.0, grows=True), letters=[(START + seconds(40), yes())])
    assert grown.run().verdict is Verdict.refused
    quick = Simulation(lossy(), world(30.0, grows=True), letters=[(START + seconds(20), yes())])
    assert quick.run().verdict is Verdict.recovered


def test_two_early_answers_at_two_gates_do_not_carry_a_promotion_past_its_loss() -> None:
    plan = make_plan(
        step("look", Watch), step("fence", FenceOff, after=("look",), gates=("first",)),
        step("promote", MakeWriter, after=("fence",), gates=("first", "second"), fenced_by=("fence",)),
        gates={"first": Approval(), "second": Approval()}, rpo=MINUTE,
    )  # fmt: skip
    letters = [(START, SaidAboutGate(gate=name, answer=Answer.approve, by="kim")) for name in ("first", "second")]
    sim = Simulation(plan, world(95.0, told=5.0), letters=letters)
    assert sim.run().verdict is Verdict.refused
    assert sim.world.effects == ["fence"]


def test_a_drill_that_approves_itself_accepts_what_its_drill_data_loses() -> None:
    plan = lossy(preapprove=("drill",))
    sim = Simulation(make_plan(*plan.steps, mode=Mode.drill, gates={"go": plan.gates[0].rule}, rpo=MINUTE), world(500.0))
    assert sim.run().verdict is Verdict.recovered


def test_without_an_rpo_nobody_has_to_accept_anything() -> None:
    plan = lossy()
    sim = Simulation(make_plan(*plan.steps, gates={"go": Approval()}), world(None), letters=[(START, yes())])
    assert sim.run().verdict is Verdict.recovered


def test_whoever_accepted_too_little_is_told_so_where_the_gate_is_shown() -> None:
    letters = [(START + seconds(5), yes("1m", by="bo"))]
    sim = Simulation(lossy(), world(70.0), letters=letters, crash=lambda what, _: what == "before gate-closed")
    with pytest.raises(Crash):
        sim.run()
    state = fold(sim.journal)
    (shown,) = questions(state, START)
    assert shown.loses
    assert any(line.startswith("bo said yes, which does not count") for line in shown.evidence)
    (form,) = open_questions(sim.plan, state, "e1")
    assert "bo said approve, which does not count" in form.text


def test_the_form_and_the_terminal_take_the_accepted_loss_and_nothing_else_for_it() -> None:
    sim = Simulation(lossy(), world(70.0), crash=lambda what, _: what == "before gate-closed")
    with pytest.raises(Crash):
        sim.run()
    state = fold(sim.journal)
    (form,) = open_questions(sim.plan, state, "e1")
    assert "accept_loss" in form.form().model_fields
    sent = {"decision": "approve", "name": "ada", "reason": "", "accept_loss": "90s"}
    assert form.said(sent) == yes("90s", by="ada").model_copy(update={"how": "prefect-form"})
    assert form.said({**sent, "accept_loss": ""}).accepts_loss is None
    assert isinstance(form.said({**sent, "accept_loss": "lots"}), str)
    dialogue = Dialogue(questions(state, START)[0], "ada")
    for line in ("y", "", "lost anyway", "lots"):
        assert dialogue.take(line) is None
    assert dialogue.take("unknown") == yes("unknown", by="ada").model_copy(update={"reason": "lost anyway"})
    assert [dialogue.take(line) for line in ("n", "", "")][-1].answer is Answer.deny  # a no needs no loss


def test_within_the_rpo_the_terminal_asks_for_no_loss_until_it_has_grown_over_it() -> None:
    sim = Simulation(lossy(), world(30.0, grows=True), crash=lambda what, _: what == "before gate-closed")
    with pytest.raises(Crash):
        sim.run()
    state = fold(sim.journal)
    asked = [questions(state, START + seconds(later))[0] for later in (5, 50)]
    assert [one.loses for one in asked] == [False, True]
    dialogue = Dialogue(asked[0], "ada")
    assert [dialogue.take(line) for line in ("y", "", "")][-1] == yes(by="ada")


@pytest.mark.parametrize("told", [70.0, 30.0])
def test_killed_anywhere_and_resumed_it_never_promotes_over_a_loss_that_nobody_accepted(told: float) -> None:
    letters = [(START + seconds(5), yes("80s"))]
    whole = Simulation(lossy(), world(95.0, told=told), letters=letters)
    whole.run()
    for point in range(1, whole.points + 1):
        sim = Simulation(lossy(), world(95.0, told=told), letters=letters, crash=lambda _, at, point=point: at == point)
        try:
            sim.run()
        except Crash:
            sim.crash = lambda _what, _count: False
            sim.run()
        assert "promote" not in sim.world.effects, point


AT_MOST = st.none() | st.floats(0, 400)
ACCEPTED = st.none() | st.just(UNKNOWN) | st.integers(0, 400).map(seconds)
ANSWERS = st.lists(st.tuples(st.sampled_from(["kim", "bo", "ada"]), ACCEPTED), max_size=5)


@given(AT_MOST, st.booleans(), ANSWERS, st.integers(1, 3), st.integers(0, 300))
def test_a_gate_never_opens_over_more_than_the_rpo_and_each_of_its_people_allow(
    at_most: float | None, grows: bool, answers: list, quorum: int, after: int
) -> None:
    stake = Stake(Loss(at_most=at_most, grows=grows), START, MINUTE)
    said = [
        ApprovalGiven(at=START, gate="go", answer=Answer.approve, by=by, how="test", given_at=START, entry=1, accepts_loss=loss)
        for by, loss in answers
    ]
    now = START + seconds(after)
    verdict = judge(Approval(quorum=quorum), said, Asked(START, START + 10 * MINUTE, "ines", Mode.live, stake), now)
    assert not isinstance(verdict, Refused)
    if isinstance(verdict, Approved):
        bound = stake.at_most(now)
        last = dict(answers)
        enough_said = [by for by, loss in last.items() if bound <= MINUTE or (loss is not None and loss >= bound)]
        assert len(enough_said) >= quorum
        assert stake.accepted(verdict.accepts_loss, now)
    else:
        assert isinstance(verdict, Waiting)


@given(AT_MOST, st.booleans())
def test_what_people_are_told_to_type_is_enough(at_most: float | None, grows: bool) -> None:
    stake = Stake(Loss(at_most=at_most, grows=grows), START, MINUTE)
    assert stake.accepted(read_accepted(enough(stake, START)), START + seconds(30 if grows else 0))
