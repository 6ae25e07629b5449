"""Small pure rules that the core asks: conditions, rollback order, the verdict, the question of a manual step."""

from __future__ import annotations

from typing import Any

from flows.events import Status, Verdict
from flows.fencing import warnings
from flows.state import ExecutionState
from runbooks.model import Approval, Mode
from runbooks.plan import PREFLIGHT, Condition, GateRule, Plan, PlannedStep, change_type, is_change
from runbooks.references import Reference
from tasks.durations import LONGEST


def condition_holds(condition: Condition, state: ExecutionState, plan: Plan) -> bool:
    """Whether a `when` holds. In a dry run what only a real outage would tell counts as so."""
    if condition.subject == "mode":
        return plan.mode.value in condition.values
    if plan.mode is Mode.dry_run:
        return True
    return output_value(condition.subject, state) in condition.values


def output_value(reference: Reference, state: ExecutionState) -> Any:
    """A field of a finished step's output; None when it is not there."""
    value: Any = state.step(reference.path[0]).output
    for part in reference.path[1:]:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def manual_gate(step: PlannedStep) -> GateRule:
    """The question of a manual step: it is a gate of the step's own name, and saying yes means 'I did it'."""
    rule = Approval(title=step.manual, timeout=step.timeout, valid_for=LONGEST)  # what was done by hand stays done
    return GateRule(name=step.id, step=step.id, covers=(), rule=rule)


def changes(plan: Plan) -> tuple[PlannedStep, ...]:
    """The steps that this run will carry out and that change something; in a dry run those that a live one would."""
    left_out = {"simulate", "skip"} if plan.mode is Mode.drill else set()
    return tuple(step for step in plan.steps if is_change(step) and step.drill not in left_out)


def preflight_gate(plan: Plan) -> GateRule:
    """The engine's own gate over every change, for when the preflight found problems."""
    covers = tuple(step.id for step in changes(plan))
    title = "Preflight found problems. Go on all the same?"
    return GateRule(PREFLIGHT, covers[0], covers, Approval(title=title))


def gate_rule(plan: Plan, name: str) -> GateRule:
    """A gate of the plan, the preflight's, or the question of a manual step; raises KeyError for anything else."""
    if name == PREFLIGHT:
        return preflight_gate(plan)
    return plan.gate_by_name.get(name) or manual_gate(plan.by_id[name])


def rollback_order(plan: Plan, state: ExecutionState) -> tuple[tuple[str, ...], dict[str, str]]:
    """What to undo, last change first, and what cannot be undone with the reason.

    Must never happen: undoing something that a step past the point of no return builds on. So nothing that was changed
    before such a step is undone.
    """
    changed = [
        (record.acted_at, step)
        for step in plan.steps
        if is_change(step) and (record := state.step(step.id)).acted_at is not None and not record.unchanged
    ]
    changed.sort(key=lambda pair: pair[0], reverse=True)
    order: list[str] = []
    left: dict[str, str] = {}
    beyond = ""
    for _, step in changed:
        kind = change_type(step)
        if kind is None:
            continue
        if beyond:
            left[step.id] = f"lies before {beyond}, from where there is no way back but a new failover"
        elif kind.point_of_no_return:
            beyond = step.id
            left[step.id] = "is the point of no return"
        elif not kind.reversible:
            left[step.id] = f"{step.uses} cannot be undone"
        else:
            order.append(step.id)
    return tuple(order), left


def verdict_of(plan: Plan, state: ExecutionState) -> tuple[Verdict, str]:
    """What became of an execution in which nothing more will happen, and the sentence that says why."""
    verdict, detail = _verdict_of(plan, state)
    return verdict, "; ".join((*warnings(state), detail))


def _verdict_of(plan: Plan, state: ExecutionState) -> tuple[Verdict, str]:
    by_status: dict[Status, list[str]] = {}
    for step in plan.steps:
        status = state.step(step.id).status
        if status is not None:
            by_status.setdefault(status, []).append(step.id)
    bad = {status: names for status, names in by_status.items() if not status.lets_go_on}
    goal = [state.step(name).status for name in plan.runbook.recovered_when]
    if state.rollback is not None:
        stuck = {name: state.step(name).detail for name in state.rollback.steps if state.step(name).status is Status.failed}
        left = "; ".join(f"{name}: {why}" for name, why in {**stuck, **state.rollback.left}.items())
        return Verdict.rolled_back, f"rolled back; not undone: {left}" if left else "rolled back"
    if plan.mode is Mode.dry_run:
        names = [name for names in bad.values() for name in names]
        said = _first_detail(plan, state, names)
        return (Verdict.failed, f"could not run: {said}") if names else (Verdict.would, "nothing was changed")
    if all(status in {Status.done, Status.already} for status in goal):
        names = [name for names in bad.values() for name in names]
        return Verdict.recovered, f"recovered, though: {_first_detail(plan, state, names)}" if names else "recovered"
    if not bad and all(status is Status.skipped for status in goal):
        return Verdict.no_action, state.step(plan.runbook.recovered_when[0]).detail
    if not bad and all(status is not None and status.lets_go_on for status in goal):
        if any(status is Status.would for status in goal):
            return Verdict.would, "simulated"
        return Verdict.recovered, "recovered; some of the checks were skipped"
    kind = Verdict.refused if set(bad) == {Status.refused} else Verdict.failed
    return kind, _first_detail(plan, state, [name for names in bad.values() for name in names]) or "the goal was not reached"


def _first_detail(plan: Plan, state: ExecutionState, names: list[str]) -> str:
    ordered = [step.id for step in plan.steps if step.id in names]
    return "; ".join(f"{name}: {state.step(name).detail}" for name in ordered[:3])
