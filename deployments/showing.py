"""`failover list`, `status`, `eject` and `verify-journal`: what was and what is, from the journal alone."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deployments.exits import Exit

if TYPE_CHECKING:
    from flows.journal import Journal
    from flows.state import ExecutionState
    from runbooks.plan import Plan


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add list, status, eject and verify-journal."""
    listing = commands.add_parser("list", help="executions, newest first")
    listing.add_argument("--limit", type=int, default=20)
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=run_list)
    status = commands.add_parser("status", help="now, next, who decides, how much time is left")
    status.add_argument("execution", nargs="?", help="id or its beginning; the newest when missing")
    status.add_argument("--json", action="store_true")
    status.add_argument("--watch", action="store_true", help="again every second until it ends")
    status.set_defaults(run=run_status)
    by_hand = commands.add_parser("eject", help="what is done, in doubt and left, as commands for hands")
    by_hand.add_argument("execution", nargs="?", help="id or its beginning; the newest when missing")
    by_hand.set_defaults(run=run_eject)
    for parser in (listing, status, by_hand):
        parser.add_argument("--journal", help="the journal: a file or postgresql://… (default: FAILOVER_JOURNAL)")


def run_list(options: argparse.Namespace) -> int:
    """Print the executions."""
    from deployments.journal_location import open_journal
    from flows.report_text import aligned

    journal = open_journal(options.journal)
    found = journal.executions(options.limit)
    if options.json:
        print(json.dumps([
            {"execution": one.execution, "runbook": one.runbook, "mode": one.mode.value, "started": one.started.isoformat(),
             "last": one.last.isoformat(), "verdict": one.verdict.value if one.verdict else None} for one in found
        ], indent=2))  # fmt: skip
        return Exit.met
    rows = [("execution", "started (UTC)", "mode", "verdict", "runbook")]
    rows += [
        (one.execution, f"{one.started:%Y-%m-%d %H:%M:%S}", one.mode.value, one.verdict.value if one.verdict else "open", one.runbook)
        for one in found
    ]
    print("\n".join(aligned(rows)) if found else f"no executions in {journal.place}")
    return Exit.met


def _read(journal: Journal, given: str | None) -> tuple[str, Plan, ExecutionState]:
    from deployments.people import find_execution
    from flows.runs import replan
    from flows.state import fold

    execution = find_execution(journal, given)
    state = fold(event for _, event in journal.read(execution))
    return execution, replan(state), state


def run_status(options: argparse.Namespace) -> int:
    """Print where an execution stands."""
    from deployments.journal_location import open_journal

    journal = open_journal(options.journal)
    while True:
        execution, plan, state = _read(journal, options.execution)
        for halt in journal.halts():
            print(f"HALTED: {halt}", file=sys.stderr)
        if options.json:
            print(json.dumps(status_json(execution, plan, state), indent=2, default=str), flush=True)
        else:
            print("\n".join(status_lines(execution, plan, state)), flush=True)
        if not options.watch or state.finished is not None or state.interrupted is not None:
            return Exit.met
        time.sleep(1)


def status_lines(execution: str, plan: Plan, state: ExecutionState) -> list[str]:
    """Where an execution stands, for people."""
    from flows.fencing import failed_fences
    from flows.report import verdict_word
    from flows.report_text import aligned
    from flows.watching import view
    from tasks.durations import show_time

    now = datetime.now(UTC)
    shown = view(plan, state, now if state.finished is None else (state.last or now), {})
    lines = [f"{execution}  {plan.runbook.name} ({plan.mode.value}): {verdict_word(state)}", *(f"!!! {one}" for one in shown.warnings), shown.clock]
    if state.finished is None:
        lines += [f"now: {', '.join(shown.now) or '-'}", f"next: {', '.join(shown.next) or '-'}"]
    for one in shown.questions:
        answer = f"--choose {'|'.join(c.value for c in one.choices)}" if one.choices else "(or deny)"
        lines.append(f"waiting for people until {show_time(one.deadline, now)}: {one.text}")
        lines += [f"    {evidence}" for evidence in one.evidence]
        lines.append(f"    failover approve {execution} {one.name} --as NAME --reason WHY {answer}")
    for name in failed_fences(plan, state):
        lines.append(f"fence {name} does not hold; two different people may let the run pass it, who accept two writers:")
        lines.append(f"    failover override {execution} {name} --as NAME --reason WHY")
    rows = [("step", "status", "budget", "expected", "actual", "what")]
    rows += [(line.step, line.status, line.budget, line.expected, line.actual, line.text) for line in shown.steps]
    return [*lines, "", *aligned(rows), ""]


def status_json(execution: str, plan: Plan, state: ExecutionState) -> dict[str, Any]:
    """Where an execution stands, for programs."""
    from flows.clock import recovery_deadline
    from flows.forecast import forecast
    from flows.report import verdict_word
    from flows.watching import view

    now = datetime.now(UTC)
    shown = view(plan, state, now, {})
    return {
        "execution": execution, "runbook": plan.runbook.name, "mode": plan.mode.value, "verdict": verdict_word(state),
        "warnings": list(shown.warnings), "now": list(shown.now), "next": list(shown.next), "rto_ends": recovery_deadline(state, plan).isoformat(),
        "rto_left": (recovery_deadline(state, plan) - now).total_seconds(),
        "forecast": forecast(plan, state, now).recovery,
        "forecast_from": {line.step: line.expected for line in shown.steps}, "impact": state.clock_start,
        "waiting_for": [
            {"gate": one.name, "question": one.text, "evidence": list(one.evidence), "covers": list(one.covers),
             "deadline": one.deadline.isoformat(), "choices": [choice.value for choice in one.choices]}
            for one in shown.questions
        ],
        "steps": {step.id: (record.status.value if (record := state.step(step.id)).status else
                            "running" if record.started else None) for step in plan.steps},
    }  # fmt: skip


def run_eject(options: argparse.Namespace) -> int:
    """Print what a person needs to finish by hand."""
    from deployments.journal_location import open_journal
    from flows.anchors import anchor
    from flows.eject import eject, foot

    journal = open_journal(options.journal)
    execution, plan, state = _read(journal, options.execution)
    print(eject(execution, plan, state) + foot(journal.place, anchor(journal, execution)), end="")
    return Exit.met
