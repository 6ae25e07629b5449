"""From a runbook to a plan: names to actions, inputs and targets to values, the graph, the rules, the budgets.

All problems at once, each with its place. The same for every mode: a drill is judged on drill targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from runbooks import lint
from runbooks.arguments import Arguments, check_arguments
from runbooks.conditions import check_mode, check_when
from runbooks.drafts import Board, Draft, draft
from runbooks.drilling import can_drill, check_drill
from runbooks.fields import Types
from runbooks.findings import Findings
from runbooks.fingerprint import fingerprint
from runbooks.gating import check_gates
from runbooks.inputs import read_inputs
from runbooks.loader import Loaded
from runbooks.model import InputType, Mode, Retry
from runbooks.plan import ASK_TIMEOUT, Plan, PlannedStep
from runbooks.problems import Problem, RunbookError
from runbooks.references import Reference
from runbooks.stray import check_stray_references
from runbooks.tiers import by_name
from runbooks.values import Use, Values
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


def plan(loaded: Loaded, *, mode: Mode, inputs: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Plan:
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
    runbook = loaded.runbook
    rto, rpo = _objectives(loaded, findings)
    check_stray_references(findings)
    values = _values(loaded, mode, answers, environ, findings)
    board = wire([draft(index, step, mode, values) for index, step in enumerate(runbook.steps)], findings)
    for one in board.drafts.values():
        one.when = check_mode(one, board)
    lead_failures(board)
    for one in board.drafts.values():
        one.when += check_when(one, board)
    _check_steps(loaded, board, values)
    gates = check_gates(board)
    goals = _goals(loaded, board)
    lint.check_undo(board)
    lint.check_fences(board)
    lint.check_aftermath(board)
    lint.check_loss(gates, board)
    lint.check_recovery(goals, board)
    path = lint.critical_path(goals, board, gates)
    if rto is not None:
        lint.check_budgets(path, rto, board)
    check_drill(loaded, mode, board, values)
    _check_failback(loaded, findings)
    _warn_unused(loaded, values, findings)
    made = Plan(
        runbook=runbook,
        text=loaded.text,
        file=loaded.file,
        mode=mode,
        inputs=answers,
        rto=rto or timedelta(0),
        rpo=rpo,
        steps=tuple(_planned(board.drafts[step], loaded) for step in board.graph.order),
        gates=gates,
        critical_path=path,
        hash="",
        warnings=tuple(sorted(set(findings.warnings))),
    )
    return made if findings.problems else replace(made, hash=fingerprint(made))


def _values(
    loaded: Loaded, mode: Mode, answers: Mapping[str, Any], environ: Mapping[str, str] | None, findings: Findings
) -> Values:
    targets = loaded.runbook.targets
    section = "drill" if mode is Mode.drill else "live"
    values = Values(answers, loaded.runbook.inputs, section, getattr(targets, section), findings, environ)
    values.check_targets()
    return values


def _objectives(loaded: Loaded, findings: Findings) -> tuple[timedelta | None, timedelta | None]:
    stated = loaded.runbook.objectives
    tier = by_name().get(stated.tier) if stated.tier is not None else None
    if stated.tier is not None and tier is None:
        findings.add(
            ("objectives", "tier"),
            f"there is no tier '{stated.tier[:60]}'{findings.names.nearest(stated.tier, by_name())}",
        )
    rto = stated.rto if stated.rto is not None else tier.rto if tier else None
    rpo = stated.rpo if stated.rpo is not None else tier.rpo if tier else None
    if rto is None and tier is not None:
        findings.add(("objectives", "tier"), f"'{stated.tier}' gives no rto ({tier.says}); write one beside it")
    elif rto is None and stated.tier is None:
        findings.add(("objectives",), "names no rto; write rto: 15m, or a tier")
    elif rto is not None and rto <= timedelta(0):
        findings.add(("objectives", "rto"), "must be longer than 0s")
        rto = None
    return rto, rpo


def _check_steps(loaded: Loaded, board: Board, values: Values) -> None:
    questions = loaded.runbook.inputs.items()
    unanswered = {name: _OPEN_INPUTS[question.type] for name, question in questions if name not in values.inputs}
    source = source_of(board, unanswered)
    for one in board.drafts.values():
        for use in one.uses:
            if wrong := check_use(use, one, board):
                board.add(use.path, wrong)
        for condition in one.when:
            if condition.subject != "mode":
                _check_subject(condition.subject, one, board)
        if one.action is not None:
            arguments = Arguments(one.action, one.step.with_, one.filled, (*one.path, "with"))
            check_arguments(arguments, source, values)
            lint.check_shortest(one, arguments, board)


def _check_subject(subject: Reference, one: Draft, board: Board) -> None:
    written = next((key for key in one.step.when if key == str(subject)), subject.path[-1])
    path = (*one.path, "when", written)
    if wrong := check_use(Use(path, subject, embedded=False), one, board):
        board.add(path, wrong, key=True)


def _goals(loaded: Loaded, board: Board) -> tuple[str, ...]:
    for index, step in enumerate(loaded.runbook.recovered_when):
        if step not in board.drafts:
            board.add(("recovered_when", index), f"there is no step '{step}'{board.nearest(step)}")
    return tuple(dict.fromkeys(step for step in loaded.runbook.recovered_when if step in board.drafts))


def _check_failback(loaded: Loaded, findings: Findings) -> None:
    """The way home must exist on the day on which the way out is taken; a run under way is not stopped by it."""
    name, known = loaded.runbook.failback, loaded.within_reach
    if name is None or known is None:
        return
    if name == loaded.runbook.name:
        findings.add(("failback",), "names this runbook itself; name the one that returns home")
    elif name not in known:
        near = findings.names.nearest(name, known - {loaded.runbook.name})
        findings.add(("failback",), f"there is no runbook '{name}' in the library or in this file's folder{near}")


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
        ask_timeout=ASK_TIMEOUT if one.step.ask_timeout is None else one.step.ask_timeout,
    )
