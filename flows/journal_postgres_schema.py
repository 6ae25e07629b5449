"""The journal's tables on PostgreSQL: made on first use, under a lock, with a version.

A role that may not create them can still use them: docs/journal.md says what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.events import SCHEMA_VERSION
from flows.journal import JournalError

if TYPE_CHECKING:
    from flows.journal_postgres_line import Line, Turn

EVENTS_LOCK, INBOX_LOCK, SWITCH_LOCK, SCHEMA_LOCK = range(0x46414C31, 0x46414C35)
"""First half of our advisory locks; the second is the execution, where there is one."""

_APPEND_ONLY = """
CREATE TRIGGER stays BEFORE UPDATE OR DELETE OR TRUNCATE ON failover.{table}
  FOR EACH STATEMENT EXECUTE FUNCTION failover.refuse();
ALTER TABLE failover.{table} ENABLE ALWAYS TRIGGER stays;
"""  # ALWAYS: else session_replication_role = replica would go round it

_TABLES = """
CREATE TABLE failover.schema_version (number integer NOT NULL);
CREATE TABLE failover.events (
  execution text NOT NULL, number integer NOT NULL, at timestamptz NOT NULL, kind text NOT NULL,
  body text NOT NULL, hash text NOT NULL, PRIMARY KEY (execution, number));
CREATE INDEX firsts ON failover.events (at) WHERE number = 1;
CREATE TABLE failover.inbox (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key uuid NOT NULL UNIQUE, execution text NOT NULL,
  at timestamptz NOT NULL, body text NOT NULL);
CREATE INDEX letters ON failover.inbox (execution, number);
CREATE TABLE failover.leases (
  target text PRIMARY KEY, token bigint NOT NULL DEFAULT 0, execution text NOT NULL DEFAULT '',
  holder text NOT NULL DEFAULT '', host text NOT NULL DEFAULT '', pid integer NOT NULL DEFAULT 0,
  boot text NOT NULL DEFAULT '', since timestamptz NOT NULL DEFAULT 'epoch', until timestamptz NOT NULL DEFAULT 'epoch');
CREATE TABLE failover.switches (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key uuid NOT NULL UNIQUE, target text NOT NULL,
  halted boolean NOT NULL, by text NOT NULL, reason text NOT NULL, at timestamptz NOT NULL);
CREATE FUNCTION failover.refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS
  $$ BEGIN RAISE EXCEPTION 'append-only' USING ERRCODE = 'integrity_constraint_violation'; END $$;
"""

_CREATE = _TABLES + "".join(_APPEND_ONLY.format(table=table) for table in ("events", "inbox", "switches"))
# Not to_regclass: within a transaction it may answer from a cache that is older than the lock we waited for.
_TABLE_THERE = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = 'failover' AND tablename = 'schema_version')"
_SCHEMA_THERE = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'failover')"
_SIGN = "INSERT INTO failover.schema_version VALUES (%s)"


def prepare(line: Line) -> None:
    """Create the tables if they are missing; raises JournalError when a newer version wrote them."""
    version = line.carry_out(_version)
    if version is None:
        version = line.carry_out(_create)
    if version > SCHEMA_VERSION:
        raise JournalError(f"journal {line.place}: written by a newer version (schema {version}, ours {SCHEMA_VERSION})")


def _version(turn: Turn) -> int | None:
    ((there,),) = turn.look(_TABLE_THERE)
    return int(turn.look("SELECT max(number) FROM failover.schema_version")[0][0]) if there else None


def _create(turn: Turn) -> int:
    turn.ask("SELECT pg_advisory_xact_lock(%s, 0)", SCHEMA_LOCK)
    version = _version(turn)  # again: somebody may have made them while we waited
    if version is not None:
        return version
    ((there,),) = turn.look(_SCHEMA_THERE)
    schema = "" if there else "CREATE SCHEMA failover;"  # IF NOT EXISTS would want the right to create one even so
    turn.commit(schema + _CREATE + _SIGN, SCHEMA_VERSION)
    return SCHEMA_VERSION
