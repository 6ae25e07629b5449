"""What a PostgreSQL server says of itself, and the statements that promote it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, sql

from tasks.clients import Clients, Late
from tasks.errors import ActionFailed
from tasks.postgres_candidates import DEAD_END
from tasks.postgres_promote import Promotion
from tasks.postgres_replication import Following, Replica
from tasks.postgres_server import Heartbeat, Server, asking
from tasks.postgres_session import RECEIVED_LSN

if TYPE_CHECKING:
    from tasks.postgres_session import Session

LOCK = int.from_bytes(b"failover", "big")  # the advisory lock that whoever promotes holds, the same in every version

_FACTS = f"""
SELECT (SELECT system_identifier::text FROM pg_control_system()),
       pg_is_in_recovery(),
       CASE WHEN pg_is_in_recovery()
            THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                          (SELECT received_tli FROM pg_stat_wal_receiver))
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
       (SELECT status FROM pg_stat_wal_receiver),
       {RECEIVED_LSN},
       pg_last_wal_replay_lsn()::text,
       CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
       pg_last_xact_replay_timestamp(),
       clock_timestamp(),
       current_setting('synchronous_standby_names'),
       (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))"""  # noqa: S608 - a constant of ours
_PRIMARY = """
SELECT (SELECT system_identifier::text FROM pg_control_system()),
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn()::text END,
       ARRAY(SELECT slot_name::text FROM pg_replication_slots WHERE slot_type = 'logical' ORDER BY 1)"""
_REPLICAS = """
SELECT application_name, coalesce(state, ''), coalesce(sync_state, ''),
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)::bigint END
FROM pg_stat_replication ORDER BY 1"""
# For whoever may read the setting; a standby left so keeps a primary that waits for it from acknowledging anything.
_FOLLOWS_NOBODY = """
SELECT CASE WHEN pg_has_role(current_user, 'pg_read_all_settings', 'usage')
            THEN position(%(dead_end)s in current_setting('primary_conninfo')) > 0 ELSE false END"""
# An id makes it a write, and nothing stays. A read-only session gets an id too, so that is asked beside.
_TRY_WRITE = "SELECT pg_current_xact_id()::text, current_setting('transaction_read_only')::bool"
# With the lock, let the server notice within about 11 s that we are gone, else a dead engine's lock excludes for hours.
_TAKE_LOCK = """
SELECT pg_try_advisory_lock(%(lock)s::bigint),
       set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
       set_config('tcp_keepalives_count', '3', false)"""
_LOCK_HOLDER = """
SELECT pid, application_name, client_addr::text FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND (classid::bigint << 32 | objid::bigint) = %(lock)s::bigint"""


@dataclass(frozen=True)
class Facts:
    """One look at one server, in one round trip."""

    system_id: str
    in_recovery: bool
    timeline: int
    receiver: str | None
    received_lsn: str | None
    replayed_lsn: str | None
    replay_paused: bool
    last_replayed_at: datetime | None
    now: datetime
    synchronous_names: str
    synchronous_attached: int


def facts(session: Session) -> Facts:
    """Ask a server for all that it says of itself."""
    row = session.execute(_FACTS).fetchone()
    assert row is not None  # noqa: S101 - such a SELECT gives one row
    return Facts(*row)


def heartbeat_at(session: Session, heartbeat: Heartbeat | None) -> tuple[datetime | None, str]:
    """Read the newest heartbeat, or why there is none: that must not stop a recovery."""
    if heartbeat is None:
        return None, ""
    query = sql.SQL("SELECT max({})::timestamptz FROM {}").format(
        sql.Identifier(heartbeat.column), sql.Identifier(*heartbeat.table.split("."))
    )
    try:
        row = session.execute(query).fetchone()
    except errors.OperationalError:
        raise
    except psycopg.Error as error:
        return None, f"heartbeat cannot be read: {str(error).splitlines()[0]}"
    found: datetime | None = row[0] if row else None
    return found, "" if found else "there is no heartbeat row"


def following(
    standby: Server, primary: Server | None, heartbeat: Heartbeat | None, clients: Clients, patience: timedelta
) -> Following:
    """Join what the standby and, where it answers, the primary say."""
    with asking(standby, "look at the stream"):
        session = clients.postgres(standby)
        seen = facts(session)
        beat, detail = heartbeat_at(session, heartbeat)
        told = _told_to_follow_nobody(session) if seen.in_recovery and seen.receiver is None else ""
    other = _ask_primary(primary, heartbeat, clients, patience) if primary else None
    fits = isinstance(other, _Primary) and other.system_id == seen.system_id and other.lsn is not None
    known = other if isinstance(other, _Primary) and fits else None
    lag_bytes = _bytes(known.lsn) - _bytes(seen.received_lsn) if known and known.lsn and seen.received_lsn else None
    lag_bytes = max(0, lag_bytes) if lag_bytes is not None else None
    newer = known.beat - beat if known and known.beat and beat else timedelta(0)
    age = _seconds(seen.now - beat) if beat else None
    replay_age = _seconds(seen.now - seen.last_replayed_at) if seen.last_replayed_at else None
    behind = 0.0 if lag_bytes == 0 and seen.received_lsn == seen.replayed_lsn else replay_age
    return Following(
        system_id=seen.system_id,
        timeline=seen.timeline,
        in_recovery=seen.in_recovery,
        attached=seen.receiver == "streaming",
        receiver=seen.receiver,
        received_lsn=seen.received_lsn,
        replayed_lsn=seen.replayed_lsn,
        replay_paused=seen.replay_paused,
        last_replayed_at=seen.last_replayed_at,
        heartbeat_at=beat,
        lag_seconds=age if age is not None else behind,
        lag_bytes=lag_bytes,
        loss_at_least_seconds=_seconds(newer),
        loss_at_most_seconds=age,
        primary_answers=None if primary is None else isinstance(other, _Primary),
        primary_system_id=other.system_id if isinstance(other, _Primary) else None,
        synchronous=any(one.sync_state in ("sync", "quorum") for one in known.replicas) if known else None,
        replicas=known.replicas if known else (),
        logical_slots=known.logical_slots if known else (),
        detail="; ".join(filter(None, (detail, told, _about(other, seen.system_id)))),
    )


def _told_to_follow_nobody(session: Session) -> str:
    row = session.execute(_FOLLOWS_NOBODY, {"dead_end": DEAD_END}).fetchone()
    return "it is told to follow nobody, as an election or a fence (sync-quorum) leaves it" if row and row[0] else ""


@dataclass(frozen=True)
class _Primary:
    system_id: str
    lsn: str | None
    logical_slots: tuple[str, ...]
    replicas: tuple[Replica, ...]
    beat: datetime | None


def _ask_primary(
    primary: Server, heartbeat: Heartbeat | None, clients: Clients, patience: timedelta
) -> _Primary | ActionFailed | Late:
    def ask() -> _Primary:
        with asking(primary, "look at the primary"):
            session = clients.postgres(primary)
            row: Any = session.execute(_PRIMARY).fetchone()
            replicas = session.execute(_REPLICAS).fetchall()
            beat, _ = heartbeat_at(session, heartbeat)
        found = tuple(
            Replica(name=name, state=state, sync_state=sync, lag_bytes=lag) for name, state, sync, lag in replicas
        )
        return _Primary(row[0], row[1], tuple(row[2]), found, beat)

    name = f"primary {primary.name}"
    answer = clients.parallel({name: ask}, patience)[name]
    if isinstance(answer, Exception) and not isinstance(answer, ActionFailed):
        raise answer
    return answer


def _about(other: _Primary | ActionFailed | Late | None, system_id: str) -> str:
    if isinstance(other, ActionFailed):
        return f"primary cannot be asked: {other.reason}"
    if isinstance(other, Late):
        return f"primary gave no answer within {other.after.total_seconds():g}s"
    if other is not None and other.system_id != system_id:
        return f"primary belongs to another system, {other.system_id}"
    if other is not None and other.lsn is None:
        return "what is named as primary is in recovery"
    return ""


def promotion(
    standby: Server, heartbeat: Heartbeat | None, acknowledged_until: datetime | None, clients: Clients
) -> Promotion:
    """Look at the candidate; where it is out of recovery, try a write that leaves nothing."""
    beat: datetime | None = None
    with asking(standby, "look at the candidate"):
        session = clients.postgres(standby)
        seen = facts(session)
        if seen.in_recovery:
            writable = False
            beat, detail = heartbeat_at(session, heartbeat)
        else:
            writable, detail = _try_write(session)
    waits = not seen.in_recovery and bool(seen.synchronous_names) and seen.synchronous_attached == 0
    if waits:
        detail = f"commits wait for synchronous_standby_names '{seen.synchronous_names}', none of which is attached"
    return Promotion(
        endpoint=f"{standby.host}:{standby.port}",
        system_id=seen.system_id,
        timeline=seen.timeline,
        in_recovery=seen.in_recovery,
        writable=writable,
        commits_wait=waits,
        received_lsn=seen.received_lsn,
        replayed_lsn=seen.replayed_lsn,
        receiver=seen.receiver,
        replay_paused=seen.replay_paused,
        synchronous_before=seen.synchronous_names,
        synchronous_now=seen.synchronous_names,
        heartbeat_at=beat,
        loss_seconds_at_most=_seconds((acknowledged_until or seen.now) - beat) if beat else None,
        detail=detail,
    )


def _try_write(session: Session) -> tuple[bool, str]:
    try:
        with session.transaction(force_rollback=True):
            row = session.execute(_TRY_WRITE).fetchone()
    except psycopg.Error as error:
        return False, f"a write was not possible: {str(error).splitlines()[0]}"
    if row and row[1]:
        return False, "sessions are read-only (default_transaction_read_only)"
    return True, ""


def promote(standby: Server, clear_synchronous: bool, clients: Clients) -> None:
    """Send pg_promote without waiting, as the only one who may.

    The session lock is taken on the candidate itself and kept, with its session, until the attempt ends: two engines
    that both believe they hold the lease still cannot both promote. It survives the promotion, not the session.
    """
    session = clients.postgres(standby)
    with asking(standby, "pg_promote"):
        row = session.execute(_TAKE_LOCK, {"lock": LOCK}).fetchone()
        if not (row and row[0]):
            raise ActionFailed(
                f"someone else is promoting {standby.name}: {_holder(session)}; look at what they do, then retry",
                attempted=f"pg_try_advisory_lock on {standby.name}",
                code="55P03",
            )
        if clear_synchronous:
            _clear_synchronous(session)
        try:
            session.execute("SELECT pg_promote(false)")
        except errors.ObjectNotInPrerequisiteState:  # 55000: out of recovery already
            return


def _clear_synchronous(session: Session) -> None:
    """Clear names that no attached standby answers to: the first commit would wait for them for ever.

    Possible in recovery too (it writes a file of this server only), so no commit gets between promotion and reload.
    """
    row = session.execute(
        "SELECT current_setting('synchronous_standby_names') <> '' AND NOT EXISTS (SELECT FROM pg_stat_replication"
        " WHERE pg_is_in_recovery() OR sync_state IN ('sync', 'quorum'))"
    ).fetchone()
    if row and row[0]:
        session.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        session.execute("SELECT pg_reload_conf()")


def _holder(session: Session) -> str:
    row = session.execute(_LOCK_HOLDER, {"lock": LOCK}).fetchone()
    return (
        f"session {row[0]} of '{row[1]}' from {row[2] or 'its own host'} holds the lock" if row else "it held the lock"
    )


def _bytes(lsn: str | None) -> int:
    high, _, low = (lsn or "0/0").partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def _seconds(span: timedelta) -> float:
    return max(0.0, round(span.total_seconds(), 3))  # two hosts' clocks: what looks negative is none
