"""Choose the replica that received most, once no replica receives any more."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tasks.clients import Clients
from tasks.contract import Change, Duration, Frozen, Plane, Steady
from tasks.postgres_candidates import DEAD_END, Candidate, Upstream, Wanted, back_by_hand, elect, feeds, reasons
from tasks.postgres_server import Server


class Election(Frozen):
    """The replicas side by side, and which one is to become the primary."""

    chosen: str | None = Field(description="Name of the eligible replica that received most; null: none is eligible.")
    system_id: str | None = Field(None, description="System identifier of the chosen one.")
    timeline: int | None = Field(None, description="Timeline of the chosen one.")
    received_lsn: str | None = Field(None, description="Last WAL position that it received.")
    receiving: tuple[str, ...] = Field((), description="Replicas that still receive, so the choice could change.")
    not_eligible: dict[str, str] = Field(default_factory=dict, description="Why not, by name.")
    unreachable: tuple[str, ...] = Field((), description="Replicas that could not be asked and may have received more.")
    candidates: tuple[Candidate, ...] = Field(description="What each said of itself.")


class Elect(Change[Election]):
    """Stop all WAL receivers, then choose the replica that received most.

    Belongs behind the fence: it stops replication. A receiver is stopped by a primary_conninfo that leads nowhere, so
    a restart does not bring it back; credentials in it stay as they are and are not journaled. Compares the timeline,
    then the position received; equals go by `prefer`. Eligible is who streamed, belongs to the system, is not paused,
    delayed, blocked or fed by another standby. A replica that cannot be asked is named: it may have more. The choice
    is kept with the step's outcome, so a resumed run promotes the same one. Undo: the receivers follow as before. Needs
    PostgreSQL 13, pg_monitor, ALTER SYSTEM on primary_conninfo and primary_slot_name, EXECUTE on pg_reload_conf.
    """

    name: ClassVar[str] = "postgres.elect"
    budget: ClassVar[timedelta] = timedelta(seconds=5)
    interval: ClassVar[timedelta] = timedelta(milliseconds=100)
    libraries: ClassVar[tuple[str, ...]] = ("psycopg",)
    reversible: ClassVar[bool] = True
    behind_fence: ClassVar[bool] = True
    plane: ClassVar[Plane] = Plane.data

    standbys: dict[str, Server] = Field(
        description="The replicas by name; of equals the first is chosen.", min_length=1, examples=[{}]
    )
    system_id: str | None = Field(
        None, description="System identifier they must have.", examples=["${steps.replication.system_id}"]
    )
    timeline: int | None = Field(None, description="Timeline they must follow.", examples=["${steps.replication.timeline}"])
    prefer: tuple[str, ...] = Field((), description="Who is chosen among those that received the same, best first.")
    if_unreachable: Literal["choose", "refuse"] = Field(
        "choose", description="A replica cannot be asked: choose among the others, or refuse until it can be."
    )
    patience: Duration = Field(timedelta(seconds=1), description="Longest wait for one replica.")

    @model_validator(mode="after")
    def _prefers_its_own(self) -> Elect:
        unknown = [name for name in self.prefer if name not in self.standbys]
        if unknown:
            raise ValueError(f"prefer names '{unknown[0]}', which is none of the standbys: {', '.join(self.standbys)}")
        return self

    @property
    def steady(self) -> Steady:
        """A receiver that is just being started by an older setting is seen by the second look."""
        return Steady(2, timedelta(milliseconds=200))

    @property
    def target(self) -> str:
        """All replicas together."""
        return "postgres:" + ",".join(sorted(server.name for server in self.standbys.values()))

    @property
    def targets(self) -> tuple[str, ...]:
        """Every replica: whoever promotes one of them meanwhile is in the way."""
        return tuple(f"postgres:{server.name}" for server in self.standbys.values())

    def by_hand(self) -> tuple[str, ...]:
        """Stop each receiver, then compare; the greatest timeline wins, then the greatest position."""
        stop = f"ALTER SYSTEM SET primary_conninfo = 'host={DEAD_END}'"
        look = "SELECT pg_is_in_recovery(), (SELECT timeline_id FROM pg_control_checkpoint()), pg_last_wal_receive_lsn()"
        return tuple(
            line
            for server in self.standbys.values()
            for line in (f'{server.psql} -c "{stop}" -c "SELECT pg_reload_conf()"', f'{server.psql} -c "{look}"')
        )

    def observe(self, clients: Clients) -> Election:
        """Ask every replica at the same time."""
        from tasks.postgres_upstream import candidates

        return self.judge(candidates(self.standbys, clients, self.patience))

    def judge(self, seen: tuple[Candidate, ...]) -> Election:
        """Pure: choose among what was seen."""
        wanted = Wanted(self.system_id, self.timeline, self.prefer)
        chosen = elect(seen, wanted)
        best = next((one for one in seen if one.name == chosen), None)
        return Election(
            chosen=chosen,
            system_id=best.system_id if best else None,
            timeline=best.timeline if best else None,
            received_lsn=best.received_lsn if best else None,
            receiving=tuple(one.name for one in self._to_stop(seen) if not (_is_stopped(one) and one.receiver is None)),
            not_eligible=dict(reasons(seen, wanted)),
            unreachable=tuple(one.name for one in seen if not one.answers),
            candidates=seen,
        )

    def _to_stop(self, seen: tuple[Candidate, ...]) -> list[Candidate]:
        """Every standby of this system; one that another standby feeds gets no more than that one has."""
        ours = [one for one in seen if one.in_recovery and self.system_id in (None, one.system_id)]
        return [one for one in ours if not any(feeds(other, one) for other in ours if other.name != one.name)]

    def done(self, state: Election) -> bool:
        """Nobody receives any more, and one is chosen."""
        missing = self.if_unreachable == "refuse" and bool(state.unreachable)
        return state.chosen is not None and not state.receiving and not missing

    def underway(self, state: Election) -> bool:
        """All are told to stop; a receiver takes a moment to end."""
        return bool(state.receiving) and all(
            _is_stopped(one) for one in state.candidates if one.name in state.receiving
        )

    def refuse(self, before: Election) -> str | None:
        """Say why nobody can be chosen, or None."""
        if self.if_unreachable == "refuse" and before.unreachable:
            return f"{', '.join(before.unreachable)} cannot be asked and may have received more"
        if before.chosen is None:
            return "no replica is eligible: " + "; ".join(f"{name} {why}" for name, why in before.not_eligible.items())
        return None

    def explain(self, state: Election) -> str:
        """Say who is ahead, and what speaks against the others."""
        told = [f"{state.chosen or 'nobody'} received most ({state.received_lsn}, timeline {state.timeline})"]
        told += [f"{name} {why}" for name, why in state.not_eligible.items()]
        if state.receiving:
            told.append(f"still receiving: {', '.join(state.receiving)}")
        if state.unreachable:
            told.append(f"choosing without {', '.join(state.unreachable)} may lose what only they have")
        return "; ".join(told)

    def describe(self, before: Election) -> str:
        """Say whose receivers are stopped, and who is ahead now."""
        whose = ", ".join(before.receiving) or "nobody"
        return f"stop the WAL receivers of {whose}, then choose; ahead now: {before.chosen} at {before.received_lsn}"

    def act(self, before: Election, clients: Clients) -> None:
        """Stop the receivers that are not stopped."""
        self._lead(
            {
                one.name: Upstream(host=DEAD_END, slot=one.upstream.slot if one.upstream else "")
                for one in before.candidates
                if one.name in before.receiving and not _is_stopped(one)
            },
            clients,
        )

    def undo(self, before: Election, clients: Clients) -> None:
        """Let every receiver that was stopped follow as before."""
        self._lead(self._former(before), clients)

    def undo_by_hand(self, before: Election) -> tuple[str, ...]:
        """Let each of them follow as before."""
        return tuple(back_by_hand(self.standbys[name], to) for name, to in self._former(before).items())

    def _former(self, before: Election) -> dict[str, Upstream]:
        return {one.name: one.upstream for one in self._to_stop(before.candidates) if one.upstream and not _is_stopped(one)}

    def _lead(self, whom: dict[str, Upstream], clients: Clients) -> None:
        from tasks.postgres_upstream import lead

        lead({name: (self.standbys[name], to) for name, to in whom.items()}, clients)


def _is_stopped(one: Candidate) -> bool:
    return one.upstream is not None and one.upstream.stopped
