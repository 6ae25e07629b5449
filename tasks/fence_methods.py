"""How a node is fenced and how we know: through its provider, by commands, or through itself."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.clients import Clients, Late
from tasks.errors import ActionFailed
from tasks.fence_calls import call
from tasks.path_isolation import IsolatePath, close_path, look_at_path
from tasks.postgres_fence import ByCommand, ByControl, Fence, Fencing, HostState
from tasks.postgres_knock import knock
from tasks.postgres_server import asking
from tasks.self_fence import SelfFence, close_lease, expired, look_at_lease, told

if TYPE_CHECKING:
    from tasks.postgres_server import Server

# Sessions that can write: clients', and appliers of logical replication. Ours are told by role and application_name.
_NODE = """
SELECT (SELECT system_identifier::text FROM pg_control_system()), pg_is_in_recovery(),
       current_setting('server_version_num')::int,
       count(*) FILTER (WHERE usename IS DISTINCT FROM session_user OR application_name <> %(ours)s),
       count(*) FILTER (WHERE usename = session_user AND application_name <> %(ours)s)
FROM pg_stat_activity
WHERE backend_type IN ('client backend', 'logical replication worker', 'logical replication apply worker',
                       'logical replication parallel worker', 'logical replication tablesync worker')
  AND pid <> pg_backend_pid()"""
_HOST_STATES: dict[str, HostState] = {
    "running": "running",
    "frozen": "frozen",
    "stopping": "stopping",
    "stopped": "stopped",
}


@dataclass(frozen=True)
class Node:
    """What the node's PostgreSQL says of itself."""

    system_id: str
    in_recovery: bool
    server_version: int
    sessions: int
    shared_role: int


@dataclass(frozen=True)
class NoSession:
    """A PostgreSQL answers there, but gives us no session: what it is, is not known, only that it lives."""

    code: str


_Answer = Node | NoSession | Exception | Late


def look(step: Fence, clients: Clients) -> Fencing:
    """Ask the node and the one who can stop it; raises ActionFailed where neither could be asked."""
    key = f"node {step.node.name}"
    answer = clients.parallel({key: lambda: _ask_node(step.node, clients)}, step.patience)[key]
    if isinstance(answer, Exception) and not isinstance(answer, ActionFailed):
        raise answer
    try:
        seen = _look_by_method(step, answer, clients)
    except ActionFailed as error:
        if step.if_unreachable == "refuse":
            raise
        seen = _unknown(step, answer, error)
    if step.self_fence is not None and not seen.holds:
        return _look_at_lease(step.self_fence, seen, clients)
    if step.isolate_path is not None and not seen.holds:
        return _look_at_path(step, step.isolate_path, seen, clients)
    return seen


def _look_by_method(step: Fence, answer: _Answer, clients: Clients) -> Fencing:
    node = answer if isinstance(answer, Node) else None
    said = _why(answer)
    if step.method.sql is not None:
        return _look_sql(step, node, said, clients)
    answers = isinstance(answer, Node | NoSession)
    state, stays_off, told = _ask_provider(step, clients)
    return Fencing(
        method=step.method.kind,
        reachable=answers,
        state=state,
        stays_off=stays_off,
        evidence=f"{step.node.name}: {told}, {'and yet ' if answers and state == 'stopped' else ''}it {said}",
        **_of(node),
    )


def _unknown(step: Fence, answer: _Answer, error: ActionFailed) -> Fencing:
    """What is left where its method could not be asked: only whether the node answers."""
    return Fencing(
        method=step.method.kind,
        reachable=isinstance(answer, Node | NoSession),
        state="unknown",
        stays_off=False,
        evidence=f"{step.node.name}: {error.reason}, it {_why(answer)}",
        **_of(answer if isinstance(answer, Node) else None),
    )


def _look_at_lease(declared: SelfFence, seen: Fencing, clients: Clients) -> Fencing:
    """Take the node's lease for evidence. A node that answers is not fenced by it, whatever the lease says."""
    lease = look_at_lease(declared, clients)
    state = seen.state
    if lease.closed and not seen.reachable and lease.ttl <= declared.ttl.total_seconds():
        state = "self-fenced" if expired(declared, lease) else "stopping"
    return seen.model_copy(
        update={
            "state": state,
            "stays_off": seen.stays_off or state == "self-fenced",
            "lease_closed": lease.closed,
            "lease_silent_for": lease.silent_for,
            "evidence": f"{seen.evidence}; {told(declared, lease)}",
        }
    )


def _look_at_path(step: Fence, declared: IsolatePath, seen: Fencing, clients: Clients) -> Fencing:
    """Take its clients' way for evidence: closed for good by its owner, and no client's try gets an answer."""
    isolation = look_at_path(declared, step.patience, clients)
    update = {"evidence": f"{seen.evidence}; {isolation.told}"}
    return seen.model_copy(update=update | ({"state": "isolated", "stays_off": True} if isolation.holds else {}))


