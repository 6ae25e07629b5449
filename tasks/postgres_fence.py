"""Make sure that the old primary takes no more writes, and say how that is known."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tasks.clients import Clients
from tasks.contract import Change, Duration, Frozen, Need, Plane, Seen, Steady, which_fields
from tasks.fence_provider import ByCommand, ByControl
from tasks.path_isolation import IsolatePath
from tasks.postgres_server import Server
from tasks.self_fence import SelfFence
from tasks.sync_quorum import Commits, StandbySeen, SyncQuorum, contradiction, needs

HostState = Literal[
    "unknown", "running", "frozen", "stopping", "stopped", "rejecting", "self-fenced", "isolated", "sync-quorum-lost"
]  # fmt: skip


class BySql(Frozen):
    """Reject everyone but the engine's role in the node's pg_hba.conf, and end all other sessions.

    Needs PostgreSQL 16, a superuser role that only the engine uses, and a node that still answers. Written to the
    node's own file, so it survives a restart and does not reach the standby, as REVOKE or ALTER DATABASE would.
    """

    as_client: Server | None = Field(
        None, description="A client's credentials: the fence holds only when their connection is refused."
    )


class Method(Frozen):
    """How the node is fenced: exactly one of control, command, sql."""

    control: ByControl | None = Field(None, description="Through a control endpoint.")
    command: ByCommand | None = Field(None, description="By commands.")
    sql: BySql | None = Field(None, description="Through the node itself, while it answers.")

    @model_validator(mode="after")
    def _one_kind(self) -> Method:
        named = [kind for kind in ("control", "command", "sql") if getattr(self, kind) is not None]
        if len(named) != 1:
            raise ValueError(f"method names {' and '.join(named) or 'nothing'}; write one of control, command, sql")
        return self

    @property
    def kind(self) -> Literal["control", "command", "sql"]:
        """Which way it is."""
        return "control" if self.control else "command" if self.command else "sql"


_END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


class Fencing(Frozen):
    """What is known of the old primary."""

    method: Literal["control", "command", "sql"] = Field(description="How it is fenced.")
    reachable: bool = Field(
        description="Whether a PostgreSQL still answers at the node's address, with a session or not."
    )
    state: HostState = Field(
        description="running, frozen, stopping, stopped, rejecting (sql: clients are refused), self-fenced (its lease ran "
        "out), isolated (its clients' way is closed), sync-quorum-lost (its commits wait for standbys in vain), or unknown "
        "(its provider could not be asked)."
    )
    stays_off: bool = Field(description="Whether that survives a restart of the node.")
    system_id: str | None = Field(None, description="System identifier of the node, as far as it ever answered.")
    in_recovery: bool | None = Field(None, description="Whether the node is a standby; null: it did not answer.")
    sessions: int | None = Field(None, description="Client sessions on it that are not ours; null: not known.")
    shared_role: int = Field(0, description="sql: sessions of the engine's role that are not the engine's.")
    server_version: int | None = Field(None, description="Version of the node's PostgreSQL, such as 160014.")
    lease_closed: bool | None = Field(None, description="self-fence: whether its lease can be renewed no more.")
    lease_silent_for: float | None = Field(
        None, description="self-fence: seconds since its lease was last renewed, by the lease service's clock."
    )
    commits: Commits | None = Field(
        None, description="sync-quorum: what it said of its commits, as far as it answered in this run."
    )
    standbys: tuple[StandbySeen, ...] = Field((), description="sync-quorum: the standbys that its commits wait for.")
    held_since: datetime | None = Field(None, description="First look of those in a row at which the fence held.")
    evidence: str = Field(description="How we know, in one line.")

    @property
    def holds(self) -> bool:
        """No write can be acknowledged by this node any more, not after a restart either.

        sync-quorum-lost: none of a session that waits for the quorum; only the runbook's author says that all do.
        """
        if self.state == "isolated":
            return self.stays_off  # it may live and answer the engine: what counts is that no client hears it
        off = self.state in ("stopped", "rejecting", "self-fenced", "sync-quorum-lost") and self.stays_off
        return off and (not self.reachable or (self.state == "rejecting" and self.sessions == 0))


class Fence(Change[Fencing]):
    """Stop the old primary for good, or make it refuse every client, with evidence.

    Never fences a node that answers as a standby or as another system. Not undone by us: releasing a fence makes a
    second writer, so it belongs to the runbook that returns.
    """

    name: ClassVar[str] = "postgres.fence"
    budget: ClassVar[timedelta] = timedelta(seconds=10)
    interval: ClassVar[timedelta] = timedelta(milliseconds=50)
    libraries: ClassVar[tuple[str, ...]] = ("httpx", "psycopg")
    fences: ClassVar[bool] = True
    plane: ClassVar[Plane] = Plane.control
    resend: ClassVar[timedelta | None] = timedelta(
        seconds=1
    )  # stopping twice harms nothing; a session may have slipped in

    node: Server = Field(description="The old primary itself, not a pooler or proxy that outlives it.")
    method: Method = Field(description="How to fence it: one of control, command, sql.")
    system_id: str | None = Field(
        None,
        description="System identifier it must have where it answers.",
        examples=["${steps.replication.system_id}"],
    )
    if_unreachable: Literal["refuse", "sync-quorum", "isolate-path", "self-fence"] = Field(
        "refuse",
        description="What counts when it can be neither reached nor fenced: nothing, so the step fails (refuse); that "
        "so many of its synchronous standbys receive nothing from it that its commits wait in vain (sync-quorum, the "
        "weakest); that every client's way to it is closed for good (isolate-path); or that its own watchdog has stopped "
        "it because its lease ran out (self-fence).",
    )
    isolate_path: IsolatePath | None = Field(None, description="The clients' way, for `if_unreachable: isolate-path`.")
    self_fence: SelfFence | None = Field(None, description="The node's lease, for `if_unreachable: self-fence`.")
    sync_quorum: SyncQuorum | None = Field(
        None, description="Whom its commits wait for, for `if_unreachable: sync-quorum`; needs `system_id`."
    )
    patience: Duration = Field(timedelta(seconds=1), description="Longest wait for the node itself to answer.")

    @model_validator(mode="after")
    def _options_are_declared(self) -> Fence:
        if (self.if_unreachable == "self-fence") != (self.self_fence is not None):
            raise ValueError("if_unreachable: self-fence and `self_fence` (lease, ttl, skew, reset_by) need each other")
        if (self.if_unreachable == "isolate-path") != (self.isolate_path is not None):
            raise ValueError("if_unreachable: isolate-path and `isolate_path` (path, seen_by, own_side) need each other")
        if (self.if_unreachable == "sync-quorum") != (self.sync_quorum is not None):
            raise ValueError("if_unreachable: sync-quorum and `sync_quorum` (rule, standbys, sessions) need each other")
        return self

    @model_validator(mode="after")
    def _standbys_are_told_apart(self) -> Fence:
        if self.sync_quorum is None:
            return self
        if "system_id" not in self.model_fields_set:  # given, if perhaps not known yet
            raise which_fields("sync_quorum needs `system_id`, to know its standbys by; postgres.replication gives it")
        for name, server in self.sync_quorum.standbys.items():
            if (server.host, server.port) == (self.node.host, self.node.port):
                raise ValueError(f"sync_quorum: standby '{name}' is the old primary itself, {self.node.name}")
        return self

    @property
    def target(self) -> str:
        """The old primary."""
        return f"postgres:{self.node.name}"

    @property
    def targets(self) -> tuple[str, ...]:
        """The old primary, and the standbys that may be cut off from it."""
        standbys = self.sync_quorum.standbys.values() if self.sync_quorum else ()
        return (self.target, *(f"postgres:{server.name}" for server in standbys))

    @property
    def steady(self) -> Steady:
        """sync-quorum: a receiver that is just being started by an older setting is seen by the second look."""
        return Steady(2, timedelta(milliseconds=200)) if self.sync_quorum else Steady()

    def by_hand(self) -> tuple[str, ...]:
        """Stop it for good, then see that it is stopped and stays so. Not done: do not promote."""
        return (*self._otherwise_by_hand(), *self._method_by_hand())

    def _otherwise_by_hand(self) -> tuple[str, ...]:
        option = self.isolate_path or self.self_fence or self.sync_quorum
        return option.by_hand() if option is not None else ()

    def _method_by_hand(self) -> tuple[str, ...]:
        provider = self.method.control or self.method.command
        if provider is not None:
            return provider.by_hand()
        return (
            "put 'host all all all reject' (but for your own role) first in the node's pg_hba.conf",
            f'{self.node.psql} -c "SELECT pg_reload_conf()"',
            f'{self.node.psql} -c "{_END_SESSIONS}"',
        )

    def observe(self, clients: Clients) -> Fencing:
        """Ask the provider and the node itself."""
        from tasks.fence_methods import look

        return look(self, clients)

    def preflight(self, clients: Clients) -> tuple[Need, ...]:
        """Whether the one who stops the node answers, or for sql the node itself; nothing is stopped."""
        import shutil

        state = self.observe(clients)
        refused = self.refuse(state)
        how = {"control": "its provider", "command": f"'{self._stop_command}'", "sql": "the node itself"}[self.method.kind]
        found = [Need(what=f"fence of {self.node.name} by {how}", found=state.evidence, problem=refused is not None, advice=refused or "")]
        if self.method.command is not None:
            place = shutil.which(self._stop_command)
            found.append(
                Need(what=f"command '{self._stop_command}'", found=place or "not there", problem=place is None,
                     advice="" if place else "install it where runs are started")
            )  # fmt: skip
        if self.sync_quorum is not None:
            found += needs(self.sync_quorum, state.commits, state.server_version, state.standbys, self.system_id)
        return tuple(found)

    def done(self, state: Fencing) -> bool:
        """The fence holds, survives a restart, and nothing contradicts it."""
        return state.holds

    def fold(self, earlier: Seen[Fencing] | None, now: Seen[Fencing]) -> Fencing:
        """Keep what the node said of itself while it answered, and since when the fence holds."""
        before, state = earlier.state if earlier else None, now.state
        kept = ("system_id", "in_recovery", "server_version", "commits")  # still so when it no longer answers
        known = {name: getattr(before, name) for name in kept if before and getattr(state, name) is None}
        state = state.model_copy(update=known)
        if self.sync_quorum is not None and state.standbys:
            state = _with_its_word(self.sync_quorum, state, before.standbys if before else ())
        since = before.held_since if before and before.holds else None
        return state.model_copy(update={"held_since": (since or now.at) if state.holds else None})

    def explain(self, state: Fencing) -> str:
        """Say the evidence."""
        return state.evidence

    def describe(self, before: Fencing) -> str:
        """Say what is stopped and how."""
        how = {
            "control": "stop it through its provider",
            "command": f"run '{self._stop_command}'",
            "sql": "reject its clients",
        }
        after = "rejecting" if self.method.sql else "stopped for good"
        return f"fence {self.node.name}: {before.state} -> {after}, {how[self.method.kind]}" + (
            f", or wait {self.self_fence.wait.total_seconds():g}s for its own watchdog" if self.self_fence else ""
        ) + (", or close its clients' way" if self.isolate_path else "") + (
            f", or {self.sync_quorum.intent}" if self.sync_quorum else ""
        )

    @property
    def _stop_command(self) -> str:
        return self.method.command.stop[0] if self.method.command else ""

    def underway(self, state: Fencing) -> bool:
        """It is stopping."""
        return state.state == "stopping"

    def refuse(self, before: Fencing) -> str | None:
        """Refuse a node that is not the old primary, and a fence that could not hold."""
        if before.in_recovery:
            return f"{self.node.name} is a standby (in recovery), not the old primary; name the primary as `node`"
        if self.system_id and before.system_id and before.system_id != self.system_id:
            return (
                f"{self.node.name} belongs to system {before.system_id}, expected {self.system_id}; name the right node"
            )
        if self.method.sql is None:
            return None
        if before.server_version is not None and before.server_version < 160000:
            version = before.server_version // 10000
            return f"{self.node.name} runs PostgreSQL {version}, method sql needs 16; use control or command"
        if before.shared_role:
            return (
                f"role '{self.node.user}' on {self.node.name} is also used by {before.shared_role} session(s) that are "
                "not the engine's, so they could write past the fence; give the engine a role of its own"
            )
        return None

    def act(self, before: Fencing, clients: Clients) -> None:
        """Stop the node, or reject its clients."""
        from tasks.fence_methods import fence

        fence(self, before, clients)


def _with_its_word(declared: SyncQuorum, state: Fencing, before: tuple[StandbySeen, ...]) -> Fencing:
    """Hold what the old primary told while it answered against the declaration; where it told nothing, that counts alone."""
    followed = {one.name: one.followed for one in before}
    standbys = tuple(one.model_copy(update={"followed": one.followed or followed.get(one.name)}) for one in state.standbys)
    against = contradiction(declared, state.commits, state.server_version)
    word = "as it said itself while it answered" if state.commits else "as the runbook says; it told nothing in this run"
    said = f"but {against}, when it answered" if against else f"its rule is {declared.rule}, {word}"
    update = {"standbys": standbys, "evidence": f"{state.evidence}; {said}"}
    denied = against is not None and state.state == "sync-quorum-lost"
    return state.model_copy(update=update | ({"state": "unknown", "stays_off": False} if denied else {}))
