"""Hand the primary's role over to its standby, planned and without loss, and take it back as the standby."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import Field

from tasks.clients import Clients
from tasks.contract import ActionFailed, Change, Frozen, Plane, Seen
from tasks.postgres_host import Host, HostState
from tasks.postgres_pair import Following, Pair
from tasks.postgres_promote import Promotion
from tasks.postgres_server import Server

Move = Literal["stop", "promote", "reprotect", "names"]


class Switching(Frozen):
    """Both servers on their way to change roles."""

    host: HostState = Field(description="The old primary as its host sees it.")
    candidate: Promotion = Field(description="The standby that becomes the primary.")
    link: Following = Field(description="Before: how the candidate follows. After: how the old primary follows it.")
    old_answers: bool = Field(description="Whether a PostgreSQL answers at the old primary's address.")
    shutdown_lsn: str | None = Field(None, description="Where the old primary's shutdown checkpoint begins: its last record.")
    jobs_before: int = Field(0, description="Rebuilds that the old primary's host had done when this attempt began.")

    @property
    def stopped_clean(self) -> bool:
        """The old primary ended in good order, stays off, and nothing answers in its place: the fence."""
        control = self.host.control
        return self.host.off and not self.old_answers and control is not None and control.clean

    @property
    def has_it_all(self) -> bool:
        """The candidate has replayed the old primary's last record, the shutdown checkpoint's."""
        return self.shutdown_lsn is not None and _bytes(self.candidate.replayed_lsn) > _bytes(self.shutdown_lsn)


class Switchover(Change[Switching]):
    """Change the roles of a primary and its standby without losing a transaction.

    Stops writes by a clean shutdown of the primary (its standby is sent every byte first), waits until the standby has
    replayed the shutdown checkpoint, promotes it, then starts the old primary as its standby and waits until that has
    caught up. Refuses while the standby is not streaming and near. Never two writers: it promotes only while the old
    primary's host says stopped, clean and off for good, and nothing answers there; looked at again in the same act.
    Clients get errors between stop and promotion and must send again. Undone by another switchover only. Needs on both:
    what postgres.promote and postgres.rebuild_standby need.
    """

    name: ClassVar[str] = "postgres.switchover"
    budget: ClassVar[timedelta] = timedelta(seconds=60)
    interval: ClassVar[timedelta] = timedelta(milliseconds=30)
    libraries: ClassVar[tuple[str, ...]] = ("httpx", "psycopg")
    point_of_no_return: ClassVar[bool] = True
    makes_writer: ClassVar[bool] = True
    fences_itself: ClassVar[bool] = True
    plane: ClassVar[Plane] = Plane.data
    # Sent again as postgres.promote is, against the 5-second stall; each act is one move, told by the last look.
    resend: ClassVar[timedelta | None] = timedelta(milliseconds=50)

    primary: Server = Field(description="The present primary, itself and not a pooler.")
    standby: Server = Field(description="Its standby, the next primary.")
    host: Host = Field(description="The present primary's host: one of control, command.")
    before: Pair = Field(description="What the standby is to the present primary; no switchover from farther behind.")
    after: Pair = Field(description="What the old primary shall be to the new one.")
    source: str = Field(description="What the old primary's host calls the new one.", examples=["east"], min_length=1)

    @property
    def target(self) -> str:
        """The pair, by the server that becomes the primary."""
        return f"postgres:{self.standby.name}"

    @property
    def targets(self) -> tuple[str, ...]:
        """Both. Must never happen: two runs stop one primary, and each promotes another of its standbys."""
        return (self.target, f"postgres:{self.primary.name}")

    def by_hand(self) -> tuple[str, ...]:
        """Stop clean, compare, promote, start the old one as a standby."""
        return (
            "pg_ctl stop -m fast -D DATA && pg_controldata DATA | grep 'Latest checkpoint location'   # on the primary's host",
            f'{self.standby.psql} -c "SELECT pg_last_wal_replay_lsn()"   # must be greater than that',
            f'{self.standby.psql} -c "SELECT pg_promote()"',
            "touch DATA/standby.signal   # on the old primary's host; and primary_conninfo; then start it",
        )

    def observe(self, clients: Clients) -> Switching:
        """Ask the host, and both servers as far as they answer."""
        from tasks.postgres_facts import promotion
        from tasks.postgres_host import ask_state, still_answers
        from tasks.postgres_link import look_at_pair

        host = ask_state(self.host, clients)
        candidate = promotion(self.standby, None, None, clients)
        servers = (self.primary, self.standby) if candidate.in_recovery else (self.standby, self.primary)
        link = look_at_pair(*servers, self.before if candidate.in_recovery else self.after, clients)
        old = link.primary if candidate.in_recovery else link.standby
        return Switching(
            host=host, candidate=candidate, link=link, old_answers=old is not None or still_answers(self.primary, clients),
            shutdown_lsn=host.control.checkpoint if host.control and host.control.clean else None,
            jobs_before=host.job.number,
        )  # fmt: skip

    def fold(self, earlier: Seen[Switching] | None, now: Seen[Switching]) -> Switching:
        """Keep what only the time before could tell."""
        state = now.state
        if earlier is None:
            return state
        state = state.model_copy(update={"jobs_before": earlier.state.jobs_before})
        if state.candidate.in_recovery:
            return state
        known = earlier.state.candidate
        fields = ("received_lsn", "replayed_lsn")
        candidate = state.candidate.model_copy(update={name: getattr(known, name) for name in fields})
        return state.model_copy(
            update={"candidate": candidate, "shutdown_lsn": state.shutdown_lsn or earlier.state.shutdown_lsn}
        )

    def done(self, state: Switching) -> bool:
        """The standby is a writable primary, the old one follows it in recovery (it takes no writes), its host is idle."""
        new = state.candidate
        return not new.in_recovery and new.writable and state.link.settled(self.after) and state.host.job.state != "running"

    def move(self, state: Switching) -> Move | None:
        """Pure: what to do next; None: wait, or nothing may be done."""
        host, link = state.host, state.link
        if state.candidate.in_recovery:
            if host.state == "running":
                return "stop" if link.caught_up(self.before) else None
            return "promote" if state.stopped_clean and state.has_it_all else None
        if not state.candidate.writable:
            return None
        if link.caught_up(self.after):
            return "names" if not link.settled(self.after) else None
        return "reprotect" if host.off and not state.old_answers and host.job.state != "running" else None

    def underway(self, state: Switching) -> bool:
        """It stops, receives the rest, or catches up."""
        if state.candidate.in_recovery:
            return state.host.state == "stopping" or (state.stopped_clean and not state.has_it_all)
        return not self.done(state) and self.move(state) is None and not self._stuck(state)

    def refuse(self, before: Switching) -> str | None:
        """Say why this pair cannot change roles now, or None."""
        old, new, link = self.primary.name, self.standby.name, before.link
        if stuck := self._stuck(before):
            return stuck
        if not before.candidate.in_recovery or before.host.state != "running":
            return None
        if link.primary is None or link.primary.in_recovery:
            return f"{old} is no primary: {link.detail or 'it is in recovery'}; name the present primary as `primary`"
        if link.primary.system_id != before.candidate.system_id:
            return f"{new} belongs to system {before.candidate.system_id}, {old} to {link.primary.system_id}"
        if before.candidate.replay_paused:
            return f"replay is paused on {new}; run pg_wal_replay_resume() there first"
        if not link.caught_up(self.before):
            return f"{new} does not follow closely enough to lose nothing ({link.told()}); let it catch up first"
        return None

    def _stuck(self, state: Switching) -> str | None:
        """Why there is no way on from here by itself, or None. Nobody is promoted in any of these."""
        host, old = state.host, self.primary.name
        if state.candidate.in_recovery:
            if host.state == "stopped" and host.control is not None and not host.control.clean:
                return f"{old} did not shut down in good order, so its last byte is not known: this is a failover, not a switchover"
            if host.state == "stopped" and not host.stays_off:
                return f"{old} is stopped and nothing keeps it off; fence it, or start it again"
            if host.off and state.old_answers:
                return f"{old} is stopped by its host's word, and yet a PostgreSQL answers there"
            return f"{old} is frozen; thaw it, or fail over" if host.state == "frozen" else None
        if state.link.standby is not None and not state.link.standby.in_recovery:
            return f"{self.standby.name} and {old} both run as primaries; fence the one that is wrong"
        if host.job.state == "failed" and host.job.number > state.jobs_before:
            return f"{self.standby.name} is the primary; {old} could not be made its standby ({host.job.phase}): {host.job.error}"
        return None

    def explain(self, state: Switching) -> str:
        """Say how far it is."""
        if state.candidate.in_recovery:
            last = f", its last byte is at {state.shutdown_lsn}" if state.shutdown_lsn else ""
            return f"{self.primary.name} is {state.host.state}{last}; {self.standby.name} has replayed {state.candidate.replayed_lsn}"
        last = f", the old one ended at {state.shutdown_lsn}" if state.shutdown_lsn else ""
        return f"{self.standby.name} is the primary on timeline {state.candidate.timeline}{last}; {self.primary.name}: {state.link.told()}"

    def describe(self, before: Switching) -> str:
        """Say who becomes what."""
        behind = before.link.behind_bytes
        if not before.candidate.in_recovery:
            return f"switch over, the rest: {self.primary.name} -> standby of {self.standby.name}, which is the primary already"
        if behind is None:
            return f"switch over, the rest: promote {self.standby.name}; {self.primary.name} is {before.host.state}"
        return (
            f"switch over: {self.primary.name} primary -> standby, {self.standby.name} standby -> primary (timeline "
            f"{before.candidate.timeline} -> {before.candidate.timeline + 1}), {behind} bytes behind now, no loss"
        )

    def act(self, before: Switching, clients: Clients) -> None:
        """Make the next move. Raises ActionFailed where there is none by itself."""
        from tasks.switchover_moves import make

        if stuck := self._stuck(before):
            raise ActionFailed(stuck)
        make(self, self.move(before), before, clients)


def _bytes(lsn: str | None) -> int:
    high, _, low = (lsn or "0/0").partition("/")
    return (int(high, 16) << 32) + int(low, 16)
