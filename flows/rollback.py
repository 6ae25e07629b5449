"""Going back: in reverse, one at a time, from what the journal says was before, and never over the point of no return."""

from __future__ import annotations

from dataclasses import replace

from flows.events import RollbackStarted, Status, StepFinished, Undoing
from flows.messages import UNDO, DoUndo, Revoke, UndoReturned
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
            turn.core = replace(turn.core, undoing=name, undo_until=turn.now + turn.plan.by_id[name].timeout)
            turn.commands.append(DoUndo(name, record.before))
            return


def _between_phases(turn: Turn, name: str) -> bool:
    """Whether a phased change has acted, was seen since, and only waits to go on: it would wait for minutes."""
    change, attempt = change_type(turn.plan.by_id[name]), turn.core.attempts[name]
    if change is None or not change.phased or attempt.phase is not Phase.verifying or attempt.busy:
        return False
    return attempt.seen is not None and (attempt.last_act is None or attempt.seen.at > attempt.last_act)


def undone(turn: Turn, message: UndoReturned) -> None:
    """An undo came back. One that was given up tells nothing; one that a stop kept from leaving is still to be done."""
    if turn.core.undoing != message.step:
        return
    failure = message.failure
    if failure is not None and failure.code == "revoked" and turn.stopping:
        turn.core = replace(turn.core, undoing=None, undo_until=None)
    else:
        _ended(turn, message.step, failure.reason if failure is not None else None)


def expire_undo(turn: Turn) -> None:
    """Give up an undo past its step's timeout: its clients are revoked, and the next one's turn comes."""
    name, until = turn.core.undoing, turn.core.undo_until
    if name is None or until is None or until > turn.now:
        return
    turn.commands.append(Revoke(name, UNDO, "the undo took too long"))
    _ended(turn, name, f"not undone after {turn.plan.by_id[name].timeout.total_seconds():g}s (a call hangs); look at it by hand")


def _ended(turn: Turn, name: str, trouble: str | None) -> None:
    turn.core = replace(turn.core, undoing=None, undo_until=None)
    status = Status.rolled_back if trouble is None else Status.failed
    detail = "brought back to what it was" if trouble is None else f"could not be undone: {trouble}"
    number = turn.state.step(name).attempt
    turn.write(StepFinished(at=turn.now, step=name, attempt=number, status=status, detail=detail))


def is_left(turn: Turn) -> bool:
    """Whether a rollback has begun and something is still to be undone."""
    if turn.state.rollback is None:
        return False
    records = [turn.state.step(name) for name in turn.state.rollback.steps]
    return any(not record.undone and record.before is not None for record in records)
