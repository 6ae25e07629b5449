"""A step while it is being planned: what its file says, its action, and whether it runs at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from runbooks.findings import Findings, shorten
from runbooks.graph import Graph
from runbooks.model import ON_FAILURE, Mode, Step
from runbooks.paths import Path
from runbooks.plan import Condition
from runbooks.references import Reference
from runbooks.values import Use, Values
from tasks.contract import ActionType, Change, Kind, kind_of
from tasks.registry import action_type, names

MANUAL_BUDGET = timedelta(minutes=5)


@dataclass
class Draft:
    """One step under planning; later stages fill in what the earlier ones leave open."""

    index: int
    step: Step
    mode: Mode
    action: ActionType | None
    after: tuple[str, ...] = ()
    when: tuple[Condition, ...] = ()
    filled: Mapping[str, Any] = field(default_factory=dict)
    uses: tuple[Use, ...] = ()
    """References to steps in `with`."""
    manual: str | None = None
    handles: list[str] = field(default_factory=list)
    on_failure: str = "ask"
    covered_by: list[str] = field(default_factory=list)
    fenced_by: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The step's id."""
        return self.step.id

    @property
    def path(self) -> Path:
        """Where the step stands in the file."""
        return ("steps", self.index)

    @property
    def kind(self) -> Kind | Literal["manual"]:
        """probe, change or manual."""
        return kind_of(self.action) if self.action is not None else "manual"

    @property
    def change(self) -> type[Change[Any]] | None:
        """Its action, if that mutates the world."""
        return self.action if self.action is not None and issubclass(self.action, Change) else None

    @property
    def never(self) -> bool:
        """Whether it is left out of every run in this mode."""
        wrong_mode = any(one.subject == "mode" and self.mode.value not in one.values for one in self.when)
        return wrong_mode or (self.mode is Mode.drill and self.step.drill == "skip")

    @property
    def acts(self) -> bool:
        """Whether it can change the world in this mode (a dry run is judged as the live run it rehearses)."""
        simulated = self.mode is Mode.drill and self.step.drill == "simulate"
        return self.change is not None and not self.never and not simulated

    @property
    def repoints(self) -> bool:
        """Whether it leads connections to the new primary."""
        return not self.never and (self.step.does == "repoint" or (self.change is not None and self.change.repoints))

    @property
    def starts_consumers(self) -> bool:
        """Whether it starts consumers or scheduled jobs."""
        declared = self.change is not None and self.change.starts_consumers
        return not self.never and (self.step.does == "start-consumers" or declared)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What must hold for it to run, beside the mode."""
        return tuple(one for one in self.when if one.subject != "mode")

    @property
    def budget(self) -> timedelta:
        """Its share of the RTO."""
        if self.step.budget is not None:
            return self.step.budget
        return self.action.budget if self.action is not None else MANUAL_BUDGET

    @property
    def timeout(self) -> timedelta:
        """When the engine gives up on it."""
        return self.step.timeout if self.step.timeout is not None else self.budget

    @property
    def title(self) -> str:
        """What people read."""
        if self.step.title is not None:
            return self.step.title
        if self.action is None:
            return self.manual or self.id
        return self.action.summary or next(iter((self.action.__doc__ or self.action.name).strip().splitlines())).rstrip(
            "."
        )


@dataclass(frozen=True)
class Board:
    """All drafts of a runbook by id, in the order of the file, how they hang together, and what is wrong with them."""

    drafts: Mapping[str, Draft]
    graph: Graph
    findings: Findings

    def add(self, path: Path, message: str, *, key: bool = False) -> None:
        """Note a problem."""
        self.findings.add(path, message, key=key)

    def nearest(self, step: str) -> str:
        """Suggest the step that was meant, as the end of a message."""
        return self.findings.names.nearest(step, self.drafts)


def implied(condition: Condition, by: tuple[Condition, ...]) -> bool:
    """Whether one of the conditions `by` makes this one true."""
    return any(
        one.subject == condition.subject and set(map(_key, one.values)) <= set(map(_key, condition.values))
        for one in by
    )


def _key(value: Any) -> tuple[str, Any]:
    return type(value).__name__, value  # 1 is not true


def runs_whenever(one: Draft, other: Draft) -> bool:
    """Whether `one` runs on every run on which `other` does, as far as `when` and `drill` decide."""
    return other.never or (not one.never and all(implied(condition, other.conditions) for condition in one.conditions))


def draft(index: int, step: Step, mode: Mode, values: Values) -> Draft:
    """Look up the action and fill in what is known; note what is wrong with the step by itself."""
    path: Path = ("steps", index)
    findings = values.findings
    found = Draft(index, step, mode, _action(step, path, findings))
    if step.uses is None and step.manual is None:
        findings.add(path, "says neither `uses` (an action) nor `manual` (what a person does)")
    elif step.uses is not None and step.manual is not None:
        findings.add((*path, "manual"), "a step has either `uses` or `manual`, not both", key=True)
    for name, given in (("with", step.with_), ("retry", step.retry)):
        if step.uses is None and given:
            findings.add((*path, name), "only an action has it; a manual step is text and a confirmation", key=True)
    if step.does is not None and found.action is not None and found.change is None:
        findings.add((*path, "does"), f"{step.uses} is a probe and changes nothing; put it on the step that does it", key=True)
    if step.id in ON_FAILURE:
        findings.add((*path, "id"), f"'{step.id}' is a word of on_failure; call the step something else")
    if step.manual is not None:
        values.check(step.manual, (*path, "manual"), {"inputs", "target"})
        found.manual = str(values.fill(step.manual, (*path, "manual")) or "")
    scopes = {"inputs", "target", "steps", "env", "file", "run"}
    uses = values.check(step.with_, (*path, "with"), scopes)
    found.uses = tuple(use for use in uses if use.reference.scope == "steps")
    found.filled = values.fill(step.with_, (*path, "with"))
    found.on_failure = step.on_failure or ("halt" if found.change is not None and found.change.fences else "ask")
    if found.timeout < found.budget:
        findings.warn(
            (*path, "timeout"), "is shorter than the budget, so the step never has its whole budget", key=True
        )
    asks = found.on_failure == "ask" or (found.change is not None and not found.change.reversible)  # in doubt it always does
    if step.ask_timeout is not None and not asks:
        findings.warn((*path, "ask_timeout"), f"nobody is asked, because on_failure is {found.on_failure}", key=True)
    for name, time in (("budget", step.budget), ("timeout", step.timeout), ("ask_timeout", step.ask_timeout)):
        if time is not None and time <= timedelta(0):
            findings.add((*path, name), "must be longer than 0s")
    return found


def _action(step: Step, path: Path, findings: Findings) -> ActionType | None:
    if step.uses is None:
        return None
    try:
        found = action_type(step.uses)
    except Exception as error:  # noqa: BLE001 - importing somebody else's module
        findings.add((*path, "uses"), f"'{step.uses}' cannot be loaded: {type(error).__name__}: {error}")
        return None
    if found is None:
        findings.add(
            (*path, "uses"), f"there is no action {shorten(step.uses)}{findings.names.nearest(step.uses, names())}"
        )
    return found


def reference_to(step: str, *fields: str) -> Reference:
    """`${steps.step.field}`."""
    return Reference("steps", (step, *fields))
