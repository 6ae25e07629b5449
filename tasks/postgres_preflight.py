"""What a promotion will need of its candidate: recovery, rights of the role, replay, the clock."""

from __future__ import annotations

from tasks.clients import Clients
from tasks.contract import Need
from tasks.postgres_server import Server, asking

_ROLE = """
SELECT pg_is_in_recovery(),
       has_function_privilege('pg_promote(boolean, integer)', 'execute'),
       has_function_privilege('pg_reload_conf()', 'execute'),
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
       pg_has_role(current_user, 'pg_monitor', 'usage'),
       CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
       current_setting('server_version_num')::int,
       clock_timestamp()"""
# PostgreSQL 15 and later; before, only superusers may ALTER SYSTEM.
_ALTER = "SELECT has_parameter_privilege('synchronous_standby_names', 'ALTER SYSTEM')"


def needs(standby: Server, clients: Clients, *, clear_synchronous: bool = True) -> tuple[Need, ...]:
    """Ask the candidate once; raises ActionFailed where it does not answer."""
    name = standby.name
    with asking(standby, "preflight"):
        session = clients.postgres(standby)
        row = session.execute(_ROLE).fetchone()
        assert row is not None  # noqa: S101 - such a SELECT gives one row
        recovery, promote, reload, superuser, monitor, paused, version, clock = row
        alter = superuser
        if not superuser and version >= 150000:
            answer = session.execute(_ALTER).fetchone()
            alter = bool(answer and answer[0])
    lacking = [] if superuser or promote else ["EXECUTE on pg_promote"]
    lacking += [] if superuser or monitor else ["membership in pg_monitor"]
    if clear_synchronous:
        lacking += [] if superuser or reload else ["EXECUTE on pg_reload_conf"]
        lacking += [] if alter else ["ALTER SYSTEM on synchronous_standby_names"]
    role = standby.user
    return (
        Need(
            what=f"role of {name}", found="a standby" if recovery else "already out of recovery",
            problem=not recovery, advice="" if recovery else "name the standby, or see who promoted it",
        ),
        Need(
            what=f"rights of '{role}' on {name}", problem=bool(lacking),
            found=f"lacks {', '.join(lacking)}" if lacking else "may promote",
            advice=f"grant them to '{role}'" if lacking else "",
        ),
        Need(what=f"clock of {name}", found=f"{clock:%H:%M:%S} UTC", clock=clock),
        Need(
            what=f"replay on {name}", found="paused" if paused else "goes on", problem=bool(paused),
            advice="SELECT pg_wal_replay_resume()" if paused else "",
        ),
    )  # fmt: skip
