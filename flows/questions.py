"""What people are asked and what they said: gates, manual steps and failed steps, and what silence means."""

from __future__ import annotations

from flows import gates, overrides
from flows.attempts import send_look, wants_to_act
from flows.events import (
    ApprovalGiven,
    Choice,
    DecisionClosed,
    DecisionOpened,
    FenceOverridden,
    GateClosed,
    Noted,
    OverrideGiven,
    Status,
    StepAgain,
    StepFinished,
    StopAsked,
)
from flows.fencing import is_fence
from flows.journal import SaidAboutFailure, SaidAboutGate, SaidMakeWay, SaidNote, SaidOverride, SaidStop
from flows.messages import Letter
from flows.outcomes import failed, finish, last_words
from flows.preflight import begin, holds
from flows.preflight import open_gate as open_problems
from flows.rollback import roll_back
from flows.state import StepRecord
from flows.turn import GATE, IN_DOUBT, Attempt, Phase, Turn
from runbooks.model import Mode
from runbooks.plan import PREFLIGHT, PlannedStep


def take_letter(turn: Turn, letter: Letter) -> None:
    """Adopt an inbox entry once; what fits no question is noted."""
    number, said = letter.received.number, letter.received.said
    if number <= turn.state.adopted:
        return
    match said:
        case SaidAboutGate() if said.gate in {PREFLIGHT, *turn.plan.gate_by_name, *turn.plan.by_id}:
            turn.write(
                ApprovalGiven(at=turn.now, gate=said.gate, answer=said.answer, by=said.by, how=said.how,
                              reason=said.reason, accepts_loss=said.accepts_loss, given_at=letter.received.at, entry=number)
            )  # fmt: skip
        case SaidAboutFailure() if _asked(turn, said.step):
            turn.write(
                DecisionClosed(at=turn.now, step=said.step, choice=said.choice, by=said.by, reason=said.reason, entry=number)
            )
        case SaidOverride() if is_fence(turn.plan, said.step):
            turn.write(
                OverrideGiven(at=turn.now, step=said.step, by=said.by, how=said.how, reason=said.reason,
                              given_at=letter.received.at, entry=number)
            )  # fmt: skip
        case SaidStop():
            turn.write(StopAsked(at=turn.now, by=said.by, reason=said.reason, entry=number))
        case SaidMakeWay() if turn.plan.mode is Mode.drill and not turn.stopping:
            turn.write(StopAsked(at=turn.now, by=said.by, reason=said.reason, entry=number))
        case SaidNote() | SaidMakeWay():
            turn.write(Noted(at=turn.now, text=said.reason, by=said.by, entry=number))
        case _:
            turn.write(Noted(at=turn.now, by=said.by, entry=number, text="answered something that nobody asks"))


def _asked(turn: Turn, step: str) -> bool:
    record = turn.state.decisions.get(step)
    return record is not None and record.closed is None


def judge_gates(turn: Turn) -> None:
    """Close every gate whose rule has decided."""
    for name, record in turn.state.gates.items():
        if not record.waiting or record.opened is None or turn.state.started is None:
            continue
        asked = gates.asked_of(record.opened, turn.state.started)
        said = gates.judge(turn.rule(name).rule, record.answers, asked, turn.now, turn.heard)
        if not isinstance(said, gates.Waiting):
            approved = isinstance(said, gates.Approved)
            accepts = said.accepts_loss if isinstance(said, gates.Approved) else None
            turn.write(
                GateClosed(at=turn.now, gate=name, approved=approved, by=said.by, reason=said.reason, accepts_loss=accepts)
            )
            _gate_closed(turn, name, approved, said.reason, said.by)


def _gate_closed(turn: Turn, name: str, approved: bool, reason: str, by: tuple[str, ...]) -> None:
    planned = turn.plan.by_id.get(name)
    if planned is not None and planned.manual is not None:
        told = f"{', '.join(by)}: {reason}".strip(": ") if by else reason
        if approved:
            finish(turn, planned, Status.done, told or "done by hand", by=", ".join(by))
        else:
            failed(turn, planned, Status.failed if by else Status.refused, told, "" if by else GATE)
        return
    for step in turn.rule(name).covers:
        attempt = turn.core.attempts.get(step)
        if attempt is None or attempt.phase is not Phase.gated:
            continue
        if not approved:
            finish(turn, turn.plan.by_id[step], Status.refused, f"gate {name}: {reason}", code=GATE)
        else:
            _go_on(turn, step, attempt)


