"""Going back: in reverse, one at a time, from what the journal says was before, and never over the point of no return."""

from __future__ import annotations

from dataclasses import replace

from flows.events import RollbackStarted, Status, StepFinished, Undoing
from flows.messages import DoUndo, Revoke, UndoReturned
from flows.rules import rollback_order
from flows.turn import Phase, Turn
from runbooks.plan import change_type


def roll_back(turn: Turn, by: str) -> None:
    """Begin to go back; a second request changes nothing."""
    if turn.state.rollback is None:
        steps, left = rollback_order(turn.plan, turn.state)
        turn.write(RollbackStarted(at=turn.now, steps=steps, left=left, by=by))


def continue_rollback(turn: Turn) -> None:
    """Undo the next change once everything that acted was observed."""
    for name, attempt in list(turn.core.attempts.items()):
        untouched = attempt.phase is Phase.looking and not turn.state.step(name).acting
        if attempt.phase is Phase.gated or untouched or _between_phases(turn, name):
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


def _between_phases(turn: Turn, name: str) -> bool:
    """Whether a phased change has acted, was seen since, and only waits to go on: it would wait for minutes."""
    change, attempt = change_type(turn.plan.by_id[name]), turn.core.attempts[name]
    if change is None or not change.phased or attempt.phase is not Phase.verifying or attempt.busy:
        return False
    return attempt.seen is not None and (attempt.last_act is None or attempt.seen.at > attempt.last_act)


def undone(turn: Turn, message: UndoReturned) -> None:
    """An undo came back."""
    turn.core = replace(turn.core, undoing=None)
    failure = message.failure
    status = Status.rolled_back if failure is None else Status.failed
    detail = "brought back to what it was" if failure is None else f"could not be undone: {failure.reason}"
    number = turn.state.step(message.step).attempt
    turn.write(StepFinished(at=turn.now, step=message.step, attempt=number, status=status, detail=detail))
