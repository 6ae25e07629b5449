"""See how far a standby follows its primary, and what a promotion now would lose."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from pydantic import Field, model_validator

from tasks.clients import Clients
from tasks.contract import Duration, Frozen, Loss, Probe, which_fields
from tasks.errors import ActionFailed
from tasks.postgres_candidates import Candidate, Wanted, elect, furthest, reasons, usual_system
from tasks.postgres_server import Heartbeat, Server


class Replica(Frozen):
    """A standby as the primary sees it (pg_stat_replication)."""

    name: str = Field(description="application_name of the stream.")
    state: str = Field(description="streaming, catchup, …")
    sync_state: str = Field(description="async, potential, sync or quorum.")
    lag_bytes: int | None = Field(description="WAL the primary wrote and this replica has not flushed.")


class Following(Frozen):
    """A standby's place behind its primary."""

    system_id: str = Field(description="System identifier of the cluster the standby belongs to.")
    timeline: int = Field(description="Timeline the standby follows.")
    in_recovery: bool = Field(description="Whether it is a standby at all.")
    attached: bool = Field(description="Whether it receives from a primary now.")
    receiver: str | None = Field(description="Status of its WAL receiver; null when there is none.")
    received_lsn: str | None = Field(description="Last WAL position received and flushed.")
    replayed_lsn: str | None = Field(description="Last WAL position replayed.")
    replay_paused: bool = Field(description="Whether replay is paused.")
    last_replayed_at: datetime | None = Field(description="When the last transaction it replayed was committed.")
    heartbeat_at: datetime | None = Field(description="Newest heartbeat that reached the standby.")
    lag_seconds: float | None = Field(description="Age of what the standby shows, by heartbeat, else by last replay.")
    lag_bytes: int | None = Field(description="WAL the primary wrote and the standby lacks; null: primary not asked.")
    loss_at_least_seconds: float = Field(description="A promotion now loses at least so much.")
    loss_at_most_seconds: float | None = Field(
        description="… and at most so much; null: not known without a heartbeat."
    )
    primary_answers: bool | None = Field(description="Whether the primary answered; null: none was named.")
    primary_system_id: str | None = Field(description="The primary's system identifier, where it answered.")
    synchronous: bool | None = Field(description="Whether a replica of the primary is synchronous, where it answered.")
    replicas: tuple[Replica, ...] = Field(description="The primary's replicas, where it answered.")
    logical_slots: tuple[str, ...] = Field(description="Logical slots on the primary that a promotion loses.")
    logical_slots_kept: tuple[str, ...] = Field(
        (), description="Logical slots that the standby has too and keeps (PostgreSQL 17: failover slots, synced)."
    )
    logical_slots_known: bool = Field(True, description="Whether the primary's slots were asked or declared.")
    detail: str = Field(description="What could not be asked and why; empty when all was.")
    name: str | None = Field(None, description="Of several replicas the one that is told of: who is ahead now.")
    not_eligible: dict[str, str] = Field(
        default_factory=dict, description="Of several replicas those that may not be promoted, and why."
    )
    candidates: tuple[Candidate, ...] = Field((), description="Several replicas, as each was seen.")


