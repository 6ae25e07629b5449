"""Make an old primary a standby of the new one: what diverged is kept first, and only what was signed off is dropped."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import Field

from tasks.clients import Clients
from tasks.contract import ActionFailed, Change, Frozen, Plane, Seen
from tasks.postgres_divergence import Found
from tasks.postgres_host import Host, HostState, Job
from tasks.postgres_pair import Following, Pair
from tasks.postgres_server import Server

Move = Literal["rebuild", "names"]


class Rebuilding(Frozen):
    """The node on its way to be a standby."""

    host: HostState = Field(description="The node as its host sees it.")
    link: Following = Field(description="How it follows the primary.")
    jobs_before: int = Field(0, description="Rebuilds that the host had done when this attempt began.")
    kept: str = Field("", description="Where what diverged is kept; empty: nothing diverged.")
    method: str = Field("", description="How the data was brought in line: start, rewind or base-backup.")

    @property
    def job(self) -> Job:
        """The host's last rebuild."""
        return self.host.job


class RebuildStandby(Change[Rebuilding]):
    """Make a stopped old primary a standby again, and wait until it has caught up.

    The host first keeps the diverged WAL and the list of what is lost, in a folder that no rebuild removes; then
    pg_rewind, else pg_basebackup (the old folder is moved aside); then it starts as a standby. Its slot is made
    beforehand, synchronous_standby_names is set when it has caught up. Refuses unless `divergence` is what a probe read
    and its host still finds, the node is off for good, and the primary is one of the same system. Needs on the primary:
    pg_monitor, REPLICATION (slots), ALTER SYSTEM on synchronous_standby_names. Cannot be undone.
    """

    name: ClassVar[str] = "postgres.rebuild_standby"
    budget: ClassVar[timedelta] = timedelta(minutes=5)
    interval: ClassVar[timedelta] = timedelta(milliseconds=200)
    libraries: ClassVar[tuple[str, ...]] = ("httpx", "psycopg")
    plane: ClassVar[Plane] = Plane.data
    resend: ClassVar[timedelta | None] = timedelta(seconds=1)  # each act is one move; which one, the last look decides

    node: Server = Field(description="The node to rebuild: the old primary.")
    primary: Server = Field(description="The primary that it shall follow.")
    host: Host = Field(description="The node's host: one of control, command.")
    source: str = Field(description="What the node's host calls the primary.", examples=["west"], min_length=1)
    standby: Pair = Field(description="What the node shall be to the primary.")
    divergence: Found = Field(
        description="What was signed off: only this may be dropped.", examples=["${steps.divergence.found}"]
    )

    @property
    def target(self) -> str:
        """The node."""
        return f"postgres:{self.node.name}"

    @property
    def targets(self) -> tuple[str, ...]:
        """The node, and the primary, which gets a slot and the names that commits wait for."""
        return (self.target, f"postgres:{self.primary.name}")

    def by_hand(self) -> tuple[str, ...]:
        """Keep, rewind, start as a standby; on the node's host, as PostgreSQL's user."""
        return (
            "cp -a OLD_DATA/pg_wal KEPT/ && pg_controldata OLD_DATA > KEPT/controldata.txt   # keep what diverged first",
            f'{self.primary.psql} -c CHECKPOINT -c "SELECT pg_create_physical_replication_slot(\'{self.standby.slot}\', true)"',
            f'pg_rewind -D OLD_DATA --source-server "host={self.primary.host} port={self.primary.port} user={self.primary.user}"',
            "touch OLD_DATA/standby.signal   # and primary_conninfo, primary_slot_name; then start it",
            f'{self.primary.psql} -c "SELECT application_name, state, flush_lsn FROM pg_stat_replication"',  # noqa: S608 - for people to type
        )

    def observe(self, clients: Clients) -> Rebuilding:
        """Ask the host, the node and the primary."""
        from tasks.postgres_host import ask_state
        from tasks.postgres_link import look_at_pair

        host = ask_state(self.host, clients)
        link = look_at_pair(self.primary, self.node, self.standby, clients)
        return Rebuilding(host=host, link=link, jobs_before=host.job.number, kept=host.job.kept, method=host.job.method)

    def fold(self, earlier: Seen[Rebuilding] | None, now: Seen[Rebuilding]) -> Rebuilding:
        """Keep how many rebuilds there had been when the attempt began: a later one that failed is ours."""
        before = earlier.state.jobs_before if earlier else now.state.jobs_before
        return now.state.model_copy(update={"jobs_before": before})

    def done(self, state: Rebuilding) -> bool:
        """It streams, has caught up, commits wait for whom they should, and its host has ended and told how.

        The standby may stream before its host says so: a step that ended then could not say what was kept, and the
        next one would find a host at work.
        """
        return state.link.settled(self.standby) and state.job.state != "running"

    def move(self, state: Rebuilding) -> Move | None:
        """Pure: what to do next; None: wait, or nothing may be done."""
        if state.link.caught_up(self.standby):
            return "names" if not state.link.settled(self.standby) else None
        if state.host.off and state.job.state != "running" and state.link.standby is None:
            return "rebuild"
        return None

    def underway(self, state: Rebuilding) -> bool:
        """The host works on it, or the node runs in recovery and catches up."""
        catching_up = state.link.standby is not None and state.link.standby.in_recovery and self.move(state) is None
        return state.job.state == "running" or catching_up

    def refuse(self, before: Rebuilding) -> str | None:
        """Say why this node must not be rebuilt, or None."""
        node, primary, link = self.node.name, self.primary.name, before.link
        if link.standby is not None and not link.standby.in_recovery:
            return f"{node} runs as a primary, and a running primary is never written over; fence it first"
        if link.primary is None or link.primary.in_recovery:
            return f"{primary} is no primary ({link.detail or 'it is in recovery'}), so there is nothing to follow"
        if self.divergence.system_id and self.divergence.system_id != link.primary.system_id:
            return f"{primary} belongs to system {link.primary.system_id}, what was signed off to {self.divergence.system_id}"
        if before.job.state == "running" or link.standby is not None:
            return None
        if not self.divergence.read:
            return f"what {node} has that {primary} lacks is not known; put a postgres.divergence step before this one"
        if not before.host.off:
            return f"{node} is {before.host.state} by its host's word, not off for good; fence it first"
        control = before.host.control
        begun = before.job.state == "failed" and bool(before.job.kept)  # its data may be half the primary's by now
        if not begun and control is not None and (control.system_id, control.timeline) != (self.divergence.system_id, self.divergence.timeline):
            return (
                f"{node} is on timeline {control.timeline} of system {control.system_id}, signed off was timeline "
                f"{self.divergence.timeline} of {self.divergence.system_id}; look at the divergence again"
            )
        return None

    def explain(self, state: Rebuilding) -> str:
        """Say how far it is."""
        if state.job.state == "running" or (state.job.state == "failed" and state.link.standby is None):
            return f"host: {state.job.phase or 'rebuild'} {state.job.state}" + (f": {state.job.error}" if state.job.error else "")
        how = f"; brought in line by {state.method}" if state.method else ""
        kept = f"; what diverged is kept in {state.kept}" if state.kept else ""
        return f"{state.link.told()}{how}{kept}"

    def describe(self, before: Rebuilding) -> str:
        """Say what is dropped and what is kept."""
        signed = self.divergence
        drop = f"dropping {signed.transactions} transaction(s) after {signed.fork_lsn}, kept aside" if signed.diverged else "dropping nothing"
        return f"rebuild {self.node.name}: {before.host.state} -> standby of {self.primary.name}, {drop} [{signed.digest[:12]}]"

    def act(self, before: Rebuilding, clients: Clients) -> None:
        """Make the next move. Raises ActionFailed when the host's rebuild failed in this attempt."""
        from tasks.postgres_host import rebuild
        from tasks.postgres_link import make_slot, set_names

        if before.job.state == "failed" and before.job.number > before.jobs_before:
            raise ActionFailed(f"the host could not rebuild it ({before.job.phase}): {before.job.error}", attempted=self.host_name)
        move = self.move(before)
        if move == "rebuild":
            if reason := self.refuse(before):
                raise ActionFailed(reason)
            if self.standby.slot:
                make_slot(self.primary, self.standby.slot, clients)
            signed = {"timeline": self.divergence.timeline, "fork": self.divergence.fork_lsn, "end": self.divergence.end_lsn}
            rebuild(self.host, {"from": self.source, **signed}, clients)
        elif move == "names" and self.standby.synchronous is not None:
            set_names(self.primary, self.standby.synchronous, clients)

    @property
    def host_name(self) -> str:
        """What errors call the host."""
        from tasks.postgres_host import name_of

        return name_of(self.host)
