"""What Prefect shows is the journal's truth: a pure function, tested without Prefect's server."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import prefect_picture as picture
from flows.events import (
    Acting,
    Answer,
    ApprovalGiven,
    Choice,
    DecisionClosed,
    DecisionOpened,
    Event,
    ExecutionFinished,
    GateClosed,
    GateOpened,
    Interrupted,
    Resumed,
    Status,
    StepFinished,
    StepStarted,
    Verdict,
)
from flows.journal import SaidAboutFailure, SaidAboutGate
from flows.prefect_questions import Question, closing, closing_of, open_questions
from flows.state import ExecutionState, fold
from runbooks.model import Approval
from tests.flows.world import START, make_plan, started, step

PLAN = make_plan(step("one"), step("two", after=("one",), gates=("go",)), gates={"go": Approval(name="go")})


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def told(*events: Event) -> ExecutionState:
    return fold([started(PLAN, START), *events])


ONE_DONE = (
    StepStarted(at=at(1), step="one", attempt=1),
    Acting(at=at(2), step="one", attempt=1, describe="set one", before={}, target="t"),
    StepFinished(at=at(3), step="one", attempt=1, status=Status.done, detail="fine"),
)
AT_GATE = (
    *ONE_DONE,
    StepStarted(at=at(4), step="two", attempt=1),
    GateOpened(at=at(5), gate="go", question="Go?", covers=("two",), evidence=("set two: 0 -> 1",), deadline=at(65)),
)


def states(*events: Event) -> dict[str, tuple[str, str]]:
    return {name: (one.state.type, one.state.name) for name, one in picture.steps(PLAN, told(*events)).items()}


def test_steps_go_from_pending_over_running_and_the_gate_to_their_status() -> None:
    assert states() == {"one": ("PENDING", "Pending"), "two": ("PENDING", "Pending")}
    assert states(*ONE_DONE[:2])["one"] == ("RUNNING", "Running")
    assert states(*AT_GATE) == {"one": ("COMPLETED", "Done"), "two": ("PAUSED", "AtGate")}


def test_times_are_the_journals() -> None:
    shown = picture.steps(PLAN, told(*ONE_DONE))["one"]
    assert (shown.began, shown.ended, shown.at) == (at(1), at(3), at(3))


def test_what_was_held_back_did_not_run_and_what_was_cut_off_was_interrupted() -> None:
    end = ExecutionFinished(at=at(9), verdict=Verdict.failed, detail="no")
    assert states(*ONE_DONE, end)["two"] == ("CANCELLED", "NotRun")
    assert states(*AT_GATE, Interrupted(at=at(9), reason="stop"))["two"] == ("CANCELLED", "Interrupted")


@given(st.sampled_from(Status))
def test_only_steps_that_let_the_rest_go_on_are_completed(status: Status) -> None:
    shown = states(StepStarted(at=at(1), step="one", attempt=1), StepFinished(at=at(2), step="one", attempt=1, status=status, detail=""))
    assert (shown["one"][0] == "COMPLETED") == status.lets_go_on


@given(st.sampled_from(Verdict))
def test_a_run_is_completed_only_when_its_goal_was_met(verdict: Verdict) -> None:
    shown = picture.ending(PLAN, told(ExecutionFinished(at=at(9), verdict=verdict, detail="because")))
    assert shown is not None
    assert (shown.type == "COMPLETED") == (verdict in {Verdict.recovered, Verdict.no_action, Verdict.would})
    assert "because" in shown.message


def test_an_interrupted_run_is_cancelled_and_says_how_to_go_on() -> None:
    shown = picture.ending(PLAN, told(Interrupted(at=at(9), reason="SIGTERM received")))
    assert shown is not None
    assert (shown.type, shown.name) == ("CANCELLED", "Interrupted")
    assert picture.ending(PLAN, told()) is None


def test_a_resumed_run_is_under_way_again() -> None:
    again = Resumed(at=at(10), version="1", by="ada", host="h", pid=2, again=("two",))
    state = told(*AT_GATE, Interrupted(at=at(9), reason="stop"), again)
    assert picture.ending(PLAN, state) is None
    assert picture.steps(PLAN, state)["two"].state.type == "RUNNING"


def only_question(*events: Event) -> Question:
    (question,) = open_questions(PLAN, told(*events), "3fa9")
    return question


def test_a_gate_is_one_question_until_it_closes() -> None:
    question = only_question(*AT_GATE)
    assert (question.kind, question.subject, question.options) == ("gate", "go", ("approve", "deny"))
    assert "set two: 0 -> 1" in question.text
    closed = GateClosed(at=at(6), gate="go", approved=True, by=("ada",), reason="dead")
    assert open_questions(PLAN, told(*AT_GATE, closed), "3fa9") == ()
    assert closing(question, told(*AT_GATE, closed)).name == "Approved"
    assert closing_of(question.name, told(*AT_GATE, closed)).name == "Approved"
    assert closing_of(question.name, told(*AT_GATE)).name == closing_of("somebody's own", told(*AT_GATE, closed)).name == "Withdrawn"
    assert closing(question, told(*AT_GATE, closed.model_copy(update={"approved": False}))).type == "FAILED"
    assert closing(question, told(*AT_GATE, Interrupted(at=at(9), reason="x"))).name == "Withdrawn"


def test_a_gate_that_is_asked_again_is_another_question() -> None:
    later = AT_GATE[-1].model_copy(update={"at": at(20)})
    assert only_question(*AT_GATE).key != only_question(*AT_GATE, Resumed(at=at(19), version="1", by="a", host="h", pid=1), later).key


@pytest.mark.parametrize("values", [{}, {"name": "ada"}, {"decision": "approve"}, {"decision": "approve", "name": "  "},
                                    {"decision": "no answer", "name": "ada"}, {"decision": "APPROVE", "name": "ada"}])  # fmt: skip
def test_what_names_nobody_or_decides_nothing_is_no_answer(values: dict[str, str]) -> None:
    assert isinstance(only_question(*AT_GATE).said(values), str)


@given(st.dictionaries(st.sampled_from(["decision", "name", "reason", "other"]), st.text(max_size=20)))
def test_no_form_whatever_it_holds_approves_without_a_name_and_the_word(values: dict[str, str]) -> None:
    said = only_question(*AT_GATE).said(values)
    if isinstance(said, SaidAboutGate) and said.answer is Answer.approve:
        assert values["decision"] == "approve"
        assert values["name"].strip()


def test_an_answer_that_does_not_count_is_told_in_the_form_that_asks_again() -> None:
    plan = make_plan(step("two", gates=("go",)), gates={"go": Approval(name="go", exclude_initiator=True)})
    opened = GateOpened(at=at(5), gate="go", question="Go?", covers=("two",), evidence=(), deadline=at(65))
    given = ApprovalGiven(at=at(6), gate="go", answer=Answer.approve, by="Ines", how="x", given_at=at(6), entry=1)
    (question,) = open_questions(plan, fold([started(plan, START), opened, given]), "3fa9")
    assert "Ines said approve, which does not count" in question.text


def test_a_failed_step_asks_with_its_options() -> None:
    opened = DecisionOpened(at=at(5), step="one", reason="no", options=(Choice.retry, Choice.abort), default=Choice.abort, deadline=at(9))
    question = only_question(opened)
    assert question.options == ("retry", "abort")
    said = question.said({"decision": "retry", "name": "ada"})
    assert said == SaidAboutFailure(step="one", choice=Choice.retry, by="ada", how="prefect-form")
    closed = DecisionClosed(at=at(6), step="one", choice=Choice.retry, by="ada", reason="")
    assert closing(question, told(opened, closed)) == closing_of(question.name, told(opened, closed))
    assert closing(question, told(opened, closed)).name == "Decided"
