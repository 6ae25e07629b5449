"""Make a standby the primary, without the stall, without a rival, and with the loss stated."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar, Literal

from pydantic import AwareDatetime, Field, model_validator

from tasks.clients import Clients
from tasks.contract import Change, Duration, Frozen, Loss, Need, Plane, Seen, which_fields
from tasks.errors import ActionFailed
from tasks.postgres_server import Heartbeat, Server

RESEND = timedelta(milliseconds=50)  # a promote within 20 ms of losing the stream may sleep 5 s; sent again it does not


class Promotion(Frozen):
    """The candidate, before, during and after its promotion."""

    endpoint: str = Field(description="Where it answers, 'host:port'.")
    system_id: str = Field(description="System identifier of its cluster.")
    timeline: int = Field(description="Its timeline: grows by a promotion.")
    timeline_before: int | None = Field(
        None, description="Its timeline while we saw it in recovery; null: never seen so."
    )
    in_recovery: bool = Field(description="Whether it is still a standby.")
    writable: bool = Field(description="Whether a transaction got an id (and was rolled back) just now.")
    commits_wait: bool = Field(description="Whether commits would wait for a synchronous standby that is not attached.")
    received_lsn: str | None = Field(description="Last WAL position received while it was a standby.")
    replayed_lsn: str | None = Field(description="Last WAL position replayed while it was a standby.")
    receiver: str | None = Field(description="Status of its WAL receiver; null when there is none.")
    replay_paused: bool = Field(description="Whether replay is paused.")
    synchronous_before: str = Field(description="synchronous_standby_names as inherited.")
    synchronous_now: str = Field(description="synchronous_standby_names now.")
    heartbeat_at: datetime | None = Field(description="Newest heartbeat that reached it before the promotion.")
    loss_seconds_at_most: float | None = Field(
        description="At most so much was acknowledged and is not here; null: not known."
    )
    lost_logical_slots: tuple[str, ...] = Field(
        (), description="Of `logical_slots` those that it does not have: their consumers need a new start."
    )
    detail: str = Field(description="What is missing, in words; empty when nothing is.")


class Promote(Change[Promotion]):
    """Promote a standby and prove it by a transaction that gets an id and rolls back.

    Sent again every 50 ms until it is out of recovery: no 5-second stall. A session advisory lock on the standby keeps
    rivals (in the same database) out until the attempt ends. Inherited synchronous_standby_names without an attached
    standby would hang every commit: they are cleared, and both values reported. Needs: membership in pg_monitor,
    EXECUTE on pg_promote and pg_reload_conf, ALTER SYSTEM on synchronous_standby_names, SELECT on the heartbeat. Cannot
    be undone: the way back is a new failover.
    """

    name: ClassVar[str] = "postgres.promote"
    budget: ClassVar[timedelta] = timedelta(seconds=10)
    interval: ClassVar[timedelta] = timedelta(milliseconds=20)
    libraries: ClassVar[tuple[str, ...]] = ("psycopg",)
    point_of_no_return: ClassVar[bool] = True
    makes_writer: ClassVar[bool] = True
    loses: ClassVar[bool] = True
    plane: ClassVar[Plane] = Plane.data
    resend: ClassVar[timedelta | None] = RESEND

    standby: Server | None = Field(None, description="The standby to promote; or `standbys` and `chosen`.")
    standbys: dict[str, Server] | None = Field(None, description="Several replicas by name, as in postgres.elect.")
    chosen: str | None = Field(
        None, description="Which of `standbys` to promote.", examples=["${steps.elect.chosen}"]
    )
    heartbeat: Heartbeat | None = Field(None, description="Row that bounds the loss.")
    system_id: str | None = Field(
        None, description="System identifier it must have.", examples=["${steps.replication.system_id}"]
    )
    timeline: int | None = Field(
        None,
        description="Timeline it must have followed; a promotion makes it grow.",
        examples=["${steps.replication.timeline}"],
    )
    max_loss: Duration | None = Field(
        None, description="Refuse when more may be lost; needs `heartbeat`.", examples=["30s"]
    )
    acknowledged_until: AwareDatetime | None = Field(
        None,
        description="When the old primary acknowledged its last write at the latest, for the loss. Unset: now.",
        examples=["${steps.fence.held_since}"],
    )
    logical_slots: tuple[str, ...] | None = Field(
        None,
        description="Logical slots of the old primary; those that are lost are named before and listed afterwards.",
        examples=["${steps.replication.logical_slots}"],
    )
    synchronous: Literal["clear", "keep"] = Field(
        "clear",
        description="Inherited synchronous_standby_names that nobody attached answers to: clear, or keep waiting.",
    )

    @model_validator(mode="after")
    def _loss_needs_heartbeat(self) -> Promote:
        if self.max_loss is not None and self.heartbeat is None:
            raise ValueError("max_loss needs `heartbeat`: without it the loss is not known")
        return self

    @model_validator(mode="after")
    def _one_candidate(self) -> Promote:
        if (self.standby is None) == (self.standbys is None):
            raise which_fields("name either `standby` (one) or `standbys` (several, with `chosen`)")
        if (self.standbys is not None) != ("chosen" in self.model_fields_set):  # given, if perhaps not known yet
            raise which_fields("`standbys` and `chosen` go together; postgres.elect gives chosen")
        return self

    @property
    def candidate(self) -> Server:
        """The one server that this step promotes; raises ActionFailed where `chosen` is none of them."""
        found = self.standby if self.standby is not None else (self.standbys or {}).get(self.chosen or "")
        if found is None:
            raise ActionFailed(f"there is no replica '{self.chosen}'; there are {', '.join(self.standbys or ())}")
        return found

    @property
    def target(self) -> str:
        """The standby."""
        return f"postgres:{self.candidate.name}"

    @property
    def targets(self) -> tuple[str, ...]:
        """The standby; of several all, because none may be promoted meanwhile by somebody else."""
        servers = [self.standby] if self.standby is not None else (self.standbys or {}).values()
        return tuple(f"postgres:{server.name}" for server in servers)

    def by_hand(self) -> tuple[str, ...]:
        """Promote, again until it is out of recovery; then let commits not wait for a standby that is gone."""
        if self.standby is None and self.chosen is None:
            said = ", ".join(f"{name} {server.name}" for name, server in (self.standbys or {}).items())
            return (f"promote the one that received most, and no other: {said}",)
        psql = self.candidate.psql
        return (
            f'{psql} -c "SELECT pg_promote(false)"   # again every second until the next line says f',
            f'{psql} -c "SELECT pg_is_in_recovery()"',
            f"{psql} -c \"ALTER SYSTEM SET synchronous_standby_names = ''\" -c \"SELECT pg_reload_conf()\"",
        )

    def observe(self, clients: Clients) -> Promotion:
        """Ask the standby where it is; once out of recovery, try a write that leaves nothing."""
        from tasks.postgres_facts import promotion
        from tasks.postgres_slots import lost

        seen = promotion(self.candidate, self.heartbeat, self.acknowledged_until, clients)
        return seen.model_copy(update={"lost_logical_slots": lost(self.candidate, self.logical_slots or (), clients)})

    def preflight(self, clients: Clients) -> tuple[Need, ...]:
        """The candidate's role, replay and clock, and the rights of ours."""
        from tasks.postgres_preflight import needs

        return needs(self.candidate, clients, clear_synchronous=self.synchronous == "clear")

    def fold(self, earlier: Seen[Promotion] | None, now: Seen[Promotion]) -> Promotion:
        """Keep what only a standby can tell: its timeline, positions, heartbeat and inherited settings."""
        state = now.state
        if state.in_recovery:
            inherited = earlier.state.synchronous_before if earlier else state.synchronous_before
            return state.model_copy(update={"timeline_before": state.timeline, "synchronous_before": inherited})
        if earlier is None or earlier.state.system_id != state.system_id:
            return state
        kept = (
            "timeline_before",
            "received_lsn",
            "replayed_lsn",
            "synchronous_before",
            "heartbeat_at",
            "loss_seconds_at_most",
        )
        return state.model_copy(update={name: getattr(earlier.state, name) for name in kept})

    def done(self, state: Promotion) -> bool:
        """Out of recovery, writable, and by a promotion of the right server.

        A server that was a primary all along is no promotion of ours: it counts only if we saw it in recovery on an
        earlier timeline, or the runbook names its system (and timeline). That the fence holds too is the engine's part.
        """
        ready = not state.in_recovery and state.writable and (self.synchronous == "keep" or not state.commits_wait)
        return ready and self._foreign(state) is None

    def _foreign(self, state: Promotion) -> str | None:
        where = state.endpoint
        if self.system_id and state.system_id != self.system_id:
            return f"{where} belongs to system {state.system_id}, expected {self.system_id}"
        if state.in_recovery:
            if self.timeline is not None and state.timeline < self.timeline:
                return f"{where} is on timeline {state.timeline}, expected {self.timeline}"
            return None
        former = state.timeline_before if state.timeline_before is not None else self.timeline
        if former is not None and state.timeline <= former:
            return f"{where} is writable on timeline {state.timeline}, and a promotion would have left {former}"
        if former is None and self.system_id is None:
            return (
                f"{where} was writable before this step, and nothing says that it is the right server; give `system_id`"
            )
        return None

    def refuse(self, before: Promotion) -> str | None:
        """Say why this standby is not eligible, or None."""
        foreign = self._foreign(before)
        if foreign or not before.in_recovery:
            return foreign
        if before.received_lsn is None and before.heartbeat_at is None:
            return f"{before.endpoint} has received no WAL since it started and shows no heartbeat: it may be any age"
        if before.replay_paused:
            return f"replay is paused on {before.endpoint}; run pg_wal_replay_resume() there if the rest is wanted"
        if self.max_loss is not None:
            limit, loss = self.max_loss.total_seconds(), before.loss_seconds_at_most
            if loss is None:
                return f"the loss is not known ({before.detail or 'no heartbeat'}), and max_loss is {limit:g}s"
            if loss > limit:
                return f"up to {loss:.1f}s of acknowledged writes may be lost, more than max_loss {limit:g}s"
        return None

    def loss(self, state: Promotion) -> Loss:
        """From nothing to what was acknowledged after the last heartbeat that arrived."""
        grows = state.in_recovery and self.acknowledged_until is None
        return Loss(at_most=state.loss_seconds_at_most, grows=grows)

    def explain(self, state: Promotion) -> str:
        """Say how far it is."""
        if state.in_recovery:
            return f"in recovery, replaying {state.replayed_lsn}, timeline {state.timeline}" + (
                f"; {state.detail}" if state.detail else ""
            )
        return (
            f"timeline {state.timeline}, "
            + ("writable" if state.writable else "not writable")
            + _slots(state)
            + (f"; {state.detail}" if state.detail else "")
        )

    def describe(self, before: Promotion) -> str:
        """Say who becomes primary and what may be lost."""
        loss = "unknown" if before.loss_seconds_at_most is None else f"at most {before.loss_seconds_at_most:.1f} s"
        return (
            f"promote {self.candidate.name}: standby -> primary (system {before.system_id}, "
            f"timeline {before.timeline} -> {before.timeline + 1}), loss {loss}" + _slots(before)
        )

    def act(self, before: Promotion, clients: Clients) -> None:
        """Take the lock, clear what would hang commits, and send pg_promote without waiting."""
        from tasks.postgres_facts import promote

        promote(self.candidate, self.synchronous == "clear", clients)


def _slots(state: Promotion) -> str:
    return f", logical slots lost: {', '.join(state.lost_logical_slots)}" if state.lost_logical_slots else ""