class Replication(Probe[Following]):
    """Report how far a standby follows its primary and what promoting it would lose.

    The loss is a range: replay lag says nothing about WAL that was never received. Its upper end is the age of the last
    heartbeat that reached the standby; it compares two hosts' clocks, so keep them in step. Of several `standbys` it
    tells of the eligible one that is ahead now, and why the others are not; postgres.elect chooses, after the fence.
    """

    name: ClassVar[str] = "postgres.replication"
    budget: ClassVar[timedelta] = timedelta(seconds=5)
    libraries: ClassVar[tuple[str, ...]] = ("psycopg",)

    standby: Server | None = Field(None, description="The standby to report on; or `standbys`.")
    standbys: dict[str, Server] | None = Field(None, description="Several replicas by name.", min_length=1)
    primary: Server | None = Field(None, description="Its primary, asked too where it still answers.")
    heartbeat: Heartbeat | None = Field(None, description="Row that bounds the loss.")
    max_lag: Duration | None = Field(
        None,
        description="Done only while attached and no more behind than this. Unset: done once reported.",
        examples=["5s"],
    )
    logical_slots: tuple[str, ...] = Field(
        (), description="Logical slots that the primary is known to have, for when it cannot be asked."
    )
    patience: Duration = Field(timedelta(seconds=1), description="Longest wait for the primary and for each replica.")

    @model_validator(mode="after")
    def _one_or_several(self) -> Replication:
        if (self.standby is None) == (self.standbys is None):
            raise which_fields("name either `standby` (one) or `standbys` (several)")
        return self

    def by_hand(self) -> tuple[str, ...]:
        """See what each standby has."""
        query = "SELECT pg_is_in_recovery(), pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), pg_last_xact_replay_timestamp()"
        servers = [self.standby] if self.standby is not None else (self.standbys or {}).values()
        return tuple(f'{server.psql} -c "{query}"' for server in servers)

    def observe(self, clients: Clients) -> Following:
        """Ask every standby, and the primary where it answers."""
        if self.standby is not None:
            return self._following(self.standby, clients)
        from tasks.postgres_upstream import candidates

        servers = self.standbys or {}
        seen = candidates(servers, clients, self.patience)
        wanted = Wanted(usual_system(seen))
        ahead = elect(seen, wanted) or furthest(seen)
        if ahead is None:
            told = "; ".join(f"{one.name}: {one.trouble}" for one in seen)
            raise ActionFailed(f"no replica can be asked: {told}", attempted="look at the replicas", retry=True)
        more = {"name": ahead, "not_eligible": dict(reasons(seen, wanted)), "candidates": seen}
        return self._following(servers[ahead], clients).model_copy(update=more)

    def _following(self, standby: Server, clients: Clients) -> Following:
        from tasks.postgres_facts import following
        from tasks.postgres_slots import surviving

        found = following(standby, self.primary, self.heartbeat, clients, self.patience)
        kept = surviving(standby, clients)
        known = found.primary_answers is True and found.primary_system_id == found.system_id
        slots = found.logical_slots if known else self.logical_slots
        lost = tuple(slot for slot in slots if slot not in kept)
        told = {"logical_slots": lost, "logical_slots_kept": kept, "logical_slots_known": known or bool(slots)}
        return found.model_copy(update=told)

    def done(self, state: Following) -> bool:
        """Reported, and near enough where `max_lag` is set."""
        if self.max_lag is None:
            return True
        behind = state.lag_seconds
        return state.attached and behind is not None and behind <= self.max_lag.total_seconds()

    def loss(self, state: Following) -> Loss:
        """From what is known to be missing to what the primary may have acknowledged since the last heartbeat."""
        return Loss(
            at_least=state.loss_at_least_seconds, at_most=state.loss_at_most_seconds, grows=not state.attached
        )

    def explain(self, state: Following) -> str:
        """Say where the standby is."""
        role = "standby" if state.in_recovery else "primary"
        stream = "attached" if state.attached else "not attached"
        most = "unknown" if state.loss_at_most_seconds is None else f"{state.loss_at_most_seconds:.1f} s"
        who = f"{state.name} is ahead: " if state.name else ""
        return (
            f"{who}{role} of system {state.system_id}, timeline {state.timeline}, {stream}, received {state.received_lsn}, "
            f"replayed {state.replayed_lsn}, loss {state.loss_at_least_seconds:.1f} s to {most}; {_slots(state)}"
            + "".join(f"; {name} {why}" for name, why in state.not_eligible.items())
        )


def _slots(state: Following) -> str:
    if state.logical_slots:
        return f"logical slots lost by a promotion: {', '.join(state.logical_slots)}"
    return "no logical slot is lost" if state.logical_slots_known else "logical slots not known (primary not asked)"
