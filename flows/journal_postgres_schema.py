"""The journal's tables on PostgreSQL: made on first use, under a lock, with a version.

A role that may not create them can still use them: docs/journal.md says what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.events import SCHEMA_VERSION
from flows.journal import JournalError
from flows.journal_chain import Vouch, vouch

if TYPE_CHECKING:
    from flows.journal_chain import Key
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

_SEALED = """
ALTER TABLE failover.events ADD COLUMN key text NOT NULL DEFAULT '', ADD COLUMN mac text NOT NULL DEFAULT '';
CREATE TABLE failover.vouches (
  execution text PRIMARY KEY, number integer NOT NULL, hash text NOT NULL, key text NOT NULL, mac text NOT NULL);
CREATE TABLE failover.imports (
  execution text NOT NULL, first integer NOT NULL, last integer NOT NULL, source text NOT NULL, by text NOT NULL,
  at timestamptz NOT NULL);
"""
"""From schema 1 to 2."""

_CREATE = _TABLES + "".join(_APPEND_ONLY.format(table=table) for table in ("events", "inbox", "switches"))
_MIGRATE = _SEALED + "".join(_APPEND_ONLY.format(table=table) for table in ("vouches", "imports"))
_HEADS = """SELECT execution, number, hash FROM failover.events one
  WHERE number = (SELECT max(number) FROM failover.events WHERE execution = one.execution)"""
_VOUCH = "INSERT INTO failover.vouches VALUES (%s, %s, %s, %s, %s);"
# Not to_regclass: within a transaction it may answer from a cache that is older than the lock we waited for.
_TABLE_THERE = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = 'failover' AND tablename = 'schema_version')"
_SCHEMA_THERE = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'failover')"
_SIGN = "INSERT INTO failover.schema_version VALUES (%s)"


def prepare(line: Line, key: Callable[[], Key]) -> None:
    """Create or migrate the tables; raises JournalError when a newer version wrote them.

    key: seals what stands in a journal of schema 1, which has no macs; asked for only then.
    """
    version = line.carry_out(_version)
    if version is None or version < SCHEMA_VERSION:
        version = line.carry_out(lambda turn: _create(turn, key))
    if version > SCHEMA_VERSION:
        raise JournalError(f"journal {line.place}: written by a newer version (schema {version}, ours {SCHEMA_VERSION})")


def _version(turn: Turn) -> int | None:
    ((there,),) = turn.look(_TABLE_THERE)
    return int(turn.look("SELECT max(number) FROM failover.schema_version")[0][0]) if there else None


def _create(turn: Turn, key: Callable[[], Key]) -> int:
    turn.ask("SELECT pg_advisory_xact_lock(%s, 0)", SCHEMA_LOCK)
    version = _version(turn)  # again: somebody may have made them while we waited
    if version is None:
        ((there,),) = turn.look(_SCHEMA_THERE)
        schema = "" if there else "CREATE SCHEMA failover;"  # IF NOT EXISTS would want the right to create one even so
        turn.commit(schema + _CREATE + _MIGRATE + _SIGN, SCHEMA_VERSION)
    elif version < SCHEMA_VERSION:
        turn.ask("LOCK TABLE failover.events IN SHARE ROW EXCLUSIVE MODE")  # nobody appends between the look and the change
        made = [_values(vouch(execution, number, plain, key())) for execution, number, plain in turn.look(_HEADS)]
        flat = [value for values in made for value in values]
        turn.commit(_MIGRATE + _VOUCH * len(made) + _SIGN, *flat, SCHEMA_VERSION)
    else:
        return version
    return SCHEMA_VERSION


def _values(made: Vouch) -> tuple[str, int, str, str, str]:
    return (made.execution, made.number, made.hash, made.key, made.mac)
