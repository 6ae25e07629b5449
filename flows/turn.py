"""One turn of the core: the types that decisions are made on, and the few primitive moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from flows.events import Event
from flows.messages import Command, Failure, Look, Write
from flows.rules import gate_rule
from flows.state import ExecutionState, apply
from runbooks.model import Mode
from runbooks.plan import GateRule, Plan, PlannedStep
from tasks.contract import Seen

GATE = "gate"
"""Code of a refusal that came from people: it is an answer, so nobody is asked again."""
IN_DOUBT = "in-doubt"
"""Code of a failure after which people are asked, whatever the runbook says of failures: see `flows.outcomes.failed`."""


class Phase(StrEnum):
    """Where an attempt stands; volatile, because after a crash every attempt begins with a look."""

    looking = "looking"
    gated = "gated"
    acting = "acting"
    verifying = "verifying"


@dataclass(frozen=True)
class Attempt:
    """One try at a step in this process."""

    number: int
    deadline: datetime
    phase: Phase = Phase.looking
    busy: bool = False
    """A look or an act is out; at most one at a time."""
    due: datetime | None = None
    """When the next look is to go out."""
    seen: Seen[Any] | None = None
    last: Look | None = None
    """The look that `seen` came from."""
    streak: int = 0
    steady_since: datetime | None = None
    fresh: bool = False
    """The look that comes next was asked for after the gate opened: acting may follow it."""
    acts: int = 0
    last_act: datetime | None = None
    paused: timedelta | None = None
    """What is left of the timeout while people decide."""
    trouble: str = ""
    refused: Failure | None = None
    """The world's final no to an act; one more look decides whether it happened all the same."""


@dataclass(frozen=True)
class Core:
    """Everything a decision needs: the plan, the durable state and the attempts of this process."""

    plan: Plan
    state: ExecutionState
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    undoing: str | None = None
    undo_until: datetime | None = None
    """When the undo that is out is given up."""
    checks: bool = False
    """Whether a preflight must come before the first change."""
    checking: bool = False
    """The preflight was asked for in this process."""
    ended: bool = False
    """Nothing more will happen in this process."""
    heard: datetime | None = None
    """What people said until then is known, and that the kill switch was off; None: all until now."""


class Turn:
    """Collects commands while the core changes; lives for one call of `react`."""

    def __init__(self, core: Core, now: datetime) -> None:
        self.core = core
        self.now = now
        self.commands: list[Command] = []

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.core.plan

    @property
    def state(self) -> ExecutionState:
        """The durable state, with everything that this turn wrote."""
        return self.core.state

    def write(self, event: Event) -> None:
        """Announce an event: the state has it at once, the journal before the next command."""
        self.core = replace(self.core, state=apply(self.core.state, event))
        self.commands.append(Write(event))

    def set(self, step: str, attempt: Attempt | None) -> None:
        """Keep or drop a step's attempt."""
        attempts = {name: known for name, known in self.core.attempts.items() if name != step}
        self.core = replace(self.core, attempts=attempts if attempt is None else {**attempts, step: attempt})

    def change(self, step: str, **fields: Any) -> Attempt:
        """Change a step's attempt; give it."""
        attempt = replace(self.core.attempts[step], **fields)
        self.set(step, attempt)
        return attempt

    def rule(self, gate: str) -> GateRule:
        """A gate of the plan, the preflight's, or the question of a manual step."""
        return gate_rule(self.plan, gate)

    @property
    def heard(self) -> datetime:
        """Silence counts until then: what was said in time may be read later."""
        return self.now if self.core.heard is None else min(self.now, self.core.heard)

    @property
    def stopping(self) -> bool:
        """Whether somebody asked to stop."""
        return self.state.stop is not None

    def may_change(self) -> bool:
        """Whether a change may still start. Must be asked before every act."""
        return not self.stopping and self.state.rollback is None and self.plan.mode is not Mode.dry_run


def interval(step: PlannedStep) -> timedelta:
    """Pause between two looks at a step."""
    return step.action_type.interval if step.action_type is not None else timedelta(seconds=1)
