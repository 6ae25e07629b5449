"""Grade an incident by declared rules: how bad it is, and whether to evacuate, repair or wait."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import ClassVar, Literal

from pydantic import Field

from tasks.clients import Clients
from tasks.contract import Frozen, Mark, Probe
from tasks.signals import Reading, Says

Severity = Literal["P1", "P2", "P3", "P4"]
Disposition = Literal["evacuate", "repair", "wait"]
Fact = bool | int | float | str | None


class When(Frozen):
    """Conditions of a rule; all that are given must hold. Down means dead or silent."""

    outage: bool | None = Field(None, description="Whether detect.outage confirmed an outage.")
    all_down: tuple[str, ...] = Field((), description="Signals that must all be down.")
    any_down: tuple[str, ...] = Field((), description="Signals of which at least one must be down.")
    up: tuple[str, ...] = Field((), description="Signals that must all be up.")
    dead: tuple[str, ...] = Field((), description="Signals that must all be dead: proven, not only silent.")
    silent: tuple[str, ...] = Field((), description="Signals that must all be silent.")
    down_at_least: int | None = Field(None, description="How many signals at least must be down.", ge=1)
    facts: Mapping[str, Fact | tuple[Fact, ...]] = Field(
        default_factory=dict, description="Facts and the value, or one of the values, each must have."
    )


class Rule(Frozen):
    """One line of the severity table."""

    severity: Severity = Field(description="P1 (critical) to P4 (low).")
    disposition: Disposition = Field(description="evacuate (fail over), repair (in place) or wait.")
    reason: str = Field(description="Why, for people.", min_length=1)
    when: When = Field(When(), description="When the rule applies; empty: always.")


class Assessment(Frozen):
    """How bad it is and what to do about it."""

    severity: Severity = Field(description="P1 (critical) to P4 (low).")
    disposition: Disposition = Field(description="evacuate, repair or wait.")
    reasons: tuple[str, ...] = Field(description="The rule's reason, then what it rests on.")
    rule: int | None = Field(description="Index of the rule that matched, from 0; null when none did.")


class AssessSeverity(Probe[Assessment]):
    """Grade the incident P1 to P4 and choose evacuate, repair or wait by rules.

    The first rule that fits wins. When none fits it is P4 and wait. `repair` and `wait` end the run without a change.
    """

    name: ClassVar[str] = "assess.severity"
    budget: ClassVar[timedelta] = timedelta(seconds=5)

    rules: tuple[Rule, ...] = Field(description="The severity table; the first rule that fits wins.")
    signals: tuple[Reading, ...] = Field(
        (), description="What detect.outage saw.", examples=["${steps.detect.signals}"]
    )
    outage: bool | None = Field(None, description="What detect.outage found.", examples=["${steps.detect.outage}"])
    facts: Mapping[str, Fact] = Field(
        default_factory=dict,
        description="More to go by, such as inputs.",
        examples=[{"region_lost": "${inputs.region_lost}"}],
    )

    def observe(self, clients: Clients) -> Assessment:
        """Apply the rules; asks nobody."""
        for index, rule in enumerate(self.rules):
            if self._fits(rule.when):
                return Assessment(
                    severity=rule.severity,
                    disposition=rule.disposition,
                    reasons=(rule.reason, *self._evidence(rule.when)),
                    rule=index,
                )
        unknown = self._unknown_names()
        hint = (f"rules name {', '.join(unknown)}, which is no signal",) if unknown else ()
        return Assessment(severity="P4", disposition="wait", reasons=("no rule matched", *hint), rule=None)

    def done(self, state: Assessment) -> bool:
        """Rules always give an answer."""
        return True

    def ends(self, state: Assessment) -> str | None:
        """End the run unless it is to evacuate."""
        if state.disposition == "evacuate":
            return None
        return f"{state.severity}, {state.disposition}: {state.reasons[0]}"

    def explain(self, state: Assessment) -> str:
        """Say the grade and why."""
        return f"{state.severity}, {state.disposition}: {'; '.join(state.reasons)}"

    def marks(self, state: Assessment) -> Mapping[Mark, datetime | None]:
        """Declare the disaster when it is to evacuate."""
        return {Mark.declared: None} if state.disposition == "evacuate" else {}

    def _fits(self, when: When) -> bool:
        down = {one.name for one in self.signals if one.down}
        saying = {word: {one.name for one in self.signals if one.says is word} for word in Says}
        return (
            (when.outage is None or when.outage == self.outage)
            and down.issuperset(when.all_down)
            and (not when.any_down or not down.isdisjoint(when.any_down))
            and saying[Says.up].issuperset(when.up)
            and saying[Says.dead].issuperset(when.dead)
            and saying[Says.silent].issuperset(when.silent)
            and (when.down_at_least is None or len(down) >= when.down_at_least)
            and all(self._fact_fits(name, wanted) for name, wanted in when.facts.items())
        )

    def _fact_fits(self, name: str, wanted: Fact | tuple[Fact, ...]) -> bool:
        if name not in self.facts:
            return False
        choices = wanted if isinstance(wanted, tuple) else (wanted,)
        fact = self.facts[name]
        return any(
            choice == fact and isinstance(choice, bool) == isinstance(fact, bool) for choice in choices
        )  # 1 is not true

    def _evidence(self, when: When) -> tuple[str, ...]:
        seen = tuple(f"{one.name} {one.says}: {one.detail}" for one in self.signals if one.down)
        return seen + tuple(f"{name} is {self.facts[name]}" for name in when.facts)

    def _unknown_names(self) -> tuple[str, ...]:
        known = {one.name for one in self.signals}
        named = {name for rule in self.rules for part in _names(rule.when) for name in part}
        return tuple(sorted(named - known))


def _names(when: When) -> tuple[tuple[str, ...], ...]:
    return (when.all_down, when.any_down, when.up, when.dead, when.silent)
