"""One pure function opens gates; nothing else does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from flows.events import Answer, ApprovalGiven
from flows.gates import Approved, Asked, Refused, Standing, Waiting, expired, judge, may_answer, oldest_word
from runbooks.model import Approval, Mode

OPENED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def asked(mode: Mode = Mode.live, initiator: str = "ines") -> Asked:
    return Asked(OPENED, OPENED + 10 * MINUTE, initiator, mode)


def said(by: str, answer: Answer = Answer.approve, after: timedelta = MINUTE) -> ApprovalGiven:
    at = OPENED + after
    return ApprovalGiven(at=at, gate="go", answer=answer, by=by, how="test", given_at=at, entry=1)


def decide(rule: Approval, *answers: ApprovalGiven, after: timedelta = 2 * MINUTE, mode: Mode = Mode.live):
    return judge(rule, answers, asked(mode), OPENED + after)


def test_silence_waits_then_refuses() -> None:
    assert isinstance(decide(Approval()), Waiting)
    assert isinstance(decide(Approval(), after=11 * MINUTE), Refused)


def test_silence_may_proceed_only_where_the_rule_says_so() -> None:
    assert isinstance(decide(Approval(on_timeout="proceed"), after=11 * MINUTE), Approved)


def test_one_deny_refuses_whatever_others_say() -> None:
    assert isinstance(decide(Approval(), said("kim"), said("bo", Answer.deny)), Refused)


def test_a_person_counts_once_and_their_last_word_counts() -> None:
    rule = Approval(quorum=2)
    assert isinstance(decide(rule, said("kim"), said(" KIM ")), Waiting)
    assert isinstance(decide(rule, said("kim"), said("bo")), Approved)
    assert isinstance(decide(Approval(), said("kim", Answer.deny), said("kim")), Approved)


def test_only_approvers_count() -> None:
    rule = Approval(approvers=("kim",))
    assert isinstance(decide(rule, said("bo")), Waiting)
    assert isinstance(decide(rule, said("bo", Answer.deny)), Waiting)
    assert isinstance(decide(rule, said("Kim")), Approved)


def test_who_started_the_run_may_be_excluded() -> None:
    assert isinstance(decide(Approval(exclude_initiator=True), said("Ines")), Waiting)
    assert isinstance(decide(Approval(), said("ines")), Approved)


def test_escalation_widens_the_circle_after_half_the_time() -> None:
    rule = Approval(approvers=("kim",), escalate_to=("bo",))
    assert isinstance(decide(rule, said("bo")), Waiting)
    assert isinstance(decide(rule, said("bo"), after=6 * MINUTE), Approved)


def test_an_answer_after_the_deadline_does_not_count() -> None:
    late = said("kim", after=12 * MINUTE)
    assert isinstance(decide(Approval(), late, after=13 * MINUTE), Refused)


def test_an_answer_before_the_gate_opened_counts() -> None:
    assert isinstance(decide(Approval(), said("kim", after=-5 * MINUTE), after=timedelta(0)), Approved)


def test_an_approval_older_than_valid_for_counts_for_nothing_and_a_deny_does_not_age() -> None:
    rule = Approval(valid_for=3 * MINUTE)
    assert isinstance(decide(rule, said("kim", after=-MINUTE), after=2 * MINUTE), Approved)
    assert isinstance(decide(rule, said("kim", after=-MINUTE), after=3 * MINUTE), Waiting)
    assert isinstance(decide(rule, said("kim", Answer.deny, after=-60 * MINUTE)), Refused)


def test_of_a_quorum_only_those_who_spoke_lately_count() -> None:
    rule = Approval(quorum=2, valid_for=3 * MINUTE)
    kim, bo = said("kim", after=MINUTE), said("bo", after=5 * MINUTE)
    assert decide(rule, kim, bo, after=5 * MINUTE) == Waiting(1, OPENED + 10 * MINUTE)
    assert isinstance(decide(rule, kim, bo, said("kim", after=6 * MINUTE), after=6 * MINUTE), Approved)


def test_an_approval_that_opened_a_gate_expires_by_its_oldest_word() -> None:
    rule = Approval(valid_for=10 * MINUTE)
    closed = OPENED + 5 * MINUTE
    given = oldest_word([said("kim", after=-MINUTE), said("kim"), said("BO", after=3 * MINUTE)], ("kim", "bo"), closed)
    assert given == OPENED + MINUTE
    assert oldest_word([], (), closed) == closed
    standing = Standing(("kim", "bo"), given)
    assert expired(rule, standing, given + 10 * MINUTE) is None
    assert expired(rule, standing, given + 11 * MINUTE) is not None
    assert expired(rule, Standing(("kim",), given, used=given + 9 * MINUTE), given + 19 * MINUTE) is None
    assert expired(rule, Standing(("kim",), given, used=given + 9 * MINUTE), given + 20 * MINUTE) is not None
    assert expired(rule, Standing((), given, preapproved=True), given + 100 * MINUTE) is None


def test_preapproval_holds_only_in_its_mode() -> None:
    rule = Approval(preapprove=("drill",))
    assert isinstance(decide(rule, mode=Mode.drill), Approved)
    assert isinstance(decide(rule), Waiting)


def test_nobody_without_a_name_counts() -> None:
    assert may_answer(Approval(), "  ", asked(), OPENED) is not None


PEOPLE = st.lists(
    st.builds(said, st.sampled_from(["kim", "KIM", "bo", "ada", ""]), st.sampled_from(Answer),
              st.integers(-5, 15).map(lambda minutes: minutes * MINUTE)),
    max_size=8,
)  # fmt: skip
RULES = st.builds(
    Approval, quorum=st.integers(1, 4), approvers=st.sampled_from([(), ("kim",), ("kim", "bo", "ada")]),
    exclude_initiator=st.booleans(), on_timeout=st.just("refuse"),
)  # fmt: skip


@given(RULES, PEOPLE, st.integers(0, 20))
def test_a_gate_never_opens_without_its_quorum_of_different_people(rule: Approval, answers: list, minutes: int) -> None:
    verdict = decide(rule, *answers, after=minutes * MINUTE)
    yes = {one.by.strip().casefold() for one in answers if one.answer is Answer.approve and one.by.strip()}
    if isinstance(verdict, Approved):
        assert len(yes) >= rule.quorum
        assert not rule.approvers or len(yes & set(rule.approvers)) >= rule.quorum
    if minutes > 10:
        assert not isinstance(verdict, Waiting)
