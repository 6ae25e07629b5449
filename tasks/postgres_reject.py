"""Make a PostgreSQL server reject everyone but the engine, in a way that survives its restart.

The rule stands in the node's own pg_hba.conf: the first rule that matches wins, so two lines in front of the file
reject every role but the engine's. REVOKE, ALTER ROLE or ALTER DATABASE would travel to the standby through the stream
and fence it too; default_transaction_read_only is overridden by any session; ALTER SYSTEM has nothing that refuses
sessions. The stream itself stays: `all` does not match physical replication, which cannot write.

Where it ends: a connection that was accepted right before the reload and has not yet said who it is may still get a
session; it shows in pg_stat_activity and is ended at the next look, and the fence is looked at again right before a
promotion. What rewrites pg_hba.conf by itself (Patroni, configuration management) takes the fence away: stop it first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from psycopg import sql

from tasks.clients import Clients
from tasks.errors import ActionFailed
from tasks.postgres_knock import knock
from tasks.postgres_server import Server, asking, connect

if TYPE_CHECKING:
    from tasks.postgres_session import Session

BEGIN = "# failover fence: begin (rejects everyone but the engine; to release, remove up to `end` and reload)"
END = "# failover fence: end"
COPY_SUFFIX = ".before-failover"
_STRANGER = "failover_fence_probe"  # a role nobody has: the rules reject it before it is looked up
# COPY writes lines as they are when none holds its delimiter, quote or null: bytes that no configuration file holds.
_COPY = """
COPY (SELECT * FROM regexp_split_to_table({}, E'\\n')) TO {}
(FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02', NULL E'\\x03')"""
_END_SESSIONS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND (usename IS DISTINCT FROM session_user OR application_name <> %(ours)s)
  AND backend_type IN ('client backend', 'logical replication worker', 'logical replication apply worker',
                       'logical replication parallel worker', 'logical replication tablesync worker')"""


def reject_clients(server: Server, clients: Clients) -> None:
    """Write the rules, load them, and end all other sessions. May be repeated."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", server.user):
        raise ActionFailed(f"role '{server.user}' cannot be written into pg_hba.conf; give the engine a plain name")
    session = clients.postgres(server)
    with asking(server, "reject clients"):
        path, text = _file(session)
        if BEGIN not in text:
            _write(session, path + COPY_SUFFIX, text)
            _write(session, path, _rules(server.user) + text)
            wrong = session.execute(
                "SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL"
            ).fetchone()
            if wrong:
                _write(session, path, text)
                raise ActionFailed(f"{server.name}: {path}:{wrong[0]}: {wrong[1]}; repair the file, or use control")
        session.execute("SELECT pg_reload_conf()")
        session.execute(_END_SESSIONS, {"ours": server.application_name})


def rejects(server: Server, as_client: Server | None, clients: Clients) -> tuple[bool, str]:
    """Tell whether the node rejects clients now and after a restart, and how we know."""
    with asking(server, "look at pg_hba.conf"):
        path, text = _file(clients.postgres(server))
    if not text.startswith(_rules(server.user)):
        return False, f"{path} lets clients in"
    if not _stranger_is_rejected(server, clients):
        return False, f"{path} rejects clients, but is not loaded"
    if as_client is not None and not _refused(as_client, clients):
        return False, f"{path} rejects clients, and yet '{as_client.user}' gets a session"
    return True, f"{path} rejects clients" + (f" ('{as_client.user}' was refused)" if as_client else "")


def _rules(role: str) -> str:
    others = f'"/^(?!{role}$)"'  # every role but the engine's, a regular expression as of PostgreSQL 16
    return f"{BEGIN}\nlocal all {others} reject\nhost all {others} all reject\n{END}\n"


def _file(session: Session) -> tuple[str, str]:
    row = session.execute("SELECT f, pg_read_file(f) FROM current_setting('hba_file') f").fetchone()
    assert row is not None  # noqa: S101 - such a SELECT gives one row
    return str(row[0]), str(row[1]).replace("\r", "")


def _write(session: Session, path: str, text: str) -> None:
    session.execute(sql.SQL(_COPY).format(sql.Literal(text.removesuffix("\n")), sql.Literal(path)))


def _stranger_is_rejected(server: Server, clients: Clients) -> bool:
    """Ask for a session as a role that nobody has: rejected by the rules, not for being unknown or for its password."""
    clients.check()
    try:
        answer = knock(server.host, server.port, _STRANGER, server.database, clients.timeout)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ActionFailed(f"{server.name}: {reason}", attempted="ask as a stranger", retry=True) from None
    return answer.code == "28000" and answer.routine == "ClientAuthentication"


def _refused(client: Server, clients: Clients) -> bool:
    try:
        connect(client, clients.check, clients.timeout).close()
    except ActionFailed as refusal:
        return refusal.code == "28000"
    return False
