"""How often an effect happened that should happen once, read from the world and from the journal.

A promotion counts by the timeline: each starts a new one, so the second leaves its mark for good. A change of capacity
and of a record counts by what the cloud accepted. A step counts that finished more than once. Stopping a node or closing
its way does not: both are sent again on purpose until they are seen, and twice is the same as once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import httpx
import psycopg

from deployments.lab import Lab
from deployments.lab.addresses import NodeName
from flows.events import Event, Status, StepFinished

_TIMELINE = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END"


def promotions(lab: Lab, node: NodeName) -> int:
    """How often anything was promoted in the node's history; 0 for one that is a standby."""
    with psycopg.connect(lab.conninfo(node), autocommit=True) as session:
        name = (session.execute(_TIMELINE).fetchone() or (None,))[0]
    return 0 if name is None else int(name[:8], 16) - 1


def cloud_changes(lab: Lab) -> dict[str, int]:
    """What the lab's cloud accepted since its first day: changes of the west's capacity and of the record."""
    told = httpx.get(f"{lab.addresses.cloud_url}/lab/changes", timeout=10, trust_env=False).json()
    return {"scale": told["capacity"].get(lab.addresses.group("west"), 0), "dns": told["records"]}


def repeated(events: Iterable[Event], effects: Mapping[str, int]) -> int:
    """Count what happened beyond once: `effects` of each step in the world, and steps that finished again."""
    finished = Counter(
        event.step for event in events if isinstance(event, StepFinished) and event.status in {Status.done, Status.already}
    )
    return sum(max(0, count - 1) for count in [*effects.values(), *finished.values()])
