"""How a node is fenced and how we know: through its provider, by commands, or through itself."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

from tasks.clients import Clients, Late
from tasks.errors import ActionFailed
from tasks.path_isolation import IsolatePath, close_path, look_at_path
from tasks.postgres_fence import Fence, Fencing
from tasks.postgres_knock import knock
from tasks.postgres_server import asking
from tasks.self_fence import SelfFence, close_lease, expired, look_at_lease, told
from tasks.sync_quorum import Commits, SyncQuorum, contradiction, cut_off_from, is_lost, to_cut_off

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


@dataclass(frozen=True)
class Node:
    """What the node's PostgreSQL says of itself."""

    system_id: str
    in_recovery: bool
    server_version: int
    sessions: int
    shared_role: int
    commits: Commits | None = None


@dataclass(frozen=True)
class NoSession:
    """A PostgreSQL answers there, but gives us no session: what it is, is not known, only that it lives."""

    code: str


_Answer = Node | NoSession | Exception | Late


def look(step: Fence, clients: Clients) -> Fencing:
    """Ask the node and the one who can stop it; raises ActionFailed where neither could be asked."""
    key = f"node {step.node.name}"
    answer = clients.parallel({key: lambda: _ask_node(step, clients)}, step.patience)[key]
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
    if step.sync_quorum is not None and not seen.holds:
        return _look_at_quorum(step, step.sync_quorum, seen, clients)
    return seen


def _look_by_method(step: Fence, answer: _Answer, clients: Clients) -> Fencing:
    node = answer if isinstance(answer, Node) else None
    said = _why(answer)
    if step.method.sql is not None:
        return _look_sql(step, node, said, clients)
    provider, answers = step.method.control or step.method.command, isinstance(answer, Node | NoSession)
    assert provider is not None  # noqa: S101 - Method has exactly one way
    host = provider.ask(clients)
    return Fencing(
        method=step.method.kind,
        reachable=answers,
        state=host.state,
        stays_off=host.stays_off,
        evidence=f"{step.node.name}: {host.told}, {'and yet ' if answers and host.state == 'stopped' else ''}it {said}",
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


def _look_at_quorum(step: Fence, declared: SyncQuorum, seen: Fencing, clients: Clients) -> Fencing:
    """Take its standbys for evidence; what the node itself told earlier is held against them by `Fence.fold`."""
    from tasks.sync_standbys import look_at_standbys

    standbys = look_at_standbys(declared, step.patience, clients)
    update = {"standbys": standbys, "evidence": f"{seen.evidence}; {cut_off_from(declared, standbys, step.system_id)}"}
    lost = not seen.reachable and is_lost(declared, standbys, step.system_id)
    return seen.model_copy(update=update | ({"state": "sync-quorum-lost", "stays_off": True} if lost else {}))


def fence(step: Fence, before: Fencing, clients: Clients) -> None:
    """Stop the node, or make it reject its clients; where something else counts as well, do that too."""
    if step.self_fence is not None:
        close_lease(step.self_fence, clients)  # first: from here on its time runs, whatever the method takes
    elif step.isolate_path is not None:
        close_path(step.isolate_path, clients)
    elif step.sync_quorum is not None:
        _fence_or_cut_off(step, step.sync_quorum, before, clients)
        return
    else:
        _fence_by_method(step, clients)
        return
    with contextlib.suppress(ActionFailed):  # the look tells which of the two holds
        _fence_by_method(step, clients)


def _fence_or_cut_off(step: Fence, declared: SyncQuorum, before: Fencing, clients: Clients) -> None:
    """Cut its standbys off where the method does not do: its writes hang by that, so never while it answers."""
    from tasks.sync_standbys import cut_off

    trouble = ""
    try:
        _fence_by_method(step, clients)
        seen = look(step, clients)
    except ActionFailed as error:
        seen, trouble = before, error.reason
    if seen.holds or seen.reachable or seen.state == "stopping":
        return
    told, version = seen.commits or before.commits, seen.server_version or before.server_version
    whom, hopeless = to_cut_off(declared, seen.standbys, step.system_id)
    if why := contradiction(declared, told, version) or hopeless:
        raise ActionFailed(f"nothing was cut off: {why}" + (f"; {trouble}" if trouble else ""), attempted="sync-quorum", retry=True)
    cut_off(declared, whom, clients)


def _fence_by_method(step: Fence, clients: Clients) -> None:
    if step.method.control:
        step.method.control.stop(clients)
    elif step.method.command:
        step.method.command.carry_out(clients)
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
        "commits": node.commits,
    }


def _ask_node(step: Fence, clients: Clients) -> Node | NoSession:
    server, had_session = step.node, clients.kept(step.node) is not None
    with contextlib.suppress(ActionFailed):
        return _node(step, clients)
    if had_session:  # a session that was lost does not tell whether the node answers: ask anew
        with contextlib.suppress(ActionFailed):
            return _node(step, clients)
    clients.check()
    try:  # without a session too (wrong password, no room left), a server that answers lives
        answer = knock(server.host, server.port, server.user, server.database, clients.timeout)
    except OSError as error:
        raise ActionFailed(error.strerror or str(error) or type(error).__name__, retry=True) from None
    if answer.closed:
        raise ActionFailed("it closes connections without an answer", retry=True)
    return NoSession(answer.code)


def _node(step: Fence, clients: Clients) -> Node:
    server = step.node
    with asking(server, "look at the old primary"):
        session = clients.postgres(server)
        row: Any = session.execute(_NODE, {"ours": server.application_name}).fetchone()
        node = Node(*row)
        if step.sync_quorum is None:
            return node
        from tasks.sync_standbys import commits

        return replace(node, commits=commits(session))


def _why(answer: _Answer) -> str:
    if isinstance(answer, Node):
        return "answers as a standby" if answer.in_recovery else "answers as a primary"
    if isinstance(answer, NoSession):
        return "answers, but gives us no session" + (f" (SQLSTATE {answer.code})" if answer.code else "")
    if isinstance(answer, Late):
        return f"gives no answer within {answer.after.total_seconds():g}s"
    return f"does not answer ({getattr(answer, 'reason', answer)})"
