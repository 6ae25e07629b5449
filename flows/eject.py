"""The way out when this program is what failed: what is done, what is in doubt, and the rest as commands for hands.

In doubt is what was announced and is not known to have ended well, an act or an undo. In a rollback the rest is what is
still to be undone, from what the journal says was before; past the point of no return nothing is.

Made from the journal alone, without any server, at any moment. A copy is written beside the journal at every event, so
that it is there even when nothing of ours runs any more.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.engine import Engine
from flows.events import RollbackStarted, Status
from flows.fencing import warnings
from flows.state import ExecutionState, StepRecord
from runbooks.plan import Plan, PlannedStep, look_up_in
from runbooks.problems import RunbookError
from runbooks.references import Reference
from tasks.contract import Action, Change

HIDDEN = "hidden"
"""Stands in for secrets while the commands are made; commands never show one."""
DONE = "Done"
DOUBT = "In doubt: look before you repeat anything"


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
    if state.rollback is not None:
        back = state.rollback
        lines += [f"# It goes back since {back.at:%H:%M:%S} UTC (by {back.by}): nothing more of it is to be done, only undone.", ""]
    parts = _forward(plan, state, environ) if state.rollback is None else _backward(plan, state, state.rollback, environ)
    for title, part in parts.items():
        lines += [f"## {title}", "", *(part or ["# nothing"]), ""]
    lines += _topology(state)
    return "\n".join(lines).rstrip() + "\n"


def _forward(plan: Plan, state: ExecutionState, environ: Mapping[str, str] | None) -> Mapping[str, list[str]]:
    done: list[str] = []
    doubt: list[str] = []
    rest: list[str] = []
    for step in plan.steps:
        record = state.step(step.id)
        if record.acting and not _ended_well(record):
            passed = "; the run goes on without it" if record.lets_go_on else ""
            doubt += _by_hand(step, state, environ, _announced(record) + passed)
        elif record.lets_go_on:
            done.append(_told(step, record))
        else:
            rest += _by_hand(step, state, environ, _why(record))
    return {DONE: done, DOUBT: doubt, "Still to do, in this order": rest}


def _backward(plan: Plan, state: ExecutionState, rollback: RollbackStarted, environ: Mapping[str, str] | None) -> Mapping[str, list[str]]:
    """Nothing more is to be done then, only undone: what the rollback has chosen, last change first."""
    undone: list[str] = []
    doubt: list[str] = []
    rest: list[str] = []
    for step in (plan.by_id[name] for name in rollback.steps):
        record = state.step(step.id)
        if record.status is Status.rolled_back:
            undone.append(f"{_told(step, record)} ({record.describe})")
        elif record.undone:
            doubt += _back(step, state, environ, f"undoing was tried, not seen done: {record.detail}; look first")
        elif record.undoing:
            doubt += _back(step, state, environ, "undoing was announced, not seen done; look first")
        else:
            rest += _back(step, state, environ, _why(record) if _ended_well(record) else _announced(record))
    done, unclear, stays = _beside(plan, state, rollback, environ)
    return {DONE: done, "Undone": undone, DOUBT: unclear + doubt, "To be undone, in this order": rest, "Left as it is": stays}


def _beside(
    plan: Plan, state: ExecutionState, rollback: RollbackStarted, environ: Mapping[str, str] | None
) -> tuple[list[str], list[str], list[str]]:
    """What a rollback does not undo: done and nothing to undo, in doubt, left as it is."""
    done: list[str] = []
    doubt: list[str] = []
    stays: list[str] = []
    for step in (step for step in plan.steps if step.id not in rollback.steps):
        record, why = state.step(step.id), rollback.left.get(step.id)
        if record.acting and not _ended_well(record):
            doubt += _looked_at(step, record, why) if why is not None else _back(step, state, environ, _announced(record))
        elif why is not None:
            stays.append(f"{_told(step, record)} ({why})")
        elif not record.lets_go_on:
            stays.append(_told(step, record))
        elif step.manual is not None and record.status is Status.done:
            stays.append(f"{_told(step, record)} (by hand, and only by hand undone)")
        else:
            done.append(_told(step, record))
    return done, doubt, stays


def _ended_well(record: StepRecord) -> bool:
    """Whether what was announced is known to be so; a step that was skipped or accepted after its act is not."""
    return record.status in {Status.done, Status.already}


def _told(step: PlannedStep, record: StepRecord) -> str:
    return f"# {step.id}: {_why(record, record.describe if _ended_well(record) else '')}"


def _why(record: StepRecord, did: str = "") -> str:
    if record.status is None:
        return "begun, not ended" if record.started else "not begun"
    return f"{record.status.value}: {did or record.detail}"


def _announced(record: StepRecord) -> str:
    """The sentence for a step whose call may have left."""
    ended = f"{record.status.value}: {record.detail}; " if record.status is not None else ""
    seen = "last seen as it was before" if record.unchanged else "not seen done"
    return f"{ended}announced, {seen}: {record.describe}; look first"


def _looked_at(step: PlannedStep, record: StepRecord, why: str) -> list[str]:
    """What may have happened and is not undone, without the commands that would do it."""
    return [f"# {step.id}: {step.title} ({_announced(record)}; it {why})", *_before(record), ""]


def _back(step: PlannedStep, state: ExecutionState, environ: Mapping[str, str] | None, why: str) -> list[str]:
    """How the change of a step is taken back: from what was journaled before its first act."""
    record, action = state.step(step.id), _filled(step, state, environ)
    head = [f"# {step.id}: {step.title} ({why})", f"#   to be taken back: {record.describe}"]
    commands: tuple[str, ...] = ()
    if isinstance(action, Change) and record.before is not None:
        with suppress(ValidationError):  # written by a version that knew other fields
            commands = action.undo_by_hand(action.state_type().model_validate(record.before))
    return [*head, *(commands or ("#   no command is known for it; put back what was before:", *_before(record))), ""]


def _before(record: StepRecord) -> list[str]:
    """What a step changed, before -> last seen; all that was there where no change was seen since."""
    before, now = record.before or {}, None if record.unchanged else record.output
    shown = {name: json.dumps(value, ensure_ascii=False) for name, value in before.items() if now is None or now.get(name) != value}
    since = {name: f" -> {json.dumps(now.get(name), ensure_ascii=False)}" if now is not None else "" for name in shown}
    return [f"#   {name}: {value}{since[name]}" for name, value in shown.items()]


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


def keep_copy(
    engine: Engine, path: Path, foot: Callable[[], str] = lambda: "", settle: Callable[[], None] = lambda: None
) -> threading.Thread:
    """Write the copy at every event, on a thread of its own: a full disk or a slow one delays nothing.

    foot: what stands below, such as where the journal is and its anchor; asked for at every event. settle: waits until
    `foot` tells the end of the run; asked before the last time.
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
            if over:
                settle()
            try:
                write_copy(path, eject(engine.execution, engine.plan, engine.state) + foot())
            except OSError:
                continue  # the run matters more than its copy

    thread = threading.Thread(target=follow, name="eject", daemon=True)
    thread.start()
    return thread
