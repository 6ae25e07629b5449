"""The engine's decisions: a pure function from (state, message) to (state, commands). No clock, no thread, no journal.

    react(core, message) -> (core, commands)         commands are carried out in order; a Write before what it announces

Messages change what is known; `_advance` then does whatever is due. What is due is a level and not an edge: it follows
from the state alone, so a crash between any two events loses nothing, and a resumed execution goes on by itself.
"""

from __future__ import annotations

from datetime import datetime

from flows.attempts import act_returned, look_failed, saw, send_look
from flows.events import StopAsked
from flows.messages import ActReturned, Command, Failure, Learn, Letter, Looked, Message, Saw, Stop, Tick, UndoReturned
from flows.preflight import take
from flows.progress import end, start_ready, stop_attempts, tell_forecast
from flows.questions import check_first, expire, judge_gates, judge_overrides, settle_failures, take_letter
from flows.rollback import continue_rollback, expire_undo, undone
from flows.turn import Attempt, Core, Phase, Turn

__all__ = ["Attempt", "Core", "Phase", "next_due", "react"]


def react(core: Core, message: Message) -> tuple[Core, tuple[Command, ...]]:
    """Take one message in; give the new core and what is to be done, in order."""
    turn = Turn(core, message.at)
    _take(turn, message)
    if not turn.core.ended:
        _advance(turn)
    return turn.core, tuple(turn.commands)


def next_due(core: Core) -> datetime | None:
    """When something is due without any message; None when nothing is."""
    times: list[datetime] = []
    for attempt in core.attempts.values():
        if attempt.phase is not Phase.gated:
            times.append(attempt.deadline)
        if attempt.due is not None and not attempt.busy:
            times.append(attempt.due)
    if core.undo_until is not None:
        times.append(core.undo_until)
    times += [gate.opened.deadline for gate in core.state.gates.values() if gate.waiting and gate.opened]
    times += [record.opened.deadline for record in core.state.decisions.values() if record.closed is None]
    return min(times, default=None)


def _take(turn: Turn, message: Message) -> None:
    """Learn what a message tells. One of an attempt that was given up tells nothing."""
    match message:
        case Saw():
            attempt = turn.core.attempts.get(message.step)
            if attempt is not None and attempt.number == message.attempt:
                turn.change(message.step, busy=False, due=None)
                if isinstance(message.look, Failure):
                    look_failed(turn, turn.plan.by_id[message.step], message.look)
                else:
                    saw(turn, turn.plan.by_id[message.step], message.look)
        case ActReturned():
            attempt = turn.core.attempts.get(message.step)
            if attempt is not None and attempt.number == message.attempt:
                act_returned(turn, turn.plan.by_id[message.step], message.failure)
        case UndoReturned():
            undone(turn, message)
        case Letter():
            take_letter(turn, message)
        case Stop():
            if not turn.stopping:
                turn.write(StopAsked(at=turn.now, by=message.by, reason=message.reason))
        case Looked():
            take(turn, message)
        case Learn():
            turn.write(message.learned.model_copy(update={"at": turn.now}))
        case Tick():
            pass


def _advance(turn: Turn) -> None:
    """Judge, time out, start and end whatever is due; nothing here depends on which message came."""
    check_first(turn)
    judge_gates(turn)
    expire(turn)
    expire_undo(turn)
    judge_overrides(turn)
    settle_failures(turn)
    if turn.state.rollback is not None:
        continue_rollback(turn)
    elif not turn.stopping:
        while start_ready(turn):
            pass
    check_first(turn)
    judge_gates(turn)  # a gate that was answered early opens and closes in the same turn
    for name, attempt in list(turn.core.attempts.items()):
        if not attempt.busy and attempt.due is not None and attempt.due <= turn.now:
            send_look(turn, name)
    stop_attempts(turn)
    tell_forecast(turn)
    end(turn)
