"""A step made ready to be carried out: its inputs filled in, its way to the world opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flows.fencing import fences_before, last_seen
from flows.lease_keeper import CALL
from flows.secrets import Secrets
from flows.state import ExecutionState
from flows.step import Work
from runbooks.model import Mode
from runbooks.plan import Plan, PlannedStep, is_change, look_up_in
from runbooks.references import Reference
from tasks.clients import Clients
from tasks.contract import Action

SHORTEST = timedelta(milliseconds=200)
"""Time-out of a call in a step of a very short one."""


@dataclass(frozen=True)
class Preparer:
    """Of one engine. guard: before every call; permit: before every act. Both raise Revoked."""

    execution: str
    plan: Plan
    secrets: Secrets
    environ: Mapping[str, str] | None
    guard: Callable[[], None]
    permit: Callable[[], None]

    def work(self, step: PlannedStep, state: ExecutionState) -> Work:
        """All that a look or an act at a step needs. Raises what filling in raises; it becomes the step's outcome."""
        action = self.action(step, state)
        standing = fences_before(step, state)
        fences = {name: self.action(self.plan.by_id[name], state) for name in standing.held}
        timeout = min(CALL, max(step.timeout / 2, SHORTEST))
        return Work(
            action, Clients(self.guard, timeout), fences, standing.missing, standing.overridden,
            not needs_act(self.plan.mode, step), last_seen(standing.held, self.plan, state), self.permit,
        )  # fmt: skip

    def action(self, step: PlannedStep, state: ExecutionState) -> Action[Any]:
        """The step's action with every reference resolved."""
        return step.action(self.look_up(state))

    def look_up(self, state: ExecutionState) -> Callable[[Reference], Any]:
        """What references stand for now; secrets are learned, so that they can be taken out of what is written."""
        outputs = {name: record.output for name, record in state.steps.items() if record.output is not None}
        outputs = {name: {} for name, record in state.steps.items() if record.overridden} | outputs  # it told nothing
        look_up = look_up_in(outputs, self._facts(state), self.environ)

        def remember(reference: Reference) -> Any:
            value = look_up(reference)
            return self.secrets.learn(value) if reference.secret else value

        return remember

    def _facts(self, state: ExecutionState) -> dict[str, str]:
        started = state.started
        if started is None:
            return {}
        return {
            "id": self.execution, "mode": started.mode.value, "service": started.service, "runbook": started.runbook,
            "started_at": started.at.isoformat(), "initiator": started.initiator,
        }  # fmt: skip


def needs_act(mode: Mode, step: PlannedStep) -> bool:
    """Whether the step is really carried out in this mode; else it is only looked at and described."""
    return mode is not Mode.dry_run and not (mode is Mode.drill and step.drill != "run")


def needs_lease(mode: Mode, step: PlannedStep) -> bool:
    """Whether carrying the step out in this mode changes something."""
    return is_change(step) and needs_act(mode, step)
