"""One attempt at a step: what a look or the return of an act leads to.

What must never happen, and where it is prevented:
- an act without its announcement in the journal: `act` is the only place that sends a first DoAct, after its Acting
- an act behind a gate that is not approved, or on an old look: `_wants_to_act` and the attempt's `fresh`
- an act after a stop, in a rollback, or in a dry run: `Turn.may_change` is asked before every one
- a change done twice: an attempt that acted only looks until the world answers (declared resends excepted)
"""

from __future__ import annotations

from pydantic import BaseModel

from flows.events import Acted, Acting, Marked, Status
from flows.messages import DoAct, DoLook, Failure, Look
from flows.outcomes import failed, finish, open_gate
from flows.turn import Attempt, Phase, Turn, interval
from runbooks.model import Mode
from runbooks.plan import PlannedStep, change_type, is_change
from tasks.contract import Seen


def saw(turn: Turn, step: PlannedStep, look: Look) -> None:
    """A look came back."""
    attempt = turn.core.attempts[step.id]
    action = step.action_type
    if action is None:
        raise AssertionError(f"{step.id} has no action, yet was looked at")
    streak = attempt.streak + 1 if look.done else 0
    since = (attempt.steady_since or turn.now) if look.done else None
    attempt = turn.change(
        step.id, seen=Seen(look.state, turn.now), last=look, streak=streak, steady_since=since, trouble=""
    )
    if look.done and _steady(turn, look, attempt):
        _succeeded(turn, step, look)
    elif turn.plan.mode is Mode.dry_run or (turn.plan.mode is Mode.drill and step.drill == "simulate"):
        _would(turn, step, look)
    elif not is_change(step) or look.done:
        turn.change(step.id, due=turn.now + action.interval)
    elif attempt.phase is Phase.verifying:
        _verify(turn, step, look)
    else:
        _consider(turn, step, look)


def _steady(turn: Turn, look: Look, attempt: Attempt) -> bool:
    if turn.plan.mode is Mode.dry_run or attempt.steady_since is None:
        return True
    return attempt.streak >= look.steady.times and turn.now - attempt.steady_since >= look.steady.lasting


def _succeeded(turn: Turn, step: PlannedStep, look: Look) -> None:
    record = turn.state.step(step.id)
    ours = record.acting or not is_change(step)
    detail, ends = look.explain, look.ends or ""
    if turn.plan.mode is Mode.dry_run:
        detail, ends = (f"{detail} (a run would end here: {ends})" if ends else detail), ""
    else:
        for mark, when in look.marks.items():
            if mark not in turn.state.marks:
                turn.write(Marked(at=turn.now, mark=mark, when=when or turn.now))
    finish(turn, step, Status.done if ours else Status.already, detail, look, ends=ends)


def _would(turn: Turn, step: PlannedStep, look: Look) -> None:
    """A dry run, or a simulated step: say what would happen, and what would prevent it."""
    if look.refuse:
        finish(turn, step, Status.failed, f"would be refused: {look.refuse}", look)
    elif is_change(step):
        finish(turn, step, Status.would, f"would {look.describe}", look)
    else:
        finish(turn, step, Status.would, f"would wait; now: {look.explain}", look)


def _consider(turn: Turn, step: PlannedStep, look: Look) -> None:
    """Not done yet: refuse, wait, ask people, or act."""
    attempt = turn.core.attempts[step.id]
    if attempt.refused is not None and not look.underway:
        failed(turn, step, Status.failed, attempt.refused.reason, attempt.refused.code)
    elif look.refuse:
        failed(turn, step, Status.refused, look.refuse)
    elif look.underway:
        turn.change(step.id, phase=Phase.verifying, due=turn.now + interval(step))
    else:
        _wants_to_act(turn, step, look)


def _wants_to_act(turn: Turn, step: PlannedStep, look: Look) -> None:
    closed = [name for name in step.gates if not turn.state.gate(name).approved]
    if not turn.may_change():
        turn.set(step.id, None)  # nothing of it was done; it stays unfinished and can be resumed
    elif closed:
        attempt = turn.core.attempts[step.id]
        turn.change(step.id, phase=Phase.gated, paused=attempt.deadline - turn.now, fresh=False, due=None)
        for name in closed:
            open_gate(turn, turn.rule(name), step, look)
    elif step.gates and not turn.core.attempts[step.id].fresh:
        # the gate was open before this look went out only if it opened before the attempt did; else look again
        records = [turn.state.gate(name).closed for name in step.gates]
        opened = max((record.at for record in records if record is not None), default=turn.now)
        started = turn.state.step(step.id).started or turn.now
        if opened <= started:
            act(turn, step, look)
        else:
            send_look(turn, step.id, fresh=True)
    else:
        act(turn, step, look)


