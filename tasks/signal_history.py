"""What many looks say together: whether there is an outage. Pure, so that a thousand disturbances can be simulated.

What must never happen: an outage that was none. So
- a death counts after `dead_for`, in at least three looks: supervised restarts are shorter;
- silence counts after `silent_for`: gaps and freezes heal by themselves;
- silence counts only while some other party answers: where nobody answers, it may be us who are cut off;
- silence counts only while no standby receives from the primary: then it lives, and the way to it is broken;
- after a gap between two looks (we were stopped, the clock was set) nothing before it counts.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tasks.contract import Seen
from tasks.signals import Reading, Says, Signal

if TYPE_CHECKING:
    from tasks.detect import DetectOutage, Outage

LOOKS = 3  # a death seen in fewer looks may be one stale answer, or a clock that was set


def judge(step: DetectOutage, earlier: Seen[Outage] | None, now: Seen[Outage]) -> Outage:
    """Join the history with the present look and decide."""
    before = _history(step, earlier, now.at)
    taken = earlier.at if earlier and before else now.at  # no answer of this look is older than the look before
    heard = (_heard(step, one, before.get(one.name), now.at) for one in now.state.signals)
    seen = (
        one if one.waiting else _since(_proven(step, one, before.get(one.name)), before.get(one.name), now.at, taken)
        for one in heard
    )
    blind = _not_blind(list(seen), now.at)
    return _decide(step, _past(step, blind, now.at), now)


def _history(step: DetectOutage, earlier: Seen[Outage] | None, at: datetime) -> dict[str, Reading]:
    longest = step.patience + timedelta(seconds=1)  # between two looks that nothing held up
    if earlier is None or not timedelta(0) <= at - earlier.at <= longest:
        return {}
    return {one.name: one for one in earlier.state.signals}


def _heard(step: DetectOutage, reading: Reading, before: Reading | None, at: datetime) -> Reading:
    """While an answer is awaited, what was said before stands, for `patience`; then no answer is the answer."""
    if not reading.waiting:
        return reading
    if before is None:
        update = {"says": Says.unknown, "detail": "first answer awaited", "waiting_since": at, "since": at}
        return reading.model_copy(update=update)
    began = before.waiting_since or at
    if at - began < step.patience:
        return before.model_copy(update={"waiting": True, "waiting_since": began})
    return reading.model_copy(update={"waiting": False, "waiting_since": began})


def _proven(step: DetectOutage, reading: Reading, before: Reading | None) -> Reading:
    """A stream that is gone proves death only if it was closed, or fresh at the look before; else it was given up."""
    signal = step.signals.get(reading.name)
    if signal is None or signal.kind != "standby" or reading.says is not Says.dead or reading.closed:
        return reading
    if before is not None and before.says in (Says.up, Says.dead):
        return reading
    return reading.model_copy(update={"says": Says.silent})


def _since(reading: Reading, before: Reading | None, at: datetime, taken: datetime) -> Reading:
    same = before if before is not None and before.says is reading.says else None
    began = (before.waiting_since if before else None) or at  # it went silent when it was asked, not when we gave up
    down_since = before.down_since if before is not None and before.down else began
    return reading.model_copy(
        update={
            "since": same.since if same else at,
            "looks": same.looks + 1 if same else 1,
            "down_since": down_since if reading.down else None,
            "known_until": taken,
        }
    )


def _not_blind(readings: list[Reading], at: datetime) -> tuple[Reading, ...]:
    """Where nobody answers, silence is unknown: it may be us who are cut off."""
    if any(one.answered for one in readings):
        return tuple(readings)
    unknown = {"says": Says.unknown, "since": at, "down_since": None, "looks": 1}
    return tuple(
        one.model_copy(update={**unknown, "detail": f"{one.detail}; nobody answers, so it may be us"})
        if one.says is Says.silent
        else one
        for one in readings
    )


def _past(step: DetectOutage, readings: tuple[Reading, ...], at: datetime) -> tuple[Reading, ...]:
    dead = {one.name for one in readings if one.says is Says.dead and _dead_past(step, one)}
    kinds = {name: signal.kind for name, signal in step.signals.items()}
    stopped = any(kinds.get(name) == "control" for name in dead)
    streaming = any(one.says is Says.up and kinds.get(one.name) == "standby" for one in readings)

    def past(one: Reading) -> bool:
        if one.says is not Says.silent or one.down_since is None:
            return one.name in dead
        signal = step.signals.get(one.name)
        if stopped:  # the provider's word explains the silence: no need to wait whether it heals
            return at - one.down_since >= _own(signal, "dead_for", step.dead_for)
        return not streaming and at - one.down_since >= _own(signal, "silent_for", step.silent_for)

    return tuple(one.model_copy(update={"past": past(one)}) for one in readings)


def _dead_past(step: DetectOutage, reading: Reading) -> bool:
    hold = _own(step.signals.get(reading.name), "dead_for", step.dead_for)
    if reading.looks < LOOKS or reading.since is None or reading.known_until is None:
        return False
    return reading.known_until - reading.since >= hold


def _own(signal: Signal | None, name: str, default: timedelta) -> timedelta:
    own: timedelta | None = getattr(signal, name, None)
    return default if own is None else own


def _decide(step: DetectOutage, readings: tuple[Reading, ...], now: Seen[Outage]) -> Outage:
    from tasks.detect import Outage

    agreeing = [one for one in readings if one.past]
    names = ", ".join(f"{one.name} {one.says}" for one in agreeing)
    began = min((one.down_since for one in agreeing if one.down_since), default=None)
    impact = (step.impact_at or began) if agreeing else step.impact_at
    outage: bool | None = None
    reason = f"{len(agreeing)} of {step.agree} signals needed are down past their hold-down" + (
        f": {names}" if names else ""
    )
    if len(agreeing) >= step.agree:
        outage, reason = True, f"{len(agreeing)} signals agree: {names}"
    elif readings and all(one.says is Says.up for one in readings):
        up_since = max(one.since for one in readings if one.since)
        if now.at - up_since >= step.up_for:
            outage, reason = False, f"all {len(readings)} signals are up for {step.up_for.total_seconds():g}s"
    elif step.partial_for is not None and began is not None and now.at - began >= step.partial_for:
        outage, reason = False, f"only {len(agreeing)} of {step.agree} signals needed: {names}"
    return Outage(outage=outage, impact=impact, signals=readings, reason=reason)