def check_first(turn: Turn) -> None:
    """Ask for the preflight, put its problems to people, and let go on what waited for it alone. A level."""
    begin(turn)
    if turn.state.preflight is None:
        return
    waiting = [(name, one) for name, one in turn.core.attempts.items() if one.phase is Phase.gated]
    if waiting and holds(turn) and not turn.stopping:
        open_problems(turn)
    elif turn.core.checks:
        for name, attempt in waiting:
            _go_on(turn, name, attempt)


def _go_on(turn: Turn, step: str, attempt: Attempt) -> None:
    """Let a step that waited act, when nothing else holds it; on a fresh look, since minutes may have passed."""
    planned = turn.plan.by_id[step]
    if holds(turn) or not all(turn.state.gate(other).approved for other in planned.gates):
        return
    left = attempt.paused if attempt.paused is not None else planned.timeout
    attempt = turn.change(step, phase=Phase.looking, paused=None, deadline=turn.now + left)
    if attempt.seen is not None and attempt.seen.at == turn.now and attempt.last is not None:
        turn.change(step, fresh=True)  # answered before it was asked: no time has passed
        wants_to_act(turn, planned, attempt.last)
    else:
        send_look(turn, step, fresh=True)


def expire(turn: Turn) -> None:
    """Give up attempts past their timeout, and take silence for an answer where its time is over."""
    for name, attempt in list(turn.core.attempts.items()):
        if attempt.phase is not Phase.gated and attempt.deadline <= turn.now:
            step = turn.plan.by_id[name]
            failed(turn, step, Status.timed_out, last_words(step, attempt))
    for name, record in list(turn.state.decisions.items()):
        if record.closed is None and record.opened.deadline <= turn.heard:
            turn.write(
                DecisionClosed(at=turn.now, step=name, choice=record.opened.default, by="nobody",
                               reason="nobody answered in time")
            )  # fmt: skip


def judge_overrides(turn: Turn) -> None:
    """Let a failed fence be passed where two people have said so; a level, so a crash loses nothing.

    A gate's no is an answer and not a failure: it cannot be overridden.
    """
    if turn.plan.mode is Mode.dry_run or turn.stopping or turn.state.rollback is not None:
        return
    for name, said in turn.state.overrides.items():
        record = turn.state.step(name)
        if record.status is None or record.lets_go_on or record.code == GATE:
            continue
        passed = overrides.judge(said, record.failed_first, turn.now)
        if passed is not None:
            turn.write(FenceOverridden(at=turn.now, step=name, by=passed.by, reason=passed.reason))
            decision = turn.state.decisions.get(name)
            if decision is not None and decision.closed is None:
                turn.write(DecisionClosed(at=turn.now, step=name, choice=Choice.skip, by=" and ".join(passed.by), reason=passed.reason))
            detail = f"{overrides.loudly(passed.by, passed.reason)}, after: {record.detail}"
            turn.write(
                StepFinished(at=turn.now, step=name, attempt=record.attempt, status=Status.skipped, detail=detail,
                             by=" and ".join(passed.by))
            )  # fmt: skip


def settle_failures(turn: Turn) -> None:
    """For every failure that holds something up: ask, or do what was decided. A level, so a crash loses nothing."""
    if turn.plan.mode is Mode.dry_run or turn.stopping or turn.state.rollback is not None:
        return
    for step in turn.plan.steps:
        record = turn.state.step(step.id)
        if record.status is None or record.lets_go_on or record.code == GATE or record.finished is None:
            continue
        decision = turn.state.decisions.get(step.id)
        if decision is not None and decision.opened.at >= record.finished:
            if decision.closed is not None:
                _carry_out_decision(turn, step, record, decision.closed)
        elif step.on_failure == "ask" or record.code == IN_DOUBT:
            options = (Choice.retry, Choice.skip, Choice.roll_back, Choice.abort)
            turn.write(
                DecisionOpened(at=turn.now, step=step.id, reason=record.detail, options=options,
                               default=Choice.abort, deadline=turn.now + step.ask_timeout)
            )  # fmt: skip
        elif step.on_failure == "roll-back":
            roll_back(turn, "the runbook")


def _carry_out_decision(turn: Turn, step: PlannedStep, record: StepRecord, decision: DecisionClosed) -> None:
    match decision.choice:
        case Choice.retry:
            turn.write(StepAgain(at=turn.now, step=step.id))
        case Choice.skip:
            turn.write(
                StepFinished(at=turn.now, step=step.id, attempt=record.attempt, status=Status.skipped, by=decision.by,
                             accepted=step.on_failure in turn.plan.by_id,  # what deals with its failure runs then
                             detail=f"skipped by {decision.by} after: {record.detail}")
            )  # fmt: skip
        case Choice.roll_back:
            roll_back(turn, decision.by)
        case Choice.abort:
            pass
