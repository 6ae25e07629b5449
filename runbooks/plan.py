"""The plan: a runbook whose every action, input, reference, order and budget has been checked (by `runbooks.planner`).

What only a later step will know stays a reference in `PlannedStep.arguments` and is resolved by `PlannedStep.action`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from runbooks.model import Approval, Mode, Retry, Runbook
from runbooks.problems import Place, Problem, RunbookError
from runbooks.references import Reference, replace
from tasks.contract import Action, ActionType, Change, Kind, kind_of

PREFLIGHT = "preflight"
"""The engine's own gate, which opens when a look before the first change found problems; no runbook may use the name."""
ASK_TIMEOUT = timedelta(minutes=15)
"""How long a failed step waits for a person when the runbook does not say."""


@dataclass(frozen=True)
class Condition:
    """`when`: one fact that must have one of these values. `subject` is 'mode' or a reference to a step's output."""

    subject: Literal["mode"] | Reference
    values: tuple[Any, ...]


@dataclass(frozen=True)
class GateRule:
    """A gate as planned: the step it stands on, everything it covers (that step first) and its rule."""

    name: str
    step: str
    covers: tuple[str, ...]
    rule: Approval


@dataclass(frozen=True)
class PlannedStep:
    """One step, ready to be carried out but for what earlier steps and the environment will tell."""

    id: str
    title: str
    place: Place
    kind: Kind | Literal["manual"]
    uses: str | None
    action_type: ActionType | None
    arguments: Mapping[str, Any]
    """Inputs with inputs and targets filled in; references to steps, env, file and run still stand."""
    manual: str | None
    after: tuple[str, ...]
    when: tuple[Condition, ...]
    gates: tuple[str, ...]
    """Names of every gate that covers this step, its own first."""
    budget: timedelta
    timeout: timedelta
    retry: Retry
    on_failure: str
    """ask, halt, continue, roll-back, or the id of a step."""
    handles: tuple[str, ...]
    """Steps whose failure leads here; it then runs only if one of them failed."""
    drill: Literal["run", "simulate", "skip"]
    fenced_by: tuple[str, ...]
    """For a step that makes a writer: the fences before it, which must hold right before it acts."""
    ask_timeout: timedelta = ASK_TIMEOUT
    """How long people are waited for when it failed and `on_failure` is ask; then the execution goes no further."""

    def action_so_far(self, look_up: Callable[[Reference], Any]) -> Action[Any] | None:
        """Build the action without the optional inputs that cannot be looked up yet; None when that is not possible."""
        if self.action_type is None:
            return None
        known: dict[str, Any] = {}
        for name, value in self.arguments.items():
            try:
                known[name] = replace(value, look_up)
            except LookupError:
                if self.action_type.model_fields[name].is_required():
                    return None
        if len(known) == len(self.arguments):
            return self.action(look_up)
        try:
            return self.action_type.model_validate(known)
        except ValidationError:
            return None

    def action(self, look_up: Callable[[Reference], Any]) -> Action[Any]:
        """Build the action with every reference looked up; raises RunbookError when a value does not fit."""
        if self.action_type is None:
            raise TypeError(f"{self.id} is done by a person, not by an action")
        values = replace(self.arguments, look_up)
        try:
            return self.action_type.model_validate(values)
        except ValidationError as error:
            problems = []
            for one in error.errors(include_input=False, include_url=False):  # the input may be a secret
                where = "".join(f".{part}" for part in one["loc"])
                problems.append(Problem(self.place, f"step {self.id}.with{where}", one["msg"]))
            raise RunbookError(problems) from None


@dataclass(frozen=True)
class CriticalPath:
    """The longest chain of budgets and gates to recovery: (what, time) in order, and their sum."""

    parts: tuple[tuple[str, timedelta], ...]
    total: timedelta


@dataclass(frozen=True)
class Plan:
    """A checked runbook for one mode and one set of inputs. `hash` pins all of it."""

    runbook: Runbook
    text: str
    file: str
    mode: Mode
    inputs: Mapping[str, Any]
    """JSON values, defaults filled in."""
    rto: timedelta
    rpo: timedelta | None
    steps: tuple[PlannedStep, ...]
    """In an order in which each step stands after everything it waits for."""
    gates: tuple[GateRule, ...]
    critical_path: CriticalPath
    hash: str
    warnings: tuple[Problem, ...] = field(default=())

    @cached_property
    def by_id(self) -> Mapping[str, PlannedStep]:
        """Steps by id."""
        return {step.id: step for step in self.steps}

    @cached_property
    def gate_by_name(self) -> Mapping[str, GateRule]:
        """Gates by name."""
        return {gate.name: gate for gate in self.gates}

    @cached_property
    def guards_loss(self) -> Mapping[str, tuple[str, ...]]:
        """For each gate the steps behind it that may lose data: its approval must accept what is over the RPO.

        Of several gates that cover such a step the first one guards it, its own if it has one.
        """
        lossy = [(step.gates[0], step.id) for step in self.steps if step.gates and may_lose(step)]
        return {gate.name: tuple(step for name, step in lossy if name == gate.name) for gate in self.gates}

    @cached_property
    def dependents(self) -> Mapping[str, tuple[str, ...]]:
        """For each step the steps that name it in `after`."""
        return {step.id: tuple(other.id for other in self.steps if step.id in other.after) for step in self.steps}


def look_up_in(
    outputs: Mapping[str, BaseModel | Mapping[str, Any]],
    run: Mapping[str, str],
    environ: Mapping[str, str] | None = None,
) -> Callable[[Reference], Any]:
    """Resolve what the plan left open: outputs of steps, facts of the run, secrets of the environment.

    outputs: finished steps' states, by step id. run: id, mode, service, … as text. Raises LookupError with a sentence
    that names the reference, never a value.
    """
    environment = os.environ if environ is None else environ

    def look_up(reference: Reference) -> Any:
        if reference.scope == "env":
            if reference.path[0] not in environment:
                raise LookupError(f"{reference}: the environment has no variable {reference.path[0]}")
            return environment[reference.path[0]]
        if reference.scope == "file":
            try:
                return Path(reference.path[0]).read_text(encoding="utf-8").rstrip("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise LookupError(f"{reference}: cannot be read ({type(error).__name__})") from None
        if reference.scope == "run":
            return run[reference.path[0]]
        if reference.scope != "steps" or reference.path[0] not in outputs:
            raise LookupError(f"{reference}: not known yet")
        value: Any = outputs[reference.path[0]]
        for part in reference.path[1:]:
            value = _part(value, part)
        return value

    return look_up


def _part(value: Any, name: str) -> Any:
    """One part of an output: a field, an entry, or an item by its number; None when it has none."""
    if isinstance(value, Mapping):
        return value.get(name)
    if isinstance(value, list | tuple):
        return value[int(name)] if name.isdecimal() and int(name) < len(value) else None
    return getattr(value, name, None)


def is_change(step: PlannedStep) -> bool:
    """Whether the step mutates the world through an action."""
    return step.action_type is not None and kind_of(step.action_type) == "change"


def may_lose(step: PlannedStep) -> bool:
    """Whether the step may lose acknowledged data."""
    change = change_type(step)
    return change is not None and change.loses


def change_type(step: PlannedStep) -> type[Change[Any]] | None:
    """The step's change, or None for probes and manual steps."""
    kind = step.action_type
    return kind if kind is not None and issubclass(kind, Change) else None
