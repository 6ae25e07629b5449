"""One attempt at a step: what a look or the return of an act leads to.

What must never happen, and where it is prevented:
- an act without its announcement in the journal: `act` is the only place that sends a first DoAct, after its Acting
- an act behind a gate that is not approved, on an old approval or on an old look: `wants_to_act`, `_needs_asking` and
  the attempt's `fresh`
- a change before the preflight was read, or with problems that nobody accepted: `holds`, in the same place
- an act that may lose more than the RPO and a person allow, seen right before it: `wants_to_act`
- an act after a stop, in a rollback, or in a dry run: `Turn.may_change` is asked before every one
- a change done twice: an attempt that acted only looks until the world answers (declared resends excepted); a phased
  change acts again only when its look is neither done nor underway, and announces that act like the first
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ValidationError

from flows import gates
from flows.events import Acted, Acting, Marked, Status, StepWaits
from flows.fencing import unfenced
from flows.losses import loss_is_accepted
from flows.messages import DoAct, DoLook, Failure, Look
from flows.outcomes import failed, finish, open_gate
from flows.preflight import holds
from flows.turn import GATE, Attempt, Phase, Turn, interval
from runbooks.model import Mode
from runbooks.plan import PREFLIGHT, PlannedStep, change_type, is_change
from tasks.contract import Seen

DEAF = timedelta(seconds=1)
"""How old the last reading of the kill switch may be when an act is sent again."""
SOON = timedelta(milliseconds=20)
"""Shortest pause between two looks at what was acted on."""


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
    if attempt.refused is not None and _was_kept(turn, attempt.refused):
        turn.set(step.id, None)
    elif attempt.refused is not None and not look.underway:
        failed(turn, step, Status.failed, attempt.refused.reason, attempt.refused.code)
    elif look.refuse:
        failed(turn, step, Status.refused, look.refuse)
    elif look.underway:
        turn.change(step.id, phase=Phase.verifying, due=turn.now + interval(step), refused=None)
    else:
        wants_to_act(turn, step, look)


def wants_to_act(turn: Turn, step: PlannedStep, look: Look) -> None:
    """Nothing speaks against acting but what people must say first, or a look that is too old."""
    asking = {name: why for name in step.gates if (why := _needs_asking(turn, step, name, look)) is not None}
    unchecked = holds(turn) and not _retreats(turn, step, look)
    if not turn.may_change():
        turn.set(step.id, None)  # nothing of it was done; it stays unfinished and can be resumed
    elif unchecked and turn.state.gate(PREFLIGHT).closed is not None:
        finish(turn, step, Status.refused, f"gate {PREFLIGHT}: what it found was not accepted", code=GATE)
    elif asking or unchecked:
        _wait_at(turn, step, look, asking)
    elif not _is_fresh(turn, step):
        send_look(turn, step.id, fresh=True)
    elif loss_is_accepted(turn, step, look):
        act(turn, step, look)
    elif step.gates:
        _wait_at(turn, step, look, {step.gates[0]: ""})  # approved, and the loss has grown beyond what was accepted
    else:
        failed(turn, step, Status.refused, "more may be lost than the rpo allows, and no gate asks who accepts it")


def _wait_at(turn: Turn, step: PlannedStep, look: Look, asking: Mapping[str, str]) -> None:
    """Wait for people. asking: gates with why an approval that was there counts no more, '' for none."""
    attempt, change = turn.core.attempts[step.id], change_type(step)
    turn.change(step.id, phase=Phase.gated, paused=attempt.deadline - turn.now, fresh=False, due=None)
    if change is not None and change.fences:
        turn.write(StepWaits(at=turn.now, step=step.id, seen=look.state.model_dump(mode="json")))
    for name, why in asking.items():
        open_gate(turn, turn.rule(name), step, look, why)


def _retreats(turn: Turn, step: PlannedStep, look: Look) -> bool:
    """A phase that fails under customers is taken back at once, whoever has to be asked to go on."""
    return look.retreats and turn.state.step(step.id).advanced_at is not None


def _is_fresh(turn: Turn, step: PlannedStep) -> bool:
    """Whether this look went out after the gates opened; else minutes may lie between the two."""
    if not step.gates or turn.core.attempts[step.id].fresh:
        return True
    records = [turn.state.gate(name).closed for name in step.gates]
    opened = max((record.at for record in records if record is not None), default=turn.now)
    return opened <= (turn.state.step(step.id).started or turn.now)


def _needs_asking(turn: Turn, step: PlannedStep, gate: str, look: Look) -> str | None:
    """None where the gate lets the step act now; else why an approval that was there counts no more, '' for none."""
    record, acted = turn.state.gate(gate), turn.state.step(step.id).advanced_at
    if record.closed is None or not record.approved:
        return ""
    if _retreats(turn, step, look):
        return None
    rule, opened = turn.rule(gate).rule, record.closed.at
    approval = gates.Standing(
        by=record.closed.by,
        given=gates.oldest_word(record.answers, record.closed.by, opened),
        used=acted if acted is not None and acted >= opened else None,
        preapproved=turn.plan.mode in rule.preapprove,
    )
    return gates.expired(rule, approval, turn.now)


def act(turn: Turn, step: PlannedStep, look: Look) -> None:
    """Announce, then act. The only way to a first DoAct, of a phase too."""
    attempt = turn.core.attempts[step.id]
    before = look.state.model_dump(mode="json")
    warning = unfenced(step.fenced_by, turn.state)
    turn.write(
        Acting(at=turn.now, step=step.id, attempt=attempt.number, before=before, target=look.target,
               describe=f"{warning}; {look.describe}" if warning else look.describe, retreats=look.retreats)
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
    """Acted or underway, not done: the next phase or the same act again where the action says so, else keep looking."""
    attempt, change = turn.core.attempts[step.id], change_type(step)
    if change is not None and change.phased:
        _consider(turn, step, look)  # as for a first act: what it refuses, its gates, its announcement
        return
    resend = change.resend if change is not None else None
    if resend is not None and not attempt.acts and not look.underway:
        turn.change(step.id, phase=Phase.looking)
        _consider(turn, step, look)  # found underway, and it is not any more: what is left is ours to do
        return
    due = resend is not None and attempt.last_act is not None and turn.now >= attempt.last_act + resend
    listens = turn.now - turn.heard <= DEAF  # it announces nothing, so nothing else asks the kill switch
    if due and attempt.acts and not look.underway and listens and turn.may_change():
        _send_act(turn, step, look.state)
    else:
        turn.change(step.id, due=turn.now + _pause(turn, step))


def _pause(turn: Turn, step: PlannedStep) -> timedelta:
    """Until the next look at what was acted on: at first soon, then a quarter of the time waited, the interval at most.

    So what is done after a second is known at most a quarter of a second later, and nobody is asked more often for long.
    """
    longest, acted = interval(step), turn.core.attempts[step.id].last_act
    if acted is None:
        return longest
    change = change_type(step)
    soonest = change.soonest if change is not None and change.soonest is not None else max(longest / 5, SOON)
    return min(longest, max(soonest, (turn.now - acted) / 4))


def _was_kept(turn: Turn, failure: Failure) -> bool:
    """Whether the call was kept from leaving in a run that ends: the step is no failure, and who resumes the run looks."""
    return failure.code == "revoked" and turn.stopping


def look_failed(turn: Turn, step: PlannedStep, failure: Failure) -> None:
    """A look could not be had: a passing trouble is looked at again, anything else ends the step."""
    attempt = turn.core.attempts[step.id]
    if failure.ours:
        failed(turn, step, Status.errored, failure.reason, failure.code)
    elif _was_kept(turn, failure):
        turn.set(step.id, None)
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
    earlier = attempt.seen if attempt.seen is not None else _remembered(turn, step)
    turn.commands.append(DoLook(step, attempt.number, earlier, acted))


def _remembered(turn: Turn, step: str) -> Seen[Any] | None:
    """What was known when this execution acted on the step in a process that died: a resumed attempt goes on from there.

    Of a phased change the last that was announced, which its own end forgets; of any other the first. Must never happen: a
    fence forgets what the old primary told before it fell silent; so of a fence that never acted what it was last seen as.
    """
    change, record = change_type(turn.plan.by_id[step]), turn.state.step(step)
    if change is None:
        return None
    known, at = record.announced if change.phased else record.before, record.acted_at
    if (not record.acting or known is None) and change.fences and record.told is not None:
        known, at = record.told
    elif not record.acting:
        return None
    if known is None or at is None:
        return None
    with suppress(ValidationError):  # written by a version that knew other fields: then it begins anew
        return Seen(change.state_type().model_validate(known), at)
    return None


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
        change = change_type(step)
        acts = 0 if change is not None and change.phased else attempt.acts  # `retry` counts the acts of one phase
        turn.change(step.id, phase=Phase.verifying, due=turn.now, acts=acts)
    elif failure.ours:
        failed(turn, step, Status.errored, failure.reason, failure.code)
    elif failure.retry and attempt.acts < step.retry.attempts and turn.may_change():
        pause = min(step.retry.longest, step.retry.backoff * step.retry.factor ** (attempt.acts - 1))
        # look again before the next act: the answer may have been lost after the effect
        turn.change(step.id, phase=Phase.looking, due=turn.now + pause, trouble=failure.reason, fresh=True)
    else:
        turn.change(step.id, phase=Phase.looking, due=turn.now, refused=failure, trouble=failure.reason)
