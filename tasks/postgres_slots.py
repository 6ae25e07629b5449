"""Logical replication slots: what a promotion keeps of them."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.clients import Clients
from tasks.postgres_server import Server, asking

# A slot that is still being synced is temporary and dropped by the promotion; an invalidated one cannot be read from.
_SURVIVING = """
SELECT slot_name::text FROM pg_replication_slots
WHERE slot_type = 'logical' AND NOT temporary AND wal_status IS DISTINCT FROM 'lost' ORDER BY 1"""


def surviving(server: Server, clients: Clients) -> tuple[str, ...]:
    """Logical slots that this server has and keeps when it is promoted."""
    with asking(server, "look at the slots"):
        return tuple(row[0] for row in clients.postgres(server).execute(_SURVIVING).fetchall())


def lost(server: Server, before: Sequence[str], clients: Clients) -> tuple[str, ...]:
    """Those of `before` that this server does not have."""
    kept = surviving(server, clients) if before else ()
    return tuple(slot for slot in before if slot not in kept)
