"""Preflight: before the first change, what every change will need is looked at, all at once, within 5 s.

`flows.preflight_looks` asks the world; this is pure and decides what holds the changes. A problem opens the gate
`preflight`, which covers every change: a person lets it go on all the same, or nothing is done. What could not be asked
holds nothing, because the side that cannot be asked is usually the one that failed; where an earlier execution of the
runbook recorded the same thing, that counts, with its age.

What must never happen: a change before the looks are in, or with a problem that nobody accepted. `holds` is asked by
`attempts` right before an act is announced, and by `questions` when another gate opens.
"""

from __future__ import annotations

from dataclasses import replace

from flows.events import GateOpened, Preflighted
from flows.messages import DoPreflight, Looked
from flows.outcomes import time_left
from flows.rules import changes
from flows.turn import Turn
from runbooks.model import Mode
from runbooks.plan import PREFLIGHT


def begin(turn: Turn) -> None:
    """Ask for the looks once in this process, when something is left to change."""
    core = turn.core
    wanted = core.checks and not core.checking and turn.state.preflight is None
    may_tell = turn.may_change() or turn.plan.mode is Mode.dry_run  # which records it for a day when it cannot be asked
    if wanted and may_tell and any(turn.state.step(step.id).status is None for step in changes(turn.plan)):
        turn.core = replace(core, checking=True)
        turn.commands.append(DoPreflight())


def take(turn: Turn, message: Looked) -> None:
    """The looks are in."""
    if turn.state.preflight is None:
        turn.write(Preflighted(at=turn.now, checks=message.checks, seconds=message.seconds))


def holds(turn: Turn) -> bool:
    """Whether changes must wait: for the looks, or for a person who accepts what they found."""
    if not turn.core.checks:
        return False
    found = turn.state.preflight
    return found is None or bool(found.problems and not turn.state.gate(PREFLIGHT).approved)


def open_gate(turn: Turn) -> None:
    """Put the problems, and what could not be asked, to people; once."""
    found, gate = turn.state.preflight, turn.rule(PREFLIGHT)
    if found is None or turn.state.gate(PREFLIGHT).opened is not None:
        return
    lines = [str(one) for one in found.problems]
    lines += [f"not known: {one}" for one in found.checks if one.result == "unknown"]
    if turn.state.clock_start is not None:
        lines.append(time_left(turn, gate, turn.state.clock_start))
    turn.write(
        GateOpened(at=turn.now, gate=PREFLIGHT, question=gate.rule.title or "", covers=gate.covers,
                   evidence=tuple(lines), deadline=turn.now + gate.rule.timeout)
    )  # fmt: skip
