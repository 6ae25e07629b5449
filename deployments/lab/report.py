"""What the customers saw: downtime, lost and duplicate orders, computed from their records and the database."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

TRAFFIC_FILE: Final = "traffic.jsonl"


@dataclass(frozen=True)
class Order:
    """One finished order as its customer saw it; all times UTC.

    `acked` is None when the customer gave up. `failed` is the first attempt that failed. `node` is the PostgreSQL node
    that wrote the row, `region` the region whose service answered.
    """

    ref: str
    sent: datetime
    acked: datetime | None
    region: str | None
    node: str | None
    attempts: int
    failed: datetime | None = None
    reason: str = ""


@dataclass(frozen=True)
class TrafficReport:
    """The facts of one lab's traffic, about one fault if its time is given; all times UTC.

    `missing` were acknowledged and are not on the current primary: lost. `duplicated` are there more than once.
    `downtime` is the longest time without any acknowledgement that ended after the fault: from `last_ack_before` to
    `first_ack_after`; it never falls below the distance of two orders, and is None as long as nothing was acknowledged
    after the fault. `first_ack_by_new_primary` is the first acknowledgement after the fault by another node than the
    one that served before. `by_node` counts acknowledgements for each node; where `two_writers` is true, a node
    acknowledged orders after another had taken over: a split brain. With a fault only what came after it counts.
    """

    acknowledged: int
    given_up: int
    missing: tuple[str, ...]
    duplicated: tuple[str, ...]
    by_node: Mapping[str, int]
    two_writers: bool
    fault: datetime | None = None
    first_failure: datetime | None = None
    last_ack_before: datetime | None = None
    first_ack_after: datetime | None = None
    first_ack_by_new_primary: datetime | None = None
    new_primary: str | None = None

    @property
    def downtime(self) -> timedelta | None:
        if self.first_ack_after is None or self.last_ack_before is None:
            return None
        return self.first_ack_after - self.last_ack_before

    @property
    def fault_to_new_primary(self) -> timedelta | None:
        """From the fault to the first order that the new primary acknowledged."""
        if self.first_ack_by_new_primary is None or self.fault is None:
            return None
        return self.first_ack_by_new_primary - self.fault


def read(file: Path) -> list[Order]:
    """Read the traffic's records; a last line still being written is left out."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [_order(json.loads(line)) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def report(orders: Iterable[Order], found: Mapping[str, int], fault: datetime | None = None) -> TrafficReport:
    """Compute the facts. `found` counts each ref on the current primary, read after the records were."""
    everything = list(orders)
    acked = sorted((order for order in everything if order.acked), key=_acked)
    before, after = _gap([_acked(order) for order in acked], fault)
    new = _takeover(acked, fault)
    return TrafficReport(
        acknowledged=len(acked),
        given_up=len(everything) - len(acked),
        missing=tuple(order.ref for order in acked if order.ref not in found),
        duplicated=tuple(ref for ref, times in found.items() if times > 1),
        by_node=dict(Counter(str(order.node) for order in acked)),
        two_writers=_two_writers(_since(acked, fault)),
        fault=fault,
        first_failure=min((order.failed for order in everything if order.failed and (fault is None or order.failed >= fault)),
                          default=None),
        last_ack_before=before,
        first_ack_after=after,
        first_ack_by_new_primary=new.acked if new else None,
        new_primary=new.node if new else None,
    )  # fmt: skip


def _gap(acks: Sequence[datetime], fault: datetime | None) -> tuple[datetime | None, datetime | None]:
    if fault is None:
        return None, None
    gaps = [(before, after) for before, after in pairwise(acks) if after > fault]
    if not gaps:
        return (acks[-1] if acks else None), None
    return max(gaps, key=lambda gap: gap[1] - gap[0])


def _takeover(acked: Sequence[Order], fault: datetime | None) -> Order | None:
    if fault is None:
        return None
    before = [order.node for order in acked if _acked(order) <= fault]
    after = [order for order in acked if _acked(order) > fault]
    return next((order for order in after if before and order.node != before[-1]), None)


def _since(acked: Sequence[Order], fault: datetime | None) -> Sequence[Order]:
    """The orders after the fault and the last one before it: what a planned return did earlier is no split brain."""
    if fault is None:
        return acked
    after = next((number for number, order in enumerate(acked) if _acked(order) > fault), len(acked))
    return acked[max(0, after - 1) :]


def _two_writers(acked: Sequence[Order]) -> bool:
    """Whether a node acknowledged again after another node had."""
    turns = [order.node for number, order in enumerate(acked) if number == 0 or order.node != acked[number - 1].node]
    return len(turns) != len(set(turns))


def _acked(order: Order) -> datetime:
    if order.acked is None:
        raise ValueError(f"order {order.ref} was not acknowledged")
    return order.acked


def _order(line: Mapping[str, object]) -> Order:
    return Order(
        ref=str(line["ref"]),
        sent=datetime.fromisoformat(str(line["sent"])),
        acked=_time(line.get("acked")),
        region=_text(line.get("region")),
        node=_text(line.get("node")),
        attempts=int(str(line["attempts"])),
        failed=_time(line.get("failed")),
        reason=str(line.get("reason") or ""),
    )


def _time(value: object) -> datetime | None:
    return datetime.fromisoformat(str(value)) if value else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
