"""Severity by rules, as the severity table of the seeds has it."""

from __future__ import annotations

import pytest

from tasks.assess import AssessSeverity
from tasks.clients import Clients
from tasks.contract import Mark
from tasks.signals import Reading, Says

RULES = [
    {
        "severity": "P1",
        "disposition": "evacuate",
        "reason": "region lost",
        "when": {"outage": True, "all_down": ["health", "primary"], "dead": ["primary"]},
    },
    {
        "severity": "P1",
        "disposition": "evacuate",
        "reason": "declared by a person",
        "when": {"facts": {"declared": True}},
    },
    {"severity": "P2", "disposition": "repair", "reason": "partial outage", "when": {"down_at_least": 2}},
    {
        "severity": "P3",
        "disposition": "repair",
        "reason": "database slow",
        "when": {"any_down": ["primary"], "silent": ["primary"], "up": ["health"]},
    },
]


def reading(name: str, says: str) -> dict[str, object]:
    return Reading(name=name, says=Says(says), answered=True, detail="seen").model_dump(mode="json")


def assess(outage: bool | None = None, facts: dict[str, object] | None = None, **says: str) -> AssessSeverity:
    signals = [reading(name, word) for name, word in says.items()]
    return AssessSeverity.model_validate({"rules": RULES, "signals": signals, "outage": outage, "facts": facts or {}})


@pytest.mark.parametrize(
    ("step", "severity", "disposition", "rule"),
    [
        (assess(True, health="silent", primary="dead"), "P1", "evacuate", 0),
        (assess(None, health="silent", primary="dead"), "P2", "repair", 2),
        (assess(None, {"declared": True}, health="up"), "P1", "evacuate", 1),
        (assess(None, {"declared": 1}, health="up"), "P4", "wait", None),
        (assess(False, health="up", primary="silent"), "P3", "repair", 3),
        (assess(False, health="up", primary="unknown"), "P4", "wait", None),
    ],
)
def test_the_first_rule_that_fits_wins(step: AssessSeverity, severity: str, disposition: str, rule: int | None) -> None:
    state = step.observe(Clients())
    assert (state.severity, state.disposition, state.rule) == (severity, disposition, rule)
    assert step.done(state)


def test_only_evacuate_goes_on_and_declares() -> None:
    evacuate = assess(True, health="silent", primary="dead")
    assert evacuate.ends(evacuate.observe(Clients())) is None
    assert list(evacuate.marks(evacuate.observe(Clients()))) == [Mark.declared]
    wait = assess(health="up")
    assert wait.ends(wait.observe(Clients())) == "P4, wait: no rule matched"
    assert wait.marks(wait.observe(Clients())) == {}


def test_the_reasons_say_what_they_rest_on() -> None:
    state = assess(True, health="silent", primary="dead").observe(Clients())
    assert state.reasons == ("region lost", "health silent: seen", "primary dead: seen")


def test_a_name_that_is_no_signal_is_told_when_nothing_matched() -> None:
    state = assess(health="up").observe(Clients())
    assert state.reasons[1] == "rules name primary, which is no signal"


def test_one_of_several_values_of_a_fact_is_enough() -> None:
    rule = {"severity": "P2", "disposition": "repair", "reason": "r", "when": {"facts": {"tier": ["gold", "silver"]}}}
    for tier, expected in (("gold", "P2"), ("bronze", "P4")):
        step = AssessSeverity.model_validate({"rules": [rule], "facts": {"tier": tier}})
        assert step.observe(Clients()).severity == expected
