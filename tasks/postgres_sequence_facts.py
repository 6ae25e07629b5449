"""Reading and setting a database's sequences, all in one round trip."""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Any

from tasks.clients import Clients
from tasks.postgres_sequences import Sequence, Sequences
from tasks.postgres_server import Server, asking

# Temporary sequences belong to a session. A value that was never handed out counts as one step before the start.
_READ = """
SELECT format('%I.%I', n.nspname, c.relname), s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
       coalesce(CASE WHEN has_sequence_privilege(c.oid, 'USAGE, SELECT') THEN pg_sequence_last_value(c.oid) END,
                s.seqstart::numeric - s.seqincrement)::text,
       has_sequence_privilege(c.oid, 'UPDATE') AND has_sequence_privilege(c.oid, 'USAGE, SELECT')
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' ORDER BY 1"""
# Never back: a sequence that went on meanwhile keeps its place; in one that cycles there is no back.
_SET = """
SELECT setval(one.name::regclass, one.target)
FROM unnest(%(names)s::text[], %(targets)s::bigint[]) AS one(name, target)
     JOIN pg_sequence s ON s.seqrelid = one.name::regclass
WHERE s.seqcycle OR coalesce((one.target - pg_sequence_last_value(s.seqrelid)) * sign(s.seqincrement) > 0, true)"""


def sequences(server: Server, clients: Clients) -> Sequences:
    """Read every sequence of the database."""
    with asking(server, "read the sequences"):
        session = clients.postgres(server)
        row: Any = session.execute("SELECT pg_is_in_recovery()").fetchone()
        if row[0]:
            return Sequences(in_recovery=True, sequences=())
        rows = session.execute(_READ).fetchall()
    found = tuple(
        Sequence(name=name, increment=step, least=least, most=most, cycles=cycles, last=int(last), may_set=may_set)
        for name, step, least, most, cycles, last, may_set in rows
    )
    return Sequences(in_recovery=False, sequences=found)


def advance(server: Server, moved: Several[Sequence], clients: Clients) -> None:
    """Set each to its target."""
    names, targets = [one.name for one in moved], [one.target for one in moved]
    with asking(server, "setval"):
        clients.postgres(server).execute(_SET, {"names": names, "targets": targets})
