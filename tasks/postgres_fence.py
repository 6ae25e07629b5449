"""Make sure that the old primary takes no more writes, and say how that is known."""

from __future__ import annotations

import shlex
from datetime import datetime, timedelta
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tasks.clients import Clients
from tasks.contract import Change, Duration, Frozen, Need, Plane, Seen
from tasks.path_isolation import IsolatePath
from tasks.postgres_server import Server
from tasks.self_fence import SelfFence

HostState = Literal["unknown", "running", "frozen", "stopping", "stopped", "rejecting", "self-fenced", "isolated"]


class ByControl(Frozen):
    """A control endpoint that stops the host and keeps it off."""

    url: str = Field(
        description="GET gives JSON with `state` and `stays_off`; POST to it + '/stop' stops the host for good.",
        examples=["http://127.0.0.1:7000/nodes/east"],
        pattern="^https?://",
    )


class ByCommand(Frozen):
    """Commands, run without a shell, that stop the host and tell whether it is stopped."""

    stop: tuple[str, ...] = Field(description="Stops the host so that it stays off.", min_length=1)
    status: tuple[str, ...] = Field(
        description="Exit 0: stopped for good; 1: not; anything else: could not ask.", min_length=1
    )


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
        "out), isolated (its clients' way is closed), or unknown (its provider could not be asked)."
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
    held_since: datetime | None = Field(None, description="First look of those in a row at which the fence held.")
    evidence: str = Field(description="How we know, in one line.")

    @property
    def holds(self) -> bool:
        """No write can be acknowledged by this node any more, not after a restart either."""
        if self.state == "isolated":
            return self.stays_off  # it may live and answer the engine: what counts is that no client hears it
        off = self.state in ("stopped", "rejecting", "self-fenced") and self.stays_off
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
    if_unreachable: Literal["refuse", "isolate-path", "self-fence"] = Field(
        "refuse",
        description="What counts when it can be neither reached nor fenced: nothing, so the step fails (refuse); that "
        "every client's way to it is closed for good (isolate-path); or that its own watchdog has stopped it because its "
        "lease ran out (self-fence).",
    )
    isolate_path: IsolatePath | None = Field(None, description="The clients' way, for `if_unreachable: isolate-path`.")
    self_fence: SelfFence | None = Field(None, description="The node's lease, for `if_unreachable: self-fence`.")
    patience: Duration = Field(timedelta(seconds=1), description="Longest wait for the node itself to answer.")

    @model_validator(mode="after")
    def _options_are_declared(self) -> Fence:
        if (self.if_unreachable == "self-fence") != (self.self_fence is not None):
            raise ValueError("if_unreachable: self-fence and `self_fence` (lease, ttl, skew, reset_by) need each other")
        if (self.if_unreachable == "isolate-path") != (self.isolate_path is not None):
            raise ValueError("if_unreachable: isolate-path and `isolate_path` (path, seen_by, own_side) need each other")
        return self

    @property
    def target(self) -> str:
        """The old primary."""
        return f"postgres:{self.node.name}"

    def by_hand(self) -> tuple[str, ...]:
        """Stop it for good, then see that it is stopped and stays so. Not done: do not promote."""
        return (*self._otherwise_by_hand(), *self._method_by_hand())

    def _otherwise_by_hand(self) -> tuple[str, ...]:
        if self.isolate_path is not None:
            path = self.isolate_path.path
            return (
                f"curl --fail -X POST {path.rstrip('/')}/close   # where it cannot be stopped as below",
                f"curl --fail {path}   # then this must say closed and stays_closed",
                *(f"{way.psql} -c 'SELECT 1'   # and this must get no answer" for way in self.isolate_path.seen_by),
            )
        if self.self_fence is None:
            return ()
        url, wait = self.self_fence.lease, self.self_fence.wait.total_seconds()
        return (
            f"curl --fail -X POST {url.rstrip('/')}/close   # where it cannot be stopped as below",
            f"curl --fail {url}   # then this must say closed, and silent_for {wait:g} or more",
        )

    def _method_by_hand(self) -> tuple[str, ...]:
        if self.method.control is not None:
            url = self.method.control.url
            return (f"curl --fail -X POST {url}/stop", f"curl --fail {url}   # must say stopped, and that it stays off")
        if self.method.command is not None:
            stop, status = self.method.command.stop, self.method.command.status
            return (shlex.join(stop), f"{shlex.join(status)}   # must exit 0: stopped for good")
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
        needs = [Need(what=f"fence of {self.node.name} by {how}", found=state.evidence, problem=refused is not None, advice=refused or "")]
        if self.method.command is not None:
            found = shutil.which(self._stop_command)
            needs.append(
                Need(what=f"command '{self._stop_command}'", found=found or "not there", problem=found is None,
                     advice="" if found else "install it where runs are started")
            )  # fmt: skip
        return tuple(needs)

    def done(self, state: Fencing) -> bool:
        """The fence holds, survives a restart, and nothing contradicts it."""
        return state.holds

    def fold(self, earlier: Seen[Fencing] | None, now: Seen[Fencing]) -> Fencing:
        """Keep what the node said of itself while it answered, and since when the fence holds."""
        before, state = earlier.state if earlier else None, now.state
        kept = ("system_id", "in_recovery", "server_version")  # what it was is still so when it no longer answers
        known = {name: getattr(before, name) for name in kept if before and getattr(state, name) is None}
        since = before.held_since if before and before.holds else None
        return state.model_copy(update={**known, "held_since": (since or now.at) if state.holds else None})

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
        ) + (", or close its clients' way" if self.isolate_path else "")

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

        fence(self, clients)
