"""From a runbook to a plan: names to actions, inputs and targets to values, the graph, the rules, the budgets.

All problems at once, each with its place. The same for every mode: a drill is judged on drill targets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from runbooks import lint
from runbooks.arguments import Arguments, check_arguments
from runbooks.conditions import check_mode, check_when
from runbooks.drafts import Draft, draft
from runbooks.drilling import can_drill, check_drill
from runbooks.fields import Types
from runbooks.findings import Findings, Names
from runbooks.gating import check_gates
from runbooks.graph import Graph
from runbooks.inputs import read_inputs
from runbooks.loader import Loaded
from runbooks.model import InputType, Mode, Retry
from runbooks.plan import GateRule, Plan, PlannedStep
from runbooks.problems import Problem, RunbookError
from runbooks.stray import check_stray_references
from runbooks.tiers import by_name
from runbooks.values import Values
from runbooks.wiring import check_use, lead_failures, source_of, wire

_OPEN_INPUTS: Mapping[InputType, Types] = {
    InputType.text: (str,),
    InputType.choice: (str,),
    InputType.integer: (int,),
    InputType.number: (float,),
    InputType.boolean: (bool,),
    InputType.duration: (timedelta, str),
    InputType.time: (datetime, str),
    InputType.list: (list[str],),
}


@dataclass(frozen=True)
class Checked:
    """What `failover check` found in a runbook over all modes."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def plan(
    loaded: Loaded, *, mode: Mode, inputs: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> Plan:
    """Plan a runbook for one mode and one set of inputs; raises RunbookError with every problem.

    inputs: by name, typed as JSON or as text from a command line ('90s', 'true', '2026-11-21T03:04:05Z'). environ: where
    given, every ${env.NAME} and ${file.PATH} must be there now, before anything starts.
    """
    findings = Findings(loaded.tree)
    answers = read_inputs(loaded.runbook.inputs, inputs, findings)
    planned = _plan(loaded, mode, answers, environ, findings)
    if findings.problems:
        raise RunbookError(findings.problems)
    return planned


def check(loaded: Loaded) -> tuple[Problem, ...]:
    """Every problem that a runbook has in any mode, with inputs at their defaults or left open."""
    return examine(loaded).problems


def examine(loaded: Loaded) -> Checked:
    """Problems and warnings of a runbook over all modes; a drill counts only where drill targets are given."""
    problems: dict[Problem, None] = {}
    warnings: dict[Problem, None] = {}
    for mode in Mode:
        if mode is Mode.drill and not can_drill(loaded.runbook):
            continue
        findings = Findings(loaded.tree)
        answers = read_inputs(loaded.runbook.inputs, {}, findings, leave_open=True)
        _plan(loaded, mode, answers, None, findings)
        problems.update(dict.fromkeys(findings.problems))
        warnings.update(dict.fromkeys(findings.warnings))
    return Checked(tuple(sorted(problems)), tuple(sorted(warnings)))


def _plan(
    loaded: Loaded, mode: Mode, answers: Mapping[str, Any], environ: Mapping[str, str] | None, findings: Findings
) -> Plan:
    runbook, names = loaded.runbook, Names()
    rto, rpo = _objectives(loaded, findings, names)
    check_stray_references(findings)
    values = _values(loaded, mode, answers, environ, findings)
    ordered = [draft(index, step, mode, values, findings) for index, step in enumerate(runbook.steps)]
    graph = wire(ordered, findings, names)
    drafts = {one.id: one for one in reversed(ordered)}
    drafts = {step: drafts[step] for step in graph.after}  # the first of a repeated id, in the order of the file
    for one in drafts.values():
        one.when = check_mode(one, findings)
    lead_failures(drafts, graph, findings, names)
    for one in drafts.values():
        one.when += check_when(one, drafts, graph, findings)
    _check_steps(drafts, graph, values, loaded, findings, names)
    gates = check_gates(drafts, graph, findings)
    lint.check_undo(drafts, findings)
    lint.check_fences(drafts, graph, findings)
    goals = _goals(loaded, drafts, findings, names)
    lint.check_recovery(goals, drafts, graph, findings)
    path = lint.critical_path(goals, drafts, graph, gates)
    if rto is not None:
        lint.check_budgets(path, rto, findings)
    check_drill(loaded, mode, drafts, values, findings)
    _warn_unused(loaded, values, findings)
    steps = tuple(_planned(drafts[step], loaded) for step in graph.order)
    made = Plan(
        runbook=runbook, text=loaded.text, file=loaded.file, mode=mode, inputs=answers, rto=rto or timedelta(0), rpo=rpo,
        steps=steps, gates=gates, critical_path=path, hash="", warnings=tuple(sorted(set(findings.warnings))),
    )  # fmt: skip
    return made if findings.problems else _pinned(made)


