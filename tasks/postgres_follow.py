"""Let the other replicas follow the new primary."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from pydantic import Field

from tasks.clients import Clients
from tasks.contract import Change, Duration, Frozen, Plane
from tasks.errors import ActionFailed
from tasks.postgres_candidates import Candidate, Upstream, back_by_hand
from tasks.postgres_server import Server


class Followers(Frozen):
    """The new primary and who follows it."""

    leader: str = Field(description="Name of the new primary.")
    leader_in_recovery: bool = Field(description="Whether it is still a standby.")
    system_id: str | None = Field(description="System identifier of the new primary.")
    timeline: int | None = Field(description="Timeline of the new primary.")
    following: tuple[str, ...] = Field((), description="Replicas that stream from its timeline.")
    pending: tuple[str, ...] = Field((), description="Replicas that answer and do not stream from its timeline.")
    left_out: dict[str, str] = Field(default_factory=dict, description="Replicas that are not re-pointed, and why.")
    candidates: tuple[Candidate, ...] = Field(description="What each replica said of itself.")


class Follow(Change[Followers]):
    """Re-point the other replicas to the new primary and wait until they stream.

    By primary_conninfo (host and port change, credentials in it stay) and a reload. A replication slot of the old
    primary is not on the new one: primary_slot_name is cleared, so give the new one wal_keep_size. A replica that
    cannot be asked, or belongs to another system, is named and left out; one that received more than the new primary
    cannot follow and needs pg_rewind. Undo: they follow whom they followed before. Needs PostgreSQL 13, pg_monitor,
    ALTER SYSTEM on primary_conninfo and primary_slot_name, EXECUTE on pg_reload_conf.
    """

    name: ClassVar[str] = "postgres.follow"
    budget: ClassVar[timedelta] = timedelta(seconds=30)
    interval: ClassVar[timedelta] = timedelta(milliseconds=200)
    libraries: ClassVar[tuple[str, ...]] = ("psycopg",)
    reversible: ClassVar[bool] = True
    plane: ClassVar[Plane] = Plane.data

    standbys: dict[str, Server] = Field(
        description="The replicas by name, as in postgres.elect.", min_length=1, examples=[{}]
    )
    leader: str = Field(description="Which of them is the primary now.", examples=["${steps.elect.chosen}"])
    patience: Duration = Field(timedelta(seconds=1), description="Longest wait for one replica.")

    @property
    def target(self) -> str:
        """All replicas together."""
        return "postgres:" + ",".join(sorted(server.name for server in self.standbys.values()))

    @property
    def targets(self) -> tuple[str, ...]:
        """Every replica."""
        return tuple(f"postgres:{server.name}" for server in self.standbys.values())

    def by_hand(self) -> tuple[str, ...]:
        """Re-point each replica; then see that all stream."""
        to = self.standbys.get(self.leader)
        if to is None:
            return ()
        lines = [
            f"{server.psql} -c \"ALTER SYSTEM SET primary_conninfo = 'host={to.host} port={to.port} user=… password=…'\" "
            '-c "SELECT pg_reload_conf()"'
            for name, server in self.standbys.items()
            if name != self.leader
        ]
        return (*lines, f'{to.psql} -c "TABLE pg_stat_replication"')

    def observe(self, clients: Clients) -> Followers:
        """Ask the new primary and every replica at the same time."""
        from tasks.postgres_upstream import candidates

        return self.judge(candidates(self.standbys, clients, self.patience))

    def judge(self, seen: tuple[Candidate, ...]) -> Followers:
        """Pure: who follows, who is to, and who is left out."""
        leader = next((one for one in seen if one.name == self.leader), None)
        if leader is None:
            raise ActionFailed(f"there is no replica '{self.leader}'; there are {', '.join(self.standbys)}")
        if not leader.answers:
            raise ActionFailed(f"{leader.endpoint}: {leader.trouble}", attempted="look at the new primary", retry=True)
        left: dict[str, str] = {}
        others = [one for one in seen if one.name != self.leader]
        for one in others:
            if not one.answers:
                left[one.name] = f"cannot be asked ({one.trouble})"
            elif one.system_id != leader.system_id:
                left[one.name] = f"belongs to system {one.system_id}"
            elif not one.in_recovery:
                left[one.name] = "is a primary itself"
        following = tuple(
            one.name
            for one in others
            if one.name not in left and one.receiver == "streaming" and one.timeline == leader.timeline
        )
        return Followers(
            leader=self.leader,
            leader_in_recovery=leader.in_recovery,
            system_id=leader.system_id,
            timeline=leader.timeline,
            following=following,
            pending=tuple(one.name for one in others if one.name not in left and one.name not in following),
            left_out=left,
            candidates=tuple(others),
        )

    def done(self, state: Followers) -> bool:
        """Everyone who can follow does, and somebody does."""
        return not state.leader_in_recovery and bool(state.following) and not state.pending

    def underway(self, state: Followers) -> bool:
        """All are told whom to follow; streaming takes a moment to begin."""
        return bool(state.pending) and all(
            self._is_led(one) for one in state.candidates if one.name in state.pending
        )

    def refuse(self, before: Followers) -> str | None:
        """Refuse to let anyone follow a standby, or when there is nobody to follow."""
        if before.leader_in_recovery:
            return f"{self.leader} is still a standby; promote it first"
        if not before.pending and not before.following:
            return "nobody can follow: " + "; ".join(f"{name} {why}" for name, why in before.left_out.items())
        return None

    def explain(self, state: Followers) -> str:
        """Say who follows and who does not."""
        told = [f"{', '.join(state.following) or 'nobody'} streams from {state.leader} on timeline {state.timeline}"]
        told += [f"not yet: {', '.join(state.pending)}"] if state.pending else []
        return "; ".join([*told, *(f"{name} {why}" for name, why in state.left_out.items())])

    def describe(self, before: Followers) -> str:
        """Say who is re-pointed, from whom to whom."""
        former = {
            one.name: f"{one.upstream.host or one.upstream.hostaddr}" for one in before.candidates if one.upstream
        }
        moved = ", ".join(f"{name} ({former.get(name, 'nobody')})" for name in before.pending)
        return f"re-point {moved} -> {self.leader} ({self.standbys[self.leader].name})"

    def act(self, before: Followers, clients: Clients) -> None:
        """Re-point those that do not follow."""
        whom = [one.name for one in before.candidates if one.name in before.pending and not self._is_led(one)]
        self._lead(dict.fromkeys(whom, self._leads_to), clients)

    def undo(self, before: Followers, clients: Clients) -> None:
        """Let them follow whom they followed before."""
        self._lead(self._former(before), clients)

    def undo_by_hand(self, before: Followers) -> tuple[str, ...]:
        """Let each of them follow as before."""
        return tuple(back_by_hand(self.standbys[name], to) for name, to in self._former(before).items())

    def _former(self, before: Followers) -> dict[str, Upstream]:
        return {one.name: one.upstream for one in before.candidates if one.name in before.pending and one.upstream}

    @property
    def _leads_to(self) -> Upstream:
        leader = self.standbys[self.leader]
        return Upstream(host=leader.host, port=str(leader.port))

    def _is_led(self, one: Candidate) -> bool:
        return one.upstream == self._leads_to

    def _lead(self, whom: dict[str, Upstream], clients: Clients) -> None:
        from tasks.postgres_upstream import lead

        lead({name: (self.standbys[name], to) for name, to in whom.items()}, clients)