def act(turn: Turn, step: PlannedStep, look: Look) -> None:
    """Announce, then act. The only way to a first DoAct."""
    attempt = turn.core.attempts[step.id]
    before = look.state.model_dump(mode="json")
    turn.write(
        Acting(at=turn.now, step=step.id, attempt=attempt.number, describe=look.describe, before=before,
               target=look.target)
    )  # fmt: skip
    _send_act(turn, step, look.state)


def _send_act(turn: Turn, step: PlannedStep, before: BaseModel) -> None:
    attempt = turn.core.attempts[step.id]
    turn.change(
        step.id, phase=Phase.acting, busy=True, due=None, acts=attempt.acts + 1, last_act=turn.now, streak=0,
        steady_since=None,
    )  # fmt: skip
    turn.commands.append(DoAct(step.id, attempt.number, before))


def _verify(turn: Turn, step: PlannedStep, look: Look) -> None:
    """Acted or underway, not done: send again where the action says so, else keep looking."""
    attempt, change = turn.core.attempts[step.id], change_type(step)
    resend = change.resend if change is not None else None
    if resend is not None and not attempt.acts and not look.underway:
        turn.change(step.id, phase=Phase.looking)
        _consider(turn, step, look)  # found underway, and it is not any more: what is left is ours to do
        return
    due = resend is not None and attempt.last_act is not None and turn.now >= attempt.last_act + resend
    if due and attempt.acts and not look.underway and turn.may_change():
        _send_act(turn, step, look.state)
    else:
        turn.change(step.id, due=turn.now + interval(step))


def look_failed(turn: Turn, step: PlannedStep, failure: Failure) -> None:
    """A look could not be had: a passing trouble is looked at again, anything else ends the step."""
    attempt = turn.core.attempts[step.id]
    if failure.ours:
        failed(turn, step, Status.errored, failure.reason, failure.code)
    elif attempt.refused is not None:
        failed(turn, step, Status.failed, attempt.refused.reason, attempt.refused.code)
    elif turn.plan.mode is Mode.dry_run or not (failure.retry or attempt.phase is Phase.verifying):
        failed(turn, step, Status.failed, failure.reason, failure.code)
    else:
        turn.change(step.id, due=turn.now + interval(step), trouble=failure.reason, streak=0, steady_since=None)


def send_look(turn: Turn, step: str, *, fresh: bool = False) -> None:
    """Send a look out, with what was seen before."""
    attempt = turn.change(step, busy=True, due=None, fresh=fresh or turn.core.attempts[step].fresh)
    acted = turn.state.step(step).acting
    turn.commands.append(DoLook(step, attempt.number, attempt.seen, acted))


def act_returned(turn: Turn, step: PlannedStep, failure: Failure | None) -> None:
    """The call of an act came back; whether it happened, the next look tells."""
    attempt = turn.change(step.id, busy=False)
    first = attempt.acts == 1 or failure is not None
    if first:
        refused = failure.reason if failure else None
        turn.write(
            Acted(at=turn.now, step=step.id, attempt=attempt.number, refused=refused, code=failure.code if failure else "")
        )
    if failure is None:
        turn.change(step.id, phase=Phase.verifying, due=turn.now)
    elif failure.ours:
        failed(turn, step, Status.errored, failure.reason, failure.code)
    elif failure.retry and attempt.acts < step.retry.attempts and turn.may_change():
        pause = min(step.retry.longest, step.retry.backoff * step.retry.factor ** (attempt.acts - 1))
        # look again before the next act: the answer may have been lost after the effect
        turn.change(step.id, phase=Phase.looking, due=turn.now + pause, trouble=failure.reason, fresh=True)
    else:
        turn.change(step.id, phase=Phase.looking, due=turn.now, refused=failure, trouble=failure.reason)
