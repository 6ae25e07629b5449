"""`failover check`, `plan` and `actions`: for people who write runbooks."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.events import HistoryLearned
    from runbooks.plan import Plan, PlannedStep


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add check, plan and actions."""
    check = commands.add_parser("check", help="find everything that is wrong with runbooks")
    check.add_argument("paths", nargs="+", metavar="PATH", help="a runbook, a folder of them, or the name of a shipped one")
    check.set_defaults(run=run_check)

    plan = commands.add_parser("plan", help="order, budgets and critical path of a runbook")
    plan.add_argument("runbook", help="a file, or the name of a shipped runbook")
    add_inputs(plan)
    plan.add_argument("--journal", help="whose earlier runs to count: a file or postgresql://… (default: FAILOVER_JOURNAL)")
    plan.add_argument("--drill", action="store_true", help="plan with the drill targets")
    form = plan.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument("--mermaid", action="store_true", help="as a Mermaid graph")
    plan.set_defaults(run=run_plan)

    actions = commands.add_parser("actions", help="what a step can do")
    actions.add_argument("name", nargs="?", help="show one action with its inputs and outputs")
    actions.set_defaults(run=run_actions)


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add -i k=v."""
    parser.add_argument("-i", "--input", action="append", default=[], metavar="NAME=VALUE", help="an input of the runbook")


def given_inputs(options: argparse.Namespace) -> dict[str, str]:
    """The inputs from the command line; exits 2 when one is not NAME=VALUE."""
    pairs = {}
    for text in options.input:
        name, equals, value = text.partition("=")
        if not equals:
            print(f"-i {text}: write -i NAME=VALUE", file=sys.stderr)
            raise SystemExit(2)
        pairs[name.strip()] = value
    return pairs


def run_check(options: argparse.Namespace) -> int:
    """Check files over all modes; every problem and every warning on a line of its own."""
    from runbooks.loader import load
    from runbooks.planner import examine
    from runbooks.problems import RunbookError
    from runbooks.shipped import find

    wrong = 0
    files: list[Path] = []
    for given in options.paths:
        path = Path(given)
        try:
            files += sorted(path.rglob("*.yaml")) if path.is_dir() else [find(given)]
        except RunbookError as error:
            wrong += 1
            print(error)
    for path in files:
        try:
            loaded = load(path)
        except RunbookError as error:
            wrong += 1
            print(error)
            continue
        found = examine(loaded)
        for problem in found.problems:
            print(problem)
        for note in found.warnings:
            print(f"{note} (warning)")
        wrong += bool(found.problems)
        if not found.problems:
            print(f"{path}: ok, {len(loaded.runbook.steps)} steps")
    return 2 if wrong else 0


def planned(options: argparse.Namespace, mode: str) -> Plan:
    """The plan that the command line asks for."""
    from runbooks.loader import load
    from runbooks.model import Mode
    from runbooks.planner import plan
    from runbooks.shipped import find

    return plan(load(find(options.runbook)), mode=Mode(mode), inputs=given_inputs(options))


def run_plan(options: argparse.Namespace) -> int:
    """Print a plan."""
    plan = planned(options, "drill" if options.drill else "live")
    if options.mermaid:
        print(mermaid(plan))
        return 0
    history, trouble = _history(options.journal, plan.runbook.name)
    if options.json:
        print(json.dumps(plan_json(plan, history), indent=2, default=str))
        return 0
    print("\n".join(plan_text(plan, history)))
    for one in (trouble, *(history.skipped if history else ())):
        if one:
            print(f"history: {one}", file=sys.stderr)
    return 0


def _history(location: str | None, runbook: str) -> tuple[HistoryLearned | None, str]:
    """What earlier runs tell; a plan can be had without, so a journal that is missing, slow or broken costs a second."""
    from datetime import timedelta

    from deployments.journal_location import is_database, journal_location, open_journal
    from flows.history import read_within
    from flows.journal import JournalError

    try:
        where = journal_location(location)
    except JournalError as error:
        return None, str(error)
    if not is_database(where) and not Path(where).exists():
        return None, ""  # nothing ever ran here, and a plan leaves nothing behind
    return read_within(lambda: open_journal(where), runbook, timedelta(seconds=1))


def plan_json(plan: Plan, history: HistoryLearned | None = None) -> dict[str, Any]:
    """A plan as JSON; times in seconds."""
    from flows.forecast import CAREFUL, past_of, source, time_for

    def known(step: PlannedStep) -> dict[str, Any]:
        past = past_of(step, history)
        return {"expected": time_for(step, history).total_seconds(), "careful": time_for(step, history, CAREFUL).total_seconds(),
                "expected_from": source(step, history), "runs": past.runs if past else 0}  # fmt: skip

    return {
        "runbook": plan.runbook.name, "mode": plan.mode.value, "hash": plan.hash, "inputs": dict(plan.inputs),
        "rto": plan.rto.total_seconds(), "rpo": plan.rpo.total_seconds() if plan.rpo is not None else None,
        "critical_path": {
            "total": plan.critical_path.total.total_seconds(),
            "parts": [{"what": what, "seconds": time.total_seconds()} for what, time in plan.critical_path.parts],
        },
        "steps": [
            {"id": step.id, "title": step.title, "uses": step.uses, "kind": step.kind, "after": list(step.after),
             "gates": list(step.gates), "budget": step.budget.total_seconds(), "timeout": step.timeout.total_seconds(),
             "on_failure": step.on_failure, "fenced_by": list(step.fenced_by), **known(step)}
            for step in plan.steps
        ],
        "gates": [{"name": gate.name, "covers": list(gate.covers), "approvers": list(gate.rule.approvers),
                   "quorum": gate.rule.quorum, "timeout": gate.rule.timeout.total_seconds()} for gate in plan.gates],
        "warnings": [str(warning) for warning in plan.warnings],
    }  # fmt: skip


def plan_text(plan: Plan, history: HistoryLearned | None = None) -> list[str]:
    """A plan as lines for a terminal."""
    from flows.forecast import expected
    from flows.report_text import aligned
    from tasks.durations import format_duration

    rows = [("step", "budget", "expected", "after", "gate", "does")]
    for step in plan.steps:
        does = step.uses or f"a person: {step.manual}"
        after, gates = ", ".join(step.after) or "-", ", ".join(step.gates) or "-"
        rows.append((step.id, format_duration(step.budget), expected(step, history), after, gates, does))
    path = plan.critical_path
    return [
        f"{plan.runbook.name}: {plan.runbook.title}",
        f"mode {plan.mode.value}, rto {format_duration(plan.rto)}"
        + (f", rpo {format_duration(plan.rpo)}" if plan.rpo is not None else ""),
        "",
        *aligned(rows),
        "",
        f"critical path {format_duration(path.total)} of {format_duration(plan.rto)}: "
        + ", ".join(f"{what} {format_duration(time)}" for what, time in path.parts),
        *_expected_lines(plan, history),
        *(f"warning: {warning}" for warning in plan.warnings),
    ]


def _expected_lines(plan: Plan, history: HistoryLearned | None) -> list[str]:
    """What earlier runs let expect of the whole; nothing without enough of them."""
    from datetime import UTC, datetime

    from flows.forecast import CAREFUL, EXPECTED, forecast, past_of
    from flows.state import ExecutionState
    from tasks.durations import show_seconds

    if history is None or not any(past_of(step, history) for step in plan.steps):
        return []
    now = datetime.now(UTC)
    usual, careful = (forecast(plan, ExecutionState(), now, share, history).recovery for share in (EXPECTED, CAREFUL))
    if usual is None or careful is None:
        return []
    whole = f"{show_seconds(usual - now)} from the start, {show_seconds(careful - now)} when every step is slow"
    return [f"from {history.executions} earlier runs: {whole}; people at gates and steps without three runs by their budgets"]


def mermaid(plan: Plan) -> str:
    """A plan as a Mermaid flowchart."""
    from tasks.durations import format_duration

    def name(step: str) -> str:
        return step.replace("-", "_")

    lines = ["flowchart TD"]
    for step in plan.steps:
        label = f"{step.id}<br/>{step.uses or 'a person'}<br/>{format_duration(step.budget)}"
        lines.append(f'  {name(step.id)}["{label}"]')
    for gate in plan.gates:
        lines.append(f'  gate_{name(gate.name)}{{{{"gate {gate.name}"}}}}')
        lines += [f"  gate_{name(gate.name)} -.-> {name(step)}" for step in gate.covers]
    lines += [f"  {name(before)} --> {name(step.id)}" for step in plan.steps for before in step.after]
    return "\n".join(lines)


def run_actions(options: argparse.Namespace) -> int:
    """List the actions, or show one."""
    from flows.action_reference import action_lines, summary_rows
    from flows.report_text import aligned
    from tasks.registry import action_type, names

    if options.name is None:
        print("\n".join(aligned(summary_rows())))
        return 0
    found = action_type(options.name)
    if found is None:
        print(f"no action is called '{options.name}'; there are {', '.join(names())}", file=sys.stderr)
        return 2
    print("\n".join(action_lines(found)))
    return 0