def fence(step: Fence, clients: Clients) -> None:
    """Stop the node, or make it reject its clients; where something else counts as well, do that too."""
    if step.self_fence is not None:
        close_lease(step.self_fence, clients)  # first: from here on its time runs, whatever the method takes
    elif step.isolate_path is not None:
        close_path(step.isolate_path, clients)
    else:
        _fence_by_method(step, clients)
        return
    with contextlib.suppress(ActionFailed):  # the look tells which of the two holds
        _fence_by_method(step, clients)


def _fence_by_method(step: Fence, clients: Clients) -> None:
    if step.method.control:
        _stop_by_control(step.method.control, clients)
    elif step.method.command:
        _stop_by_command(step.method.command, clients)
    else:
        from tasks.postgres_reject import reject_clients

        reject_clients(step.node, clients)


def _look_sql(step: Fence, node: Node | None, said: str, clients: Clients) -> Fencing:
    from tasks.postgres_reject import rejects

    if node is None:
        raise ActionFailed(
            f"{step.node.name} {said}, so method sql can neither fence it nor tell; use control or command",
            attempted=f"look at {step.node.name}",
            retry=True,
        )
    rejecting, told = rejects(step.node, step.method.sql.as_client if step.method.sql else None, clients)
    return Fencing(
        method="sql",
        reachable=True,
        state="rejecting" if rejecting else "running",
        stays_off=rejecting,
        evidence=f"{step.node.name}: {told}, {node.sessions} client session(s) left",
        **_of(node),
    )


def _of(node: Node | None) -> dict[str, Any]:
    if node is None:
        return {}
    return {
        "system_id": node.system_id,
        "in_recovery": node.in_recovery,
        "sessions": node.sessions,
        "shared_role": node.shared_role,
        "server_version": node.server_version,
    }


def _ask_node(server: Server, clients: Clients) -> Node | NoSession:
    had_session = clients.kept(server) is not None
    with contextlib.suppress(ActionFailed):
        return _node(server, clients)
    if had_session:  # a session that was lost does not tell whether the node answers: ask anew
        with contextlib.suppress(ActionFailed):
            return _node(server, clients)
    clients.check()
    try:  # without a session too (wrong password, no room left), a server that answers lives
        answer = knock(server.host, server.port, server.user, server.database, clients.timeout)
    except OSError as error:
        raise ActionFailed(error.strerror or str(error) or type(error).__name__, retry=True) from None
    if answer.closed:
        raise ActionFailed("it closes connections without an answer", retry=True)
    return NoSession(answer.code)


def _node(server: Server, clients: Clients) -> Node:
    with asking(server, "look at the old primary"):
        row = clients.postgres(server).execute(_NODE, {"ours": server.application_name}).fetchone()
    assert row is not None  # noqa: S101 - an aggregate gives one row
    return Node(*row)


def _why(answer: _Answer) -> str:
    if isinstance(answer, Node):
        return "answers as a standby" if answer.in_recovery else "answers as a primary"
    if isinstance(answer, NoSession):
        return "answers, but gives us no session" + (f" (SQLSTATE {answer.code})" if answer.code else "")
    if isinstance(answer, Late):
        return f"gives no answer within {answer.after.total_seconds():g}s"
    return f"does not answer ({getattr(answer, 'reason', answer)})"


def _ask_provider(step: Fence, clients: Clients) -> tuple[HostState, bool, str]:
    if step.method.command:
        return _ask_command(step.method.command, clients)
    assert step.method.control is not None  # noqa: S101 - Method has exactly one way
    return _ask_control(step.method.control, clients)


def _ask_control(control: ByControl, clients: Clients) -> tuple[HostState, bool, str]:
    answer = call(control.url, "GET", clients)
    try:
        body = answer.json()
        state = _HOST_STATES[body["state"]]
        stays_off = body.get("stays_off", False) is True
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ActionFailed(
            f"{control.url} gave no state; expected JSON with `stays_off` and `state`: {', '.join(_HOST_STATES)}",
            attempted=f"GET {control.url}",
        ) from None
    return state, stays_off, f"its provider says {state}" + (" and stays off" if stays_off else "")


def _ask_command(command: ByCommand, clients: Clients) -> tuple[HostState, bool, str]:
    ended = clients.command(command.status)
    if ended.returncode == 0:
        return "stopped", True, f"'{command.status[0]}' says stopped for good"
    if ended.returncode == 1:
        return "running", False, f"'{command.status[0]}' says not stopped"
    raise ActionFailed(
        f"'{command.status[0]}' could not tell: exit status {ended.returncode}{_last(ended.stderr)}",
        attempted=command.status[0],
        code=str(ended.returncode),
        retry=True,
    )


def _stop_by_control(control: ByControl, clients: Clients) -> None:
    call(control.url.rstrip("/") + "/stop", "POST", clients)


def _stop_by_command(command: ByCommand, clients: Clients) -> None:
    ended = clients.command(command.stop)
    if ended.returncode != 0:
        raise ActionFailed(
            f"'{command.stop[0]}' failed: exit status {ended.returncode}{_last(ended.stderr)}",
            attempted=command.stop[0],
            code=str(ended.returncode),
            retry=True,
        )


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return f", {lines[-1][:200]}" if lines else ""
