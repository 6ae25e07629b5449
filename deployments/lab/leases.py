"""Leases of nodes: a small service outside both regions that tells each node whether it may go on as the primary.

It counts with its own monotonic clock, so nobody's wall clock can fool it. A lease that it does not remember counts as
granted at its own start: after a restart it is silent for nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

TTL: Final = 2.0  # seconds; short, so that a failover in the lab need not wait long


@dataclass
class Lease:
    """One node's lease. Closed, it is granted no more until `release`."""

    clock: Callable[[], float] = time.monotonic
    ttl: float = TTL
    closed: bool = False
    grants: int = 0
    _granted: float = field(init=False)

    def __post_init__(self) -> None:
        self._granted = self.clock()

    def renew(self) -> bool:
        """Grant it for TTL from now, unless it is closed."""
        if self.closed:
            return False
        self._granted = self.clock()
        self.grants += 1
        return True

    def close(self) -> None:
        self.closed = True

    def release(self) -> None:
        self.closed = False

    def status(self) -> dict[str, Any]:
        """Tell what an engine needs to know; `silent_for` never falls while the lease is closed."""
        return {"closed": self.closed, "silent_for": self.clock() - self._granted, "ttl": self.ttl, "grants": self.grants}
