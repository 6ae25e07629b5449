"""The stop rule is three-valued and pure: fit, unfit, or not known yet."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.http import Limits
from tasks.soaking import Rule, Sample, judge

GOOD = Sample(ms=10.0, good=True, error=False)
ERROR = Sample(ms=None, good=False, error=True)
WRONG = Sample(ms=10.0, good=False, error=False)
SLOW = Sample(ms=900.0, good=True, error=False)
RULE = Rule(Limits(), minimum=20, latest=100)


def verdict(*samples: Sample, rule: Rule = RULE) -> tuple[bool, bool]:
    said = judge(samples, rule)
    return said.fit, said.unfit is not None


def test_nothing_is_judged_before_the_minimum() -> None:
    assert verdict(*[GOOD] * 19) == (False, False)
    assert verdict(*[ERROR] * 19) == (False, False)
    assert verdict(*[GOOD] * 20) == (True, False)
    assert verdict(*[ERROR] * 20) == (False, True)


def test_one_lost_packet_among_the_first_neither_stops_nor_lets_go_on() -> None:
    assert verdict(ERROR, *[GOOD] * 19) == (False, False)
    assert verdict(ERROR, *[GOOD] * 98) == (False, False)
    assert verdict(ERROR, *[GOOD] * 99) == (True, False)
    assert verdict(ERROR, ERROR, *[GOOD] * 18) == (False, True)


def test_wrong_answers_and_slow_ones_count_too() -> None:
    assert verdict(WRONG, WRONG, *[GOOD] * 50) == (False, True)
    assert verdict(*[SLOW] * 5, *[GOOD] * 95) == (True, False)
    assert verdict(*[SLOW] * 6, *[GOOD] * 94) == (False, True)
    assert judge([SLOW] * 30, RULE).unfit == "p95 900 ms of 30 requests, limit 500 ms"


def test_only_the_latest_requests_count() -> None:
    assert verdict(*[ERROR] * 50, *[GOOD] * 100) == (True, False)
    assert verdict(*[GOOD] * 1000, *[ERROR] * 2) == (False, True)


SAMPLES = st.lists(st.sampled_from([GOOD, GOOD, GOOD, ERROR, WRONG, SLOW]), max_size=150)
RULES = st.builds(
    lambda error, success, minimum, more: Rule(
        Limits(max_error_rate=error, min_success_rate=success, max_p95=timedelta(milliseconds=500)), minimum, minimum + more
    ),
    st.sampled_from([0.0, 0.01, 0.1, 0.5]), st.sampled_from([0.5, 0.9, 0.99, 1.0]), st.integers(1, 60), st.integers(0, 60),
)  # fmt: skip


@given(SAMPLES, RULES)
def test_it_is_never_fit_and_unfit_and_a_full_window_is_always_one_of_them(samples: list[Sample], rule: Rule) -> None:
    said = judge(samples, rule)
    assert not (said.fit and said.unfit)
    if len(samples) >= rule.latest:
        assert said.fit or said.unfit


@given(SAMPLES, RULES)
def test_what_is_unfit_early_could_not_have_become_fit_within_the_window(samples: list[Sample], rule: Rule) -> None:
    if len(samples) <= rule.latest and judge(samples, rule).unfit:
        assert not judge([*samples, *[GOOD] * (rule.latest - len(samples))], rule).fit


@pytest.mark.parametrize("rate", [0.01, 0.07, 0.29, 0.57])
def test_binary_fractions_do_not_cost_a_request(rate: float) -> None:
    rule = Rule(Limits(max_error_rate=rate, min_success_rate=0.01, max_p95=timedelta(seconds=1)), 100, 100)
    lost = round(rate * 100)
    late = Sample(ms=1.0, good=True, error=True)
    assert verdict(*[late] * lost, *[GOOD] * (100 - lost), rule=rule) == (True, False)
