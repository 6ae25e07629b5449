"""What standbys say of whom they follow, how they are told to follow nobody, and what a primary says of its commits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tasks.clients import Clients, Late
from tasks.errors import ActionFailed
from tasks.postgres_candidates import Upstream
from tasks.postgres_server import Server, asking
from tasks.postgres_upstream import lead, parts_of, upstream_of
from tasks.sync_quorum import WAITING, Commits, StandbySeen, SyncQuorum

if TYPE_CHECKING:
    from tasks.postgres_session import Session

# The view hides a receiver that is still connecting, perhaps to where an older setting led: so the processes count too,
# but those of a second and more after the setting was loaded, which only try the dead end and end at once.
_STANDBY = """
SELECT (SELECT system_identifier::text FROM pg_control_system()), pg_is_in_recovery(),
       EXISTS (SELECT FROM pg_stat_wal_receiver)
         OR EXISTS (SELECT FROM pg_stat_activity
                    WHERE backend_type = 'walreceiver' AND backend_start < pg_conf_load_time() + interval '1s'),
       pg_has_role(current_user, 'pg_read_all_stats', 'usage'),
       coalesce((SELECT sourcefile LIKE '%/postgresql.auto.conf' FROM pg_settings WHERE name = 'primary_conninfo'), false),
       current_setting('cluster_name'), current_setting('primary_slot_name'), current_setting('primary_conninfo')"""
_COMMITS = """
SELECT current_setting('synchronous_standby_names'),
       (SELECT CASE WHEN source IN ('database', 'user', 'database user', 'client') THEN 'set for our own session'
                    ELSE reset_val END FROM pg_settings WHERE name = 'synchronous_commit'),
       ARRAY(SELECT application_name FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum', 'potential') ORDER BY 1)"""
_LOWERED = """
SELECT concat_ws(' in ', 'role ' || rolname, 'database ' || datname), lower(split_part(setting, '=', 2))
FROM pg_db_role_setting CROSS JOIN unnest(setconfig) setting
     LEFT JOIN pg_roles ON pg_roles.oid = setrole LEFT JOIN pg_database ON pg_database.oid = setdatabase
WHERE setting LIKE 'synchronous_commit=%' ORDER BY 1"""


def look_at_standbys(declared: SyncQuorum, patience: timedelta, clients: Clients) -> tuple[StandbySeen, ...]:
    """Ask every declared standby at the same time; one that does not answer is told with its trouble."""

    def ask(name: str, server: Server) -> Callable[[], StandbySeen]:
        return lambda: _standby(name, server, clients)

    keys = {name: f"standby {name} at {server.name}" for name, server in declared.standbys.items()}
    answers = clients.parallel({keys[name]: ask(name, server) for name, server in declared.standbys.items()}, patience)
    return tuple(_or_trouble(name, answers[keys[name]]) for name in declared.standbys)


def _or_trouble(name: str, answer: StandbySeen | Exception | Late) -> StandbySeen:
    if isinstance(answer, StandbySeen):
        return answer
    if isinstance(answer, Late):
        return StandbySeen(name=name, trouble=f"no answer within {answer.after.total_seconds():g}s")
    if isinstance(answer, ActionFailed):
        return StandbySeen(name=name, trouble=answer.reason)
    raise answer


def _standby(name: str, server: Server, clients: Clients) -> StandbySeen:
    had_session = clients.kept(server) is not None
    try:
        row = _ask(server, clients)
    except ActionFailed:
        if not had_session:
            raise
        row = _ask(server, clients)  # a session that was lost does not tell whether the standby answers: ask anew
    system_id, in_recovery, receiver, sees_all, kept, cluster, slot, conninfo = row
    if not sees_all:  # a receiver would be hidden from it
        raise ActionFailed(f"role '{server.user}' is no member of pg_monitor")
    known = parts_of(conninfo)
    if "service" in known:  # its file may hold a hostaddr, which would win over the dead end
        raise ActionFailed("its primary_conninfo names a service, which may lead anywhere; write host and port there")
    follows = upstream_of(conninfo, slot)
    return StandbySeen(
        name=name,
        calls_itself=str(known.get("application_name") or cluster or "walreceiver"),
        system_id=system_id,
        in_recovery=in_recovery,
        receiver=receiver,
        upstream=follows,
        kept=kept,
        followed=None if follows.stopped else follows,
    )


def _ask(server: Server, clients: Clients) -> Any:
    with asking(server, "look at the standby"):
        return clients.postgres(server).execute(_STANDBY).fetchone()


def cut_off(declared: SyncQuorum, whom: Mapping[str, Upstream], clients: Clients) -> None:
    """Tell the standbys to follow nobody, as postgres.elect does: their user, password and slot stay as they are."""
    lead({name: (declared.standbys[name], nobody) for name, nobody in whom.items()}, clients)


def commits(session: Session) -> Commits:
    """Ask a primary whom its commits wait for."""
    row: Any = session.execute(_COMMITS).fetchone()
    lowered = session.execute(_LOWERED).fetchall()
    return Commits(
        names=row[0], level=row[1], attached=tuple(row[2]),
        lowered_for=tuple(f"{whom} ({value})" for whom, value in lowered if value not in (*WAITING, "true", "yes", "1")),
    )  # fmt: skip