def _values(
    loaded: Loaded, mode: Mode, answers: Mapping[str, Any], environ: Mapping[str, str] | None, findings: Findings
) -> Values:
    targets = loaded.runbook.targets
    section = "drill" if mode is Mode.drill else "live"
    values = Values(answers, loaded.runbook.inputs, section, getattr(targets, section), findings, environ)
    values.check_targets()
    return values


def _objectives(loaded: Loaded, findings: Findings, names: Names) -> tuple[timedelta | None, timedelta | None]:
    stated = loaded.runbook.objectives
    tier = by_name().get(stated.tier) if stated.tier is not None else None
    if stated.tier is not None and tier is None:
        findings.add(("objectives", "tier"), f"there is no tier '{stated.tier[:60]}'{names.nearest(stated.tier, by_name())}")
    rto = stated.rto if stated.rto is not None else tier.rto if tier else None
    rpo = stated.rpo if stated.rpo is not None else tier.rpo if tier else None
    if rto is None and tier is not None:
        findings.add(("objectives", "tier"), f"'{stated.tier}' gives no rto ({tier.says}); write one beside it")
    elif rto is None and stated.tier is None:
        findings.add(("objectives",), "names no rto; write rto: 15m, or a tier")
    elif rto is not None and rto <= timedelta(0):
        findings.add(("objectives", "rto"), "must be longer than 0s")
    return rto, rpo


def _check_steps(
    drafts: Mapping[str, Draft], graph: Graph, values: Values, loaded: Loaded, findings: Findings, names: Names
) -> None:
    open_inputs = {
        name: _OPEN_INPUTS[question.type] for name, question in loaded.runbook.inputs.items() if name not in values.inputs
    }
    source = source_of(drafts, open_inputs)
    for one in drafts.values():
        for use in one.uses:
            if wrong := check_use(use, one, drafts, graph, names):
                findings.add(use.path, wrong)
        for condition in one.when:
            _check_condition(one, condition.subject, drafts, graph, findings, names)
        if one.action is not None:
            check_arguments(Arguments(one.action, one.step.with_, one.filled, (*one.path, "with")), source, values, findings)


def _check_condition(
    one: Draft, subject: Any, drafts: Mapping[str, Draft], graph: Graph, findings: Findings, names: Names
) -> None:
    if subject == "mode":
        return
    from runbooks.values import Use

    written = next((key for key in one.step.when if key == str(subject)), subject.path[-1])
    path = (*one.path, "when", written)
    if wrong := check_use(Use(path, subject, False), one, drafts, graph, names):
        findings.add(path, wrong, key=True)


def _goals(loaded: Loaded, drafts: Mapping[str, Draft], findings: Findings, names: Names) -> tuple[str, ...]:
    for index, step in enumerate(loaded.runbook.recovered_when):
        if step not in drafts:
            findings.add(("recovered_when", index), f"there is no step '{step}'{names.nearest(step, drafts)}")
    return tuple(step for step in loaded.runbook.recovered_when if step in drafts)


def _warn_unused(loaded: Loaded, values: Values, findings: Findings) -> None:
    for name in loaded.runbook.inputs:
        if f"inputs.{name}" not in values.used:
            findings.warn(("inputs", name), "nothing refers to it", key=True)
    for name in values.targets:
        if f"target.{name}" not in values.used:
            findings.warn(("targets", values.section, name), "nothing refers to it", key=True)


def _planned(one: Draft, loaded: Loaded) -> PlannedStep:
    return PlannedStep(
        id=one.id,
        title=one.title,
        place=loaded.place(*one.path),
        kind=one.kind,
        uses=one.step.uses,
        action_type=one.action,
        arguments=one.filled,
        manual=one.manual,
        after=one.after,
        when=one.when,
        gates=tuple(one.covered_by),
        budget=one.budget,
        timeout=one.timeout,
        retry=one.step.retry or Retry.model_validate({}),
        on_failure=one.on_failure,
        handles=tuple(one.handles),
        drill=one.step.drill,
        fenced_by=one.fenced_by,
    )


def _pinned(made: Plan) -> Plan:
    from dataclasses import replace

    decides = {
        "text": made.text,
        "mode": made.mode,
        "inputs": made.inputs,
        "rto": str(made.rto),
        "rpo": str(made.rpo),
        "steps": [_fingerprint(step) for step in made.steps],
        "gates": [[gate.name, gate.step, gate.covers, gate.rule.model_dump(mode="json")] for gate in made.gates],
    }
    text = json.dumps(decides, sort_keys=True, separators=(",", ":"), default=str)
    return replace(made, hash=hashlib.sha256(text.encode()).hexdigest())


def _fingerprint(step: PlannedStep) -> dict[str, Any]:
    kept = {name: getattr(step, name) for name in step.__dataclass_fields__ if name not in ("place", "action_type", "retry", "when")}
    when = [[str(one.subject), one.values] for one in step.when]
    return {**kept, "when": when, "retry": step.retry.model_dump(mode="json")}


__all__ = ["Checked", "GateRule", "check", "examine", "plan"]
