"""What synchronous_standby_names demands, and when it cannot be met: against a model of how PostgreSQL counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.sync_rule import Rule, parse_rule

NAMES = ("a", "b", "c", "d", "e")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("west", Rule("first", 1, frozenset({"west"}))),
        ("a, b", Rule("first", 1, frozenset("ab"))),
        ("2 (a,b,c)", Rule("first", 2, frozenset("abc"))),
        ("first 2(a, B ,c) ", Rule("first", 2, frozenset("abc"))),
        ("ANY 2 (a, b, c)", Rule("any", 2, frozenset("abc"))),
        ('any 1 ("West-1", "a ""b""")', Rule("any", 1, frozenset({"west-1", 'a "b"'}))),
        ("1", Rule("first", 1, frozenset("1"))),
        ("a, a, b", Rule("first", 1, frozenset("ab"))),
        ('"any"', Rule("first", 1, frozenset({"any"}))),
    ],
)
def test_it_is_read_as_postgresql_reads_it(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    "text",
    ["", " ", "any", "FIRST (a)", "ANY 0 (a)", "ANY 1 a", "ANY 1 (a", "ANY 1 ()", "a b", "a,", ",a", "a;b", "é", 'a"', "FIRST 1 (a) b"],
)
def test_what_postgresql_would_refuse_is_no_rule(text: str) -> None:
    assert parse_rule(text) is None


@pytest.mark.parametrize("text", ["*", '"*"', "ANY 1 (*)", "FIRST 1 (a, *)"])
def test_a_star_is_never_lost_because_anybody_may_confirm(text: str) -> None:
    rule = parse_rule(text)
    assert rule is not None
    assert not rule.is_lost([*NAMES, "*"])


def acknowledged(rule: Rule, order: list[str], connected: set[str], confirmed: set[str]) -> bool:
    """PostgreSQL's own count: FIRST waits for all of the k first that are connected, ANY for any k."""
    counting = [name for name in order if name in connected]
    if len(counting) < rule.count:
        return False
    if rule.method == "first":
        return set(counting[: rule.count]) <= confirmed
    return len(set(counting) & confirmed) >= rule.count


@st.composite
def rules(draw: st.DrawFn) -> tuple[Rule, list[str]]:
    order = draw(st.permutations(NAMES))[: draw(st.integers(1, len(NAMES)))]
    count = draw(st.integers(1, len(order)))
    return Rule(draw(st.sampled_from(["first", "any"])), count, frozenset(order)), list(order)


SOME = st.frozensets(st.sampled_from(NAMES))


@given(rules(), SOME, SOME, SOME)
def test_a_lost_quorum_acknowledges_nothing_whatever_the_others_do(drawn, silent, connected, confirmed) -> None:
    rule, order = drawn
    if rule.is_lost(silent):
        assert not acknowledged(rule, order, set(connected), set(confirmed - silent))


@given(rules(), SOME)
def test_a_quorum_that_is_not_lost_could_still_acknowledge(drawn, silent) -> None:
    rule, order = drawn
    others = set(order) - silent
    assert rule.is_lost(silent) is not acknowledged(rule, order, others, others)


@given(rules(), SOME)
def test_it_is_lost_from_one_more_than_it_can_spare(drawn, silent) -> None:
    rule, _ = drawn
    assert rule.is_lost(silent) is (len(rule.members & silent) >= len(rule.members) - rule.count + 1)


@given(rules(), SOME, SOME)
def test_whatever_was_acknowledged_is_on_one_of_those_that_were_cut_off(drawn, silent, confirmed) -> None:
    rule, order = drawn
    before = set(confirmed) & rule.members
    if rule.is_lost(silent) and acknowledged(rule, order, set(order), before):
        assert before & silent


@given(rules(), st.sampled_from(["{}", '"{}"', " {} "]), st.sampled_from([str.upper, str.lower]))
def test_it_reads_what_it_says(drawn, quotes: str, case) -> None:
    rule, order = drawn
    names = ",".join(quotes.format(case(name)) for name in order)
    assert parse_rule(f"{case(rule.method)} {rule.count} ({names})") == rule
