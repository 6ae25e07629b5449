"""The leases that one engine holds: counted, renewed on a thread of its own, and asked right before every call.

What must never happen: a call after the lease ended. `guard` leaves room for the longest call, and counts from before the
journal was asked, so that a slow one lengthens nothing (docs/leases.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta

from flows.clock import Clock, uptime
from flows.holders import Drills
from flows.journal import Busy, Holder, InDoubt, Journal, JournalError, LeaseLost
from tasks.errors import ActionFailed, Revoked

LEASE = timedelta(seconds=15)
"""How long a lease lasts without renewal; renewed every third of it."""
CALL = timedelta(seconds=4)
"""Longest wait for one call; no call leaves when less than this is left of the lease."""


class LeaseKeeper:
    """Of one engine; a dry run's holds nothing."""

    def __init__(
        self, journal: Journal, clock: Clock, holder: Holder, tokens: Mapping[str, int], since: float, *,
        live: bool,
    ) -> None:  # fmt: skip
        """tokens: what is held already; since: uptime right before it was asked for; live: drills make way for it."""
        self.holder = holder
        self._journal = journal
        self._clock = clock
        self._tokens = dict(tokens)
        self._until = since + LEASE.total_seconds() if tokens else None
        self._given_back = self._lost = False  # apart from `_until`, which a renewal under way may set once more
        self._drills = Drills(journal, holder.execution, CALL) if live else None
        self._gives_way = False
        self._over = threading.Event()

    @property
    def tokens(self) -> Mapping[str, int]:
        """Target → token; empty when this engine holds nothing. Safe to read from any thread."""
        return self._tokens

    @property
    def ends(self) -> float:
        """The uptime at which they end unless they are renewed; 0 when nothing is held, or it was given back."""
        return 0.0 if self._given_back or self._lost else self._until or 0.0

    def guard(self) -> None:
        """Right before every call: raise Revoked when less of the lease is left than the longest call may take, or all is over."""
        if self._over.is_set():  # what the preflight still asks would go on for its patience
            raise Revoked("the execution has ended")
        if self._lost or (self._until is not None and uptime() + CALL.total_seconds() > self._until):
            raise Revoked("the lease may be lost")

    def take(self, target: str) -> int | None:
        """Take another target's lease; give its token, or None when it was held already.

        Raises ActionFailed, with `retry` where a drill was asked to make way, and LeaseLost. Must never happen: a lease that
        ended, and that another may have had meanwhile, comes back by this, and an act goes on with what it saw before.
        """
        if target in self._tokens:
            return None
        got = self._journal.acquire([*self._tokens, target], self.holder, LEASE, self._clock.now())
        if isinstance(got, Busy):
            held_by = f"execution {got.holder.execution} since {got.since:%H:%M:%S} UTC"
            if self._drills is not None and self._drills.hold(got, self._clock.now()):
                raise ActionFailed(f"{got.target} is held by {held_by}, a drill, which makes way", code="busy", retry=True)
            raise ActionFailed(f"{got.target} is held by {held_by}", code="busy")
        lost = next((name for name, token in self._tokens.items() if got.tokens[name] != token), None)
        if lost is not None:
            self._lost = True
            raise LeaseLost(f"execution {self.holder.execution}: the lease on {lost} had ended")
        self._tokens = dict(got.tokens)
        return got.tokens[target]

    def make_way(self) -> None:
        """Renew no more: what is held ends with the act that is out, and after LEASE at the latest. Safe from any thread."""
        self._gives_way = True

    def keep(self, lost: Callable[[str], None]) -> None:
        """Begin to renew; `lost` is told once, when that is too late."""
        if self._tokens:
            threading.Thread(target=lambda: self._renew(lost), name="lease", daemon=True).start()

    def _renew(self, lost: Callable[[str], None]) -> None:
        while not self._over.wait(LEASE.total_seconds() / 3):
            if self._gives_way:
                return
            before = uptime()
            try:
                self._journal.renew(self.holder, LEASE, self._clock.now())
                self._until = before + LEASE.total_seconds()
            except LeaseLost as error:
                self._lost = True
                lost(str(error))
                return
            except JournalError:
                continue  # `guard` ends the calls in time if it stays away

    def end(self) -> None:
        """Let no further call out, and renew no more."""
        self._over.set()

    def give_back(self, *, calls_out: bool) -> None:
        """Release everything; what cannot be released expires by itself.

        Must never happen: another takes what a call of ours still changes. calls_out: one was given up so lately that it
        may be; then the leases end with the longest call, and this process need not wait for it.

        Must never happen: the copy of the journal says that a lease lasts which another may have taken meanwhile. So it is
        over as soon as its release may have been written, and lasts only when it was not for certain.
        """
        if not self._tokens:
            return
        self._given_back = True
        try:
            if calls_out:
                self._journal.renew(self.holder, CALL, self._clock.now())
            else:
                self._journal.release(self.holder, self._clock.now())
        except (InDoubt, LeaseLost):
            pass
        except JournalError:
            self._given_back = False
