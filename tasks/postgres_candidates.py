"""Which of several replicas is to become the primary. Pure: what each said of itself decides, nothing else.

Must never happen: a replica is chosen that received less than another eligible one, or that never streamed, belongs to
another system or timeline, or would not replay what it has. `why_not` says the reason, `elect` is the only choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from tasks.contract import Frozen
from tasks.postgres_server import Server

DEAD_END = "/failover-has-stopped-this-receiver"
"""What primary_conninfo names as host once a receiver is stopped: a folder of a Unix socket that does not exist."""


class Upstream(Frozen):
    """Where a standby streams from, as its primary_conninfo says; the rest of that setting is a secret and stays there."""

    host: str | None = Field(None, description="host of primary_conninfo.")
    hostaddr: str | None = Field(None, description="hostaddr of primary_conninfo.")
    port: str | None = Field(None, description="port of primary_conninfo.")
    slot: str = Field("", description="primary_slot_name.")

    @property
    def stopped(self) -> bool:
        """Whether it leads nowhere, because a receiver was stopped."""
        return self.host == DEAD_END


def back_by_hand(server: Server, to: Upstream) -> str:
    """The command that lets a standby follow `to`; user and password are not known here, and go where the dots are."""
    place = " ".join(f"{key}={value}" for key in ("host", "hostaddr", "port") if (value := getattr(to, key)) is not None)
    return (
        f"{server.psql} -c \"ALTER SYSTEM SET primary_conninfo = '{place} user=… password=…'\" "
        f"-c \"ALTER SYSTEM SET primary_slot_name = '{to.slot}'\" -c \"SELECT pg_reload_conf()\""
    )


class Candidate(Frozen):
    """One replica, as it was last seen."""

    name: str = Field(description="As the runbook calls it.")
    endpoint: str = Field(description="Where it answers, 'host:port'.")
    trouble: str = Field("", description="Why it could not be asked; empty: it answered.")
    system_id: str | None = Field(None, description="System identifier of its cluster.")
    timeline: int | None = Field(None, description="Timeline it follows.")
    in_recovery: bool = Field(False, description="Whether it is a standby at all.")
    receiver: str | None = Field(None, description="Status of its WAL receiver; null when there is none.")
    sender: str | None = Field(None, description="Whom it receives from, 'host:port'; null: from nobody now.")
    upstream: Upstream | None = Field(None, description="Whom its settings tell it to follow.")
    received_lsn: str | None = Field(None, description="Last WAL position received; null: nothing since it started.")
    replayed_lsn: str | None = Field(None, description="Last WAL position replayed.")
    replay_paused: bool = Field(False, description="Whether replay is paused.")
    delay_seconds: float = Field(0.0, description="recovery_min_apply_delay: kept behind on purpose by so much.")
    blocked_by: str | None = Field(None, description="What its replay waits for: a conflict with a query, or a lock.")

    @property
    def answers(self) -> bool:
        """Whether it could be asked."""
        return not self.trouble

    @property
    def position(self) -> tuple[int, int]:
        """How much it has: timeline first, then the last byte that it received or replayed."""
        return self.timeline or 0, max(to_bytes(self.received_lsn), to_bytes(self.replayed_lsn))


@dataclass(frozen=True)
class Wanted:
    """What a replica must be: its system, its timeline, and who is preferred among equals, first the most preferred."""

    system_id: str | None = None
    timeline: int | None = None
    prefer: Sequence[str] = ()


def why_not(one: Candidate, wanted: Wanted, others: Sequence[Candidate]) -> str | None:
    """Why this replica may not become the primary, or None."""
    if not one.answers:
        return f"cannot be asked ({one.trouble}), so it may have received more"
    if not one.in_recovery:
        return "is no standby (not in recovery)"
    if wanted.system_id is not None and one.system_id != wanted.system_id:
        return f"belongs to system {one.system_id}, expected {wanted.system_id}"
    if wanted.timeline is not None and one.timeline != wanted.timeline:
        return f"is on timeline {one.timeline}, expected {wanted.timeline}"
    if one.received_lsn is None:
        return "has streamed nothing since it started, so it may be any age"
    if one.replay_paused:
        return "has its replay paused; pg_wal_replay_resume() lets it go on"
    if one.delay_seconds > 0:
        return f"is kept {one.delay_seconds:g}s behind on purpose (recovery_min_apply_delay)"
    if one.blocked_by is not None:
        return f"cannot replay what it has: it waits for {one.blocked_by}; end the queries that hold it up"
    above = next((other for other in others if other.name != one.name and feeds(other, one)), None)
    return f"follows {above.name}, itself a standby, so it has no more than that" if above else None


def feeds(above: Candidate, one: Candidate) -> bool:
    """Whether `above`, a standby that answers, is where the other receives from (cascading)."""
    return above.answers and above.in_recovery and one.sender is not None and one.sender == above.endpoint


def elect(candidates: Sequence[Candidate], wanted: Wanted) -> str | None:
    """The eligible replica that received most; among equals the preferred one, then the first named."""
    eligible = [one for one in candidates if why_not(one, wanted, candidates) is None]
    order = {name: place for place, name in enumerate(wanted.prefer)}
    best = max(eligible, key=lambda one: (one.position, -order.get(one.name, len(order))), default=None)
    return best.name if best is not None else None


def furthest(candidates: Sequence[Candidate]) -> str | None:
    """Whoever answers and has most, eligible or not: to tell of, never to promote."""
    best = max((one for one in candidates if one.answers), key=lambda one: one.position, default=None)
    return best.name if best is not None else None


def usual_system(candidates: Sequence[Candidate]) -> str | None:
    """The system that most replicas belong to: whoever is alone with another one is the odd one out."""
    seen = [one.system_id for one in candidates if one.system_id is not None]
    return max(seen, key=seen.count, default=None)


def reasons(candidates: Sequence[Candidate], wanted: Wanted) -> Mapping[str, str]:
    """Why not, for each that is not eligible."""
    found = {one.name: why_not(one, wanted, candidates) for one in candidates}
    return {name: why for name, why in found.items() if why is not None}


def to_bytes(lsn: str | None) -> int:
    """A WAL position as a number; 0 where there is none."""
    high, _, low = (lsn or "0/0").partition("/")
    return (int(high, 16) << 32) + int(low, 16)
