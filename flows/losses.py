"""What a promotion would lose, as a gate states it and as it is checked again right before the promotion acts.

Must never happen: an act that may lose more than the RPO allows, unless a person accepted as much by name.
`loss_is_accepted` is asked with the look that the act is about to follow, after the fence; gates ask earlier, with what
the steps before told.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from flows.events import Status
from flows.gates import Stake, enough, show_loss
from flows.loss_report import lost_of
from flows.messages import Look
from flows.turn import Turn
from runbooks.plan import GateRule, Plan, PlannedStep, is_change, may_lose
from tasks.contract import Loss


def loss_is_accepted(turn: Turn, step: PlannedStep, look: Look) -> bool:
    """Whether acting now, on this look, loses no more than the RPO allows or the gate's approval accepted."""
    if not may_lose(step):
        return True
    closed = turn.state.gate(step.gates[0]).closed if step.gates else None
    loss = look.loss if look.loss is not None else Loss()
    return Stake(loss, turn.now, turn.plan.rpo).accepted(closed.accepts_loss if closed else None, turn.now)


def loss_behind(turn: Turn, gate: GateRule, step: PlannedStep, look: Look | None) -> Loss | None:
    """The loss that opening this gate lets happen, as known now; None where it guards none or nobody told yet.

    From the step's own look where it is the one that may lose, else the worst that the steps before it told.
    """
    guarded = [name for name in turn.plan.guards_loss.get(gate.name, ()) if turn.state.step(name).status is None]
    if step.id in guarded:
        return look.loss if look is not None and look.loss is not None else Loss()
    told = []
    for name in sorted(_before(turn.plan, guarded)):
        record = turn.state.step(name)
        if record.loss is not None and record.finished is not None and not may_lose(turn.plan.by_id[name]):
            told.append(_grown(record.loss, record.finished, turn.now))
    return _worst(told)


def tell_loss(turn: Turn, loss: Loss, deadline: datetime) -> str:
    """One line of a gate's evidence: the range, and what an approval must say about it."""
    stake = Stake(loss, turn.now, turn.plan.rpo)
    told = f"loss: {show_loss(stake, turn.now)}"
    if stake.over(turn.now):
        return f"{told}, over the rpo: an approval must accept it by name, such as --accept-loss {enough(stake, turn.now)}"
    if stake.rpo is not None and stake.over(deadline):
        when = turn.now + (stake.rpo - stake.at_most(turn.now))
        return f"{told}, growing until the fence holds: from {when:%H:%M:%S} UTC on an approval must accept it by name"
    return told


def lost_lines(turn: Turn, gate: GateRule, step: PlannedStep) -> tuple[str, ...]:
    """Lines of a gate's evidence: what the steps before it listed as lost, until a change that follows on that is made."""
    found: list[str] = []
    for name in sorted(_before(turn.plan, (step.id, *gate.covers))):
        made = any(is_change(turn.plan.by_id[one]) and turn.state.step(one).status is Status.done for one in turn.plan.dependents[name])
        lost = None if made else lost_of(turn.plan.by_id[name], turn.state.step(name))
        found += lost.lines() if lost is not None else ()
    return tuple(found)


def _before(plan: Plan, steps: Iterable[str]) -> set[str]:
    found: set[str] = set()
    ahead = list(steps)
    while ahead:
        new = set(plan.by_id[ahead.pop()].after) - found
        found |= new
        ahead += new
    return found


def _grown(loss: Loss, seen: datetime, now: datetime) -> Loss:
    if loss.at_most is None or not loss.grows:
        return loss
    return loss.model_copy(update={"at_most": loss.at_most + max(timedelta(0), now - seen).total_seconds()})


def _worst(told: list[Loss]) -> Loss | None:
    if not told:
        return None
    known = [loss.at_most for loss in told if loss.at_most is not None]
    return Loss(
        at_least=max(loss.at_least for loss in told), at_most=max(known) if len(known) == len(told) else None,
        grows=any(loss.grows for loss in told),
    )  # fmt: skip

