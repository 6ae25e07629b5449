"""Going back: in reverse, one at a time, from what the journal says was before, and never over the point of no return."""

from __future__ import annotations

from dataclasses import replace

from flows.events import RollbackStarted, Status, StepFinished, Undoing
from flows.messages import DoUndo, Revoke, UndoReturned
from flows.rules import rollback_order
from flows.turn import Phase, Turn


def roll_back(turn: Turn, by: str) -> None:
    """Begin to go back; a second request changes nothing."""
    if turn.state.rollback is None:
        steps, left = rollback_order(turn.plan, turn.state)
        turn.write(RollbackStarted(at=turn.now, steps=steps, left=left, by=by))


def continue_rollback(turn: Turn) -> None:
    """Undo the next change once everything that acted was observed."""
    for name, attempt in list(turn.core.attempts.items()):
        if attempt.phase is Phase.gated or (attempt.phase is Phase.looking and not turn.state.step(name).acting):
            turn.set(name, None)
            turn.commands.append(Revoke(name, attempt.number, "rolling back"))
    if turn.core.attempts or turn.core.undoing is not None or turn.stopping or turn.state.rollback is None:
        return  # what acted is still being observed
    for name in turn.state.rollback.steps:
        record = turn.state.step(name)
        if not record.undone and record.before is not None:
            turn.write(Undoing(at=turn.now, step=name))
            turn.core = replace(turn.core, undoing=name)
            turn.commands.append(DoUndo(name, record.before))
            return


def undone(turn: Turn, message: UndoReturned) -> None:
    """An undo came back."""
    turn.core = replace(turn.core, undoing=None)
    failure = message.failure
    status = Status.rolled_back if failure is None else Status.failed
    detail = "brought back to what it was" if failure is None else f"could not be undone: {failure.reason}"
    number = turn.state.step(message.step).attempt
    turn.write(StepFinished(at=turn.now, step=message.step, attempt=number, status=status, detail=detail))
