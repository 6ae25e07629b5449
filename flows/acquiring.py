"""Take the leases that a run needs, all or none, from whoever held them: nobody's, a drill's, a dead process's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flows.clock import Clock, uptime
from flows.holders import Dead, Drills, has_ended
from flows.journal import Busy, Held, Holder, Journal, Unreadable
from flows.lease_keeper import CALL, LEASE
from flows.state import fold

NAMELESS = 1.0
"""Seconds to wait for the first event of an execution, which is written right behind its leases."""

Tell = Callable[[str], None]
"""Hears whom a run waits for, once each."""


class TargetBusy(Exception):
    """Somebody else holds what this run would change."""

    def __init__(self, busy: Busy, doing: str = "") -> None:
        self.busy = busy
        at = f", at step {doing}" if doing else ""
        super().__init__(
            f"{busy.target} is held by execution {busy.holder.execution} on {busy.holder.host} (pid {busy.holder.pid}) "
            f"since {busy.since:%Y-%m-%d %H:%M:%S} UTC{at}"
        )


@dataclass(frozen=True)
class Leased:
    """What was acquired: target → token, and the uptime right before it was asked for."""

    tokens: Mapping[str, int] = field(default_factory=dict)
    asked: float = field(default_factory=uptime)


class Acquiring:
    """Of one run that starts or is resumed."""

    def __init__(self, journal: Journal, holder: Holder, clock: Clock, *, live: bool, tell: Tell) -> None:
        """live: drills are asked to make way; others ask nobody."""
        self._journal, self._holder, self._clock, self._tell = journal, holder, clock, tell
        self._drills = Drills(journal, holder.execution, CALL) if live else None
        self._dead = Dead(journal, CALL)
        self._met: dict[str, float] = {}
        self._ends: dict[str, str] = {}
        self._ended: dict[str, bool] = {}

    def start(self, targets: Sequence[str]) -> Leased:
        """For a new execution. Raises TargetBusy at once, but for a holder that is about to let go.

        A drill is waited for as long as the act that it has out, and no longer than its lease lasts; an execution that
        ended while a call was out, as long as that call.
        """
        return self._take(targets, self._about_to_let_go)

    def take_over(self, targets: Sequence[str]) -> Leased:
        """For an execution that somebody carried out before: waits for leases that nobody renews, one TTL at most.

        A renewed lease has a live holder: raises TargetBusy.
        """
        return self._take(targets, lambda busy: self._about_to_let_go(busy) or self._nobody_renews(busy))

    def _take(self, targets: Sequence[str], waits: Callable[[Busy], bool]) -> Leased:
        while True:
            asked = uptime()
            got = self._journal.acquire([f"execution:{self._holder.execution}", *targets], self._holder, LEASE, self._clock.now())
            if isinstance(got, Held):
                return Leased(got.tokens, asked)
            new = got.holder.name not in self._met
            self._met.setdefault(got.holder.name, asked)
            if not waits(got):
                raise TargetBusy(got, where_is(self._journal, got.holder.execution))
            if new:
                self._tell(f"waiting for execution {got.holder.execution} on {got.holder.host} to let go of {got.target}")
            time.sleep(0.05)

    def _about_to_let_go(self, busy: Busy) -> bool:
        is_drill = self._drills.hold(busy, self._clock.now()) if self._drills is not None else False
        if is_drill:
            return self._met_for(busy) < LEASE.total_seconds() + 1
        if is_drill is None:
            return self._met_for(busy) < NAMELESS
        name = busy.holder.name
        if name not in self._ended:
            self._ended[name] = has_ended(self._journal, busy.holder.execution)
        return self._ended[name] and self._met_for(busy) < CALL.total_seconds() + 1

    def _nobody_renews(self, busy: Busy) -> bool:
        if self._dead.let_go(busy.holder, self._clock.now()):
            return True
        renewed = self._ends.setdefault(busy.target, busy.ends) != busy.ends
        return not renewed and self._met_for(busy) < LEASE.total_seconds() + 1

    def _met_for(self, busy: Busy) -> float:
        return uptime() - self._met[busy.holder.name]


def where_is(journal: Journal, execution: str) -> str:
    """The steps an execution is at, for people who find it in their way; '' when a newer version wrote what this one cannot read."""
    try:
        state = fold(event for _, event in journal.read(execution))
    except Unreadable:
        return ""
    return ", ".join(name for name, record in state.steps.items() if record.started and record.status is None)
