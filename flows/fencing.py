"""Which fences a promotion leans on, and what became of each. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from flows.events import Status
from flows.state import ExecutionState
from runbooks.plan import Plan, PlannedStep, change_type
from tasks.contract import Seen


@dataclass(frozen=True)
class Standing:
    """The fences before a step: those to look at again, those that are not in place, those that people overrode."""

    held: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()


def is_fence(plan: Plan, name: str) -> bool:
    """Whether a step of the plan is a fence."""
    step = plan.by_id.get(name)
    kind = change_type(step) if step is not None else None
    return kind is not None and kind.fences


def fences_before(step: PlannedStep, state: ExecutionState) -> Standing:
    """Sort a step's fences. A fence that was skipped is missing, unless it was overridden by two people."""
    held, missing, overridden = [], [], []
    for name in step.fenced_by:
        record = state.step(name)
        if record.status in {Status.done, Status.already}:
            held.append(name)
        elif record.status is Status.skipped and record.overridden:
            overridden.append(name)
        else:
            missing.append(name)
    return Standing(tuple(held), tuple(missing), tuple(overridden))


def last_seen(names: Sequence[str], plan: Plan, state: ExecutionState) -> Mapping[str, Seen[Any]]:
    """What fences that hold told at their end, as far as this version can read it."""
    found = {}
    for name in names:
        kind, record = change_type(plan.by_id[name]), state.step(name)
        if kind is not None and record.output is not None and record.finished is not None:
            with suppress(ValidationError):
                found[name] = Seen(kind.state_type().model_validate(record.output), record.finished)
    return found


def warnings(state: ExecutionState) -> tuple[str, ...]:
    """What must stand above everything else: each fence that was overridden."""
    return tuple(f"{name}: {record.overridden}" for name, record in state.steps.items() if record.overridden)


def failed_fences(plan: Plan, state: ExecutionState) -> tuple[str, ...]:
    """The fences that were tried and do not hold; a gate's no is an answer and not among them."""
    from flows.turn import GATE  # here, because turn needs the rules, which need this module

    return tuple(
        step.id
        for step in plan.steps
        if is_fence(plan, step.id)
        and (record := state.step(step.id)).status is not None
        and not record.lets_go_on
        and record.code != GATE
    )


def unfenced(names: Sequence[str], state: ExecutionState) -> str:
    """The sentence for a change that leans on overridden fences; empty when there is none."""
    return "; ".join(state.step(name).overridden for name in names if state.step(name).overridden)
