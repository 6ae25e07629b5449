"""Two servers as a pair: does one follow the other, how far behind, with its slot, do commits wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from tasks.clients import Clients, Late
from tasks.errors import ActionFailed
from tasks.postgres_pair import Following, Pair, Side
from tasks.postgres_server import Server, asking

if TYPE_CHECKING:
    from tasks.postgres_session import Session

_SIDE = """
SELECT (SELECT system_identifier::text FROM pg_control_system()), pg_is_in_recovery(),
       CASE WHEN pg_is_in_recovery()
            THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()), (SELECT min_recovery_end_timeline
                          FROM pg_control_recovery()), (SELECT received_tli FROM pg_stat_wal_receiver))
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
       current_setting('synchronous_standby_names')"""
_FOLLOWED = """
SELECT state, coalesce(sync_state, ''), pg_wal_lsn_diff(pg_current_wal_flush_lsn(), flush_lsn)::bigint,
       pg_wal_lsn_diff(pg_current_wal_flush_lsn(), replay_lsn)::bigint
FROM pg_stat_replication WHERE application_name = %(name)s ORDER BY state = 'streaming' DESC LIMIT 1"""
_SLOT = "SELECT CASE WHEN active THEN 'active' WHEN wal_status = 'lost' THEN 'lost' ELSE 'idle' END FROM pg_replication_slots WHERE slot_name = %(slot)s"


def look_at_pair(primary: Server, standby: Server, pair: Pair, clients: Clients) -> Following:
    """Ask both servers at the same time; one that cannot be asked is None, with the reason in `detail`."""
    answers = clients.parallel(
        {
            f"primary {primary.name}": lambda: _primary(primary, pair, clients),
            f"standby {standby.name}": lambda: _standby(standby, clients),
        },
        clients.timeout,
    )
    first, second = answers.values()
    for answer in (first, second):
        if isinstance(answer, Exception) and not isinstance(answer, ActionFailed):
            raise answer
    told = first if isinstance(first, Following) else Following()
    side = second.standby if isinstance(second, Following) else None
    detail = "; ".join(_why(answer) for answer in (first, second) if not isinstance(answer, Following))
    return told.model_copy(update={"standby": side, "detail": detail})


def fork_of(primary: Server, timeline: int, clients: Clients) -> str | None:
    """Read where the primary's history left `timeline`; None where it never was on it."""
    with asking(primary, "read the timeline history"):
        session = clients.postgres(primary)
        row = session.execute(_SIDE).fetchone()
        assert row is not None  # noqa: S101 - such a SELECT gives one row
        if row[2] <= 1:
            return None
        text = session.execute("SELECT pg_read_file('pg_wal/' || %(name)s)", {"name": f"{row[2]:08X}.history"}).fetchone()
    for line in str(text[0] if text else "").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == str(timeline):
            return words[1]
    return None


def absent_keys(primary: Server, table: str, key: str, keys: list[str], clients: Clients) -> list[str]:
    """Tell which of the keys the primary has no row for."""
    if not keys:
        return []
    find = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = to_regclass(%(table)s) AND attname = %(key)s"
    with asking(primary, f"look for rows of {table}"):
        session = clients.postgres(primary)
        row = session.execute(find, {"table": table, "key": key}).fetchone()
        if row is None:
            raise ActionFailed(f"{primary.name}: there is no {table}.{key}; name a table and a column that tells its rows apart")
        query = sql.SQL(
            "SELECT k FROM unnest(%(keys)s::text[]) WITH ORDINALITY AS given (k, n) WHERE NOT EXISTS"
            " (SELECT FROM {table} WHERE {key} = k::{type}) ORDER BY n"
        ).format(table=sql.Identifier(*table.split(".")), key=sql.Identifier(key), type=sql.SQL(row[0]))
        return [str(one[0]) for one in session.execute(query, {"keys": keys}).fetchall()]


def make_slot(primary: Server, slot: str, clients: Clients) -> None:
    """Make the standby's physical slot where it is missing, and anew where its WAL is lost. May be repeated."""
    with asking(primary, f"make slot '{slot}'"):
        session = clients.postgres(primary)
        state = _slot(session, slot)
        if state == "lost":
            session.execute("SELECT pg_drop_replication_slot(%(slot)s)", {"slot": slot})
        if state in ("lost", "missing"):
            session.execute("SELECT pg_create_physical_replication_slot(%(slot)s, true)", {"slot": slot})


def set_names(primary: Server, names: str, clients: Clients) -> None:
    """Write synchronous_standby_names and load it."""
    with asking(primary, "set synchronous_standby_names"):
        session = clients.postgres(primary)
        session.execute(sql.SQL("ALTER SYSTEM SET synchronous_standby_names = {}").format(sql.Literal(names)))
        session.execute("SELECT pg_reload_conf()")


def _primary(server: Server, pair: Pair, clients: Clients) -> Following:
    with asking(server, "look at the primary"):
        session = clients.postgres(server)
        side, names = _side(session)
        if side.in_recovery:
            return Following(primary=side, names=names)
        row: Any = session.execute(_FOLLOWED, {"name": pair.name}).fetchone()
        slot = _slot(session, pair.slot) if pair.slot else "active"
    if row is None:
        return Following(primary=side, names=names, slot=slot)
    return Following(
        primary=side, names=names, slot=slot, state=row[0], sync_state=row[1],
        behind_bytes=max(0, row[2]) if row[2] is not None else None,
        replay_bytes=max(0, row[3]) if row[3] is not None else None,
    )  # fmt: skip


def _standby(server: Server, clients: Clients) -> Following:
    with asking(server, "look at the standby"):
        return Following(standby=_side(clients.postgres(server))[0])


def _side(session: Session) -> tuple[Side, str]:
    row = session.execute(_SIDE).fetchone()
    assert row is not None  # noqa: S101 - such a SELECT gives one row
    return Side(system_id=row[0], in_recovery=row[1], timeline=row[2]), row[3]


def _slot(session: psycopg.Connection[Any], slot: str) -> Any:
    row = session.execute(_SLOT, {"slot": slot}).fetchone()
    return row[0] if row else "missing"


def _why(answer: ActionFailed | Late | Exception | Following) -> str:
    return f"no answer within {answer.after.total_seconds():g}s" if isinstance(answer, Late) else getattr(answer, "reason", str(answer))
