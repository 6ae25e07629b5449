"""A node that fences itself: its watchdog stops PostgreSQL when it cannot renew the node's lease, and a timer stops the host.

The argument. The node's watchdog counts TTL from before it asks for a renewal, so its end is never later than the lease
service's own (grant + TTL). By then it has killed PostgreSQL, or a hardware timer that only a fresh lease winds up has
reset the host. So once the service has granted nothing for TTL + skew, by its own monotonic clock, and grants nothing
any more (closed), no write is acknowledged by the node. It stays so over restarts because PostgreSQL lets clients in
only after a fresh grant.

What must never count, and the line that prevents it: silence while the lease can still be renewed (`closed`), the
engine's own clock (`silent_for` is the service's), a lease that lasts longer than declared (`ttl`), a node that still
answers (`Fencing.holds`), and an agent alone: on a frozen host it is frozen too, and after a thaw PostgreSQL may answer
before the agent runs (`reset_by` must name a hardware timer).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.clients import Clients
from tasks.contract import Duration, Frozen
from tasks.errors import ActionFailed


class SelfFence(Frozen):
    """The lease that a node's own watchdog must renew, and how long it lasts."""

    lease: str = Field(
        description="GET gives JSON: `closed`, `silent_for` and `ttl` (seconds, by the service's own monotonic clock, "
        "from its last grant or its start); POST to it + '/close' ends renewals for good. Must live outside the region.",
        examples=["http://127.0.0.1:7000/leases/east"],
        pattern="^https?://",
    )
    ttl: Duration = Field(description="How long a grant lasts at most; the node's watchdog has stopped it by then.")
    skew: Duration = Field(
        description="Added to the TTL: what clocks may drift in that time, and the longest that stopping takes."
    )
    reset_by: Literal["hardware-timer"] = Field(
        description="What resets a host whose watchdog hangs or is frozen. Only a timer outside the host's own "
        "scheduling counts: a paused virtual machine pauses an emulated one, so do not declare it there."
    )

    @model_validator(mode="after")
    def _takes_time(self) -> SelfFence:
        if self.ttl <= timedelta(0) or self.skew <= timedelta(0):
            raise ValueError("ttl and skew must be longer than 0s: no clock and no stop is that exact")
        return self

    @property
    def wait(self) -> timedelta:
        """From the last grant to the moment at which the node has stopped."""
        return self.ttl + self.skew

    def by_hand(self) -> tuple[str, ...]:
        """Close the lease, and wait until it has run out."""
        return (
            f"curl --fail -X POST {self.lease.rstrip('/')}/close   # where it cannot be stopped as below",
            f"curl --fail {self.lease}   # then this must say closed, and silent_for {self.wait.total_seconds():g} or more",
        )


class LeaseSeen(BaseModel):
    """What the lease service says. `silent_for` and `ttl` are seconds."""

    model_config = ConfigDict(frozen=True, strict=True)
    closed: bool
    silent_for: float = Field(ge=0, allow_inf_nan=False)
    ttl: float = Field(gt=0, allow_inf_nan=False)


def expired(declared: SelfFence, seen: LeaseSeen) -> bool:
    """Whether the node has stopped for certain: no renewal is possible any more, and the last one has run out."""
    in_time = seen.ttl <= declared.ttl.total_seconds()
    return seen.closed and in_time and seen.silent_for >= declared.wait.total_seconds()


def told(declared: SelfFence, seen: LeaseSeen) -> str:
    """Say what is so and what is missing."""
    limit = declared.wait.total_seconds()
    if seen.ttl > declared.ttl.total_seconds():
        return f"its lease lasts {seen.ttl:g}s, and ttl says {declared.ttl.total_seconds():g}s, so it proves nothing"
    if not seen.closed:
        return f"its lease can still be renewed (last {seen.silent_for:.1f}s ago)"
    word = "so its watchdog has stopped it" if expired(declared, seen) else f"wait for {limit:g}s"
    return f"its lease is closed and was renewed {seen.silent_for:.1f}s ago, {word}"


def look_at_lease(declared: SelfFence, clients: Clients) -> LeaseSeen:
    """Ask the lease service; raises ActionFailed where it could not be asked or says nothing of use."""
    from tasks.fence_calls import call

    answer = call(declared.lease, "GET", clients)
    try:
        return LeaseSeen.model_validate(answer.json())
    except ValueError:  # no JSON, or not this
        raise ActionFailed(
            f"{declared.lease} gave no lease; expected JSON with `closed`, `silent_for` and `ttl` in seconds",
            attempted=f"GET {declared.lease}",
        ) from None


def close_lease(declared: SelfFence, clients: Clients) -> None:
    """Let the node renew no more: its watchdog stops PostgreSQL as soon as it hears so, and after TTL anyway."""
    from tasks.fence_calls import call

    call(declared.lease.rstrip("/") + "/close", "POST", clients)
