"""What replicas say of themselves, and where they are told to stream from.

A primary_conninfo may hold a password: it is read, changed and written within one session and never leaves this module;
only host, address and port do (and in tasks/sync_standbys.py the application_name).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tasks.clients import Clients, Late
from tasks.errors import ActionFailed
from tasks.postgres_candidates import Candidate, Upstream
from tasks.postgres_server import Server, asking
from tasks.postgres_session import RECEIVED_LSN

Answer = TypeVar("Answer")

_LOOK = f"""
SELECT (SELECT system_identifier::text FROM pg_control_system()),
       CASE WHEN pg_is_in_recovery()
            THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                          (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                          (SELECT received_tli FROM pg_stat_wal_receiver))
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
       pg_is_in_recovery(),
       (SELECT status FROM pg_stat_wal_receiver),
       (SELECT sender_host || ':' || sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'),
       {RECEIVED_LSN},
       pg_last_wal_replay_lsn()::text,
       CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
       extract(epoch FROM current_setting('recovery_min_apply_delay')::interval)::float8,
       (SELECT wait_event_type || ' ' || wait_event FROM pg_stat_activity WHERE backend_type = 'startup'
         AND (wait_event LIKE 'RecoveryConflict%' OR wait_event_type = 'Lock')),
       current_setting('primary_conninfo'), current_setting('primary_slot_name')"""  # noqa: S608 - a constant of ours


def candidates(standbys: Mapping[str, Server], clients: Clients, patience: timedelta) -> tuple[Candidate, ...]:
    """Ask every replica at the same time; one that does not answer costs `patience` once and is told with its trouble."""

    def ask(name: str, server: Server) -> Callable[[], Candidate]:
        return lambda: candidate(name, server, clients)

    answers = clients.parallel({name: ask(name, server) for name, server in standbys.items()}, patience)
    return tuple(_or_trouble(name, server, answers[name]) for name, server in standbys.items())


def _or_trouble(name: str, server: Server, answer: Candidate | Exception | Late) -> Candidate:
    if isinstance(answer, Candidate):
        return answer
    if isinstance(answer, Late):
        trouble = f"no answer within {answer.after.total_seconds():g}s"
    elif isinstance(answer, ActionFailed):
        trouble = answer.reason
    else:
        raise answer
    return Candidate(name=name, endpoint=_endpoint(server), trouble=trouble)


def candidate(name: str, server: Server, clients: Clients) -> Candidate:
    """Ask one replica."""
    with asking(server, "look at the replica"):
        row: Any = clients.postgres(server).execute(_LOOK).fetchone()
    return Candidate(
        name=name, endpoint=_endpoint(server), system_id=row[0], timeline=row[1], in_recovery=row[2], receiver=row[3],
        sender=row[4], received_lsn=row[5], replayed_lsn=row[6], replay_paused=row[7], delay_seconds=row[8] or 0.0,
        blocked_by=row[9], upstream=upstream_of(row[10], row[11]),
    )  # fmt: skip


def repoint(server: Server, to: Upstream, clients: Clients) -> None:
    """Tell a standby whom to follow, at once and over a restart; user, password and TLS of its setting stay as they are.

    PostgreSQL 13 and later take it with a reload: the receiver ends, and a new one begins if `to` leads anywhere.
    """
    session = clients.postgres(server)
    with asking(server, "set primary_conninfo"):
        row: Any = session.execute("SELECT current_setting('primary_conninfo')").fetchone()
        kept = {key: value for key, value in parts_of(row[0]).items() if key not in ("host", "hostaddr", "port")}
        place = {key: value for key in ("host", "hostaddr", "port") if (value := getattr(to, key)) is not None}
        made = make_conninfo("", **kept, **place)
        session.execute(sql.SQL("ALTER SYSTEM SET primary_conninfo = {}").format(sql.Literal(made)))
        session.execute(sql.SQL("ALTER SYSTEM SET primary_slot_name = {}").format(sql.Literal(to.slot)))
        session.execute("SELECT pg_reload_conf()")


def lead(whom: Mapping[str, tuple[Server, Upstream]], clients: Clients) -> None:
    """Re-point several standbys at the same time; raises the first failure once all have ended or are late."""

    def go(server: Server, to: Upstream) -> Callable[[], None]:
        return lambda: repoint(server, to, clients)

    answers = clients.parallel({f"re-point {name}": go(*one) for name, one in whom.items()}, clients.timeout)
    for name, answer in answers.items():
        if isinstance(answer, Late):
            raise ActionFailed(f"{name} gave no answer within {answer.after.total_seconds():g}s", attempted=name, retry=True)
        if isinstance(answer, Exception):
            raise answer


def upstream_of(conninfo: str, slot: str) -> Upstream:
    """Where a primary_conninfo leads, without its secrets."""
    parts = parts_of(conninfo)
    place = {key: str(parts[key]) for key in ("host", "hostaddr", "port") if parts.get(key) is not None}
    return Upstream(slot=slot, **place)


def parts_of(conninfo: str) -> dict[str, Any]:
    """All parts of a primary_conninfo, a password too: for this module and tasks/sync_standbys.py only."""
    try:
        return dict(conninfo_to_dict(conninfo))
    except Exception:  # noqa: BLE001 - its message may quote a password
        raise ActionFailed("primary_conninfo cannot be read", attempted="read primary_conninfo") from None


def _endpoint(server: Server) -> str:
    return f"{server.host}:{server.port}"
