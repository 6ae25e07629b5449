"""The way out when this program is what failed: what is done, what is in doubt, and the rest as commands for hands.

Made from the journal alone, without any server, at any moment. A copy is written beside the journal at every event, so
that it is there even when nothing of ours runs any more.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flows.engine import Engine
from flows.events import Status
from flows.fencing import warnings
from flows.state import ExecutionState
from runbooks.plan import Plan, PlannedStep, look_up_in
from runbooks.problems import RunbookError
from runbooks.references import Reference
from tasks.contract import Action

HIDDEN = "hidden"
"""Stands in for secrets while the commands are made; commands never show one."""


def eject(execution: str, plan: Plan, state: ExecutionState, environ: Mapping[str, str] | None = None) -> str:
    """What a person needs to finish by hand. Never raises for a step that cannot be filled in: it shows the inputs."""
    begun = state.started
    lines = [
        f"# Execution {execution}: {plan.runbook.title} ({plan.mode.value})",
        f"# As of {state.last:%Y-%m-%d %H:%M:%S} UTC." if state.last else "#",
        f"# Started by {begun.initiator} on {begun.host}." if begun else "#",
        "# Before you go on by hand, make sure that no engine goes on as well: `failover halt --reason 'by hand'`, or end its process.",
        "",
    ]
    lines += [f"# !!! {warning}" for warning in warnings(state)]
    done, doubt, rest = [], [], []
    for step in plan.steps:
        record = state.step(step.id)
        if record.status is not None and record.lets_go_on:
            done.append(f"# {step.id}: {record.status.value}: {record.describe or record.detail}")
        elif record.acting and record.status is None:
            doubt += _by_hand(step, state, environ, f"announced, not seen done: {record.describe}; look first")
        else:
            rest += _by_hand(step, state, environ, _why(record.status, record.detail))
    for title, part in (("Done", done), ("In doubt: look before you repeat anything", doubt), ("Still to do, in this order", rest)):
        lines += [f"## {title}", "", *(part or ["# nothing"]), ""]
    lines += _topology(state)
    return "\n".join(lines).rstrip() + "\n"


def _why(status: Status | None, detail: str) -> str:
    return f"{status.value}: {detail}" if status is not None else "not begun"


def _by_hand(step: PlannedStep, state: ExecutionState, environ: Mapping[str, str] | None, why: str) -> list[str]:
    head = [f"# {step.id}: {step.title} ({why})"]
    head += [f"#   only behind the approval of gate {', '.join(step.gates)}"] if step.gates else []
    unheld = [name for name in step.fenced_by if not state.step(name).overridden]
    head += [f"#   never before {', '.join(unheld)} holds"] if unheld else []
    if step.manual is not None:
        return [*head, f"#   {step.manual}", ""]
    action = _filled(step, state, environ)
    if action is None:
        return [*head, f"#   {step.uses} with {dict(step.arguments)}", ""]
    return [*head, *(action.by_hand() or (f"#   {step.uses}: nothing for a command to do",)), ""]


def _filled(step: PlannedStep, state: ExecutionState, environ: Mapping[str, str] | None) -> Action[Any] | None:
    outputs = {name: record.output for name, record in state.steps.items() if record.output is not None}
    known = look_up_in(outputs, {}, environ)

    def look_up(reference: Reference) -> Any:
        value = HIDDEN if reference.secret else known(reference)
        if value is None:
            raise LookupError(f"{reference}: not known")
        return value

    try:
        return step.action_so_far(look_up)  # without what only an earlier step would have told
    except (RunbookError, LookupError):
        return None


def _topology(state: ExecutionState) -> list[str]:
    """What was last seen of the world, from the steps that looked at it."""
    lines = ["## Last seen", ""]
    for name, record in state.steps.items():
        if record.detail:
            lines.append(f"# {name} at {record.finished:%H:%M:%S} UTC: {record.detail}" if record.finished else f"# {name}: {record.detail}")
    return lines


def foot(place: str, anchor: str) -> str:
    """Where the journal is and what its head was; `failover verify-journal` finds it here."""
    return f"\n# Journal {place}; anchor {anchor or 'not known'}\n"


def write_copy(path: Path, text: str) -> None:
    """Replace the copy in one move, readable by its owner only, so that a reader never finds half of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def keep_copy(engine: Engine, path: Path, foot: Callable[[], str] = lambda: "") -> threading.Thread:
    """Write the copy at every event, on a thread of its own: a full disk or a slow one delays nothing.

    foot: what stands below, such as where the journal is and its anchor; asked for at every event.
    """
    notices = engine.subscribe()

    def follow() -> None:
        over = False
        while not over:
            over = notices.get() is None
            while True:  # only the newest state counts
                try:
                    over = notices.get_nowait() is None or over
                except queue.Empty:
                    break
            try:
                write_copy(path, eject(engine.execution, engine.plan, engine.state) + foot())
            except OSError:
                continue  # the run matters more than its copy

    thread = threading.Thread(target=follow, name="eject", daemon=True)
    thread.start()
    return thread
