"""The calls behind `aws.route53.point`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tasks.aws.route53 import PointDns, Record
from tasks.aws.route53_zone import NEW_TTL, ask_servers, find_sets, find_zone, in_sync, our_change, swap
from tasks.clients import Clients
from tasks.errors import ActionFailed


def look(step: PointDns, clients: Clients) -> Record:
    """Read the record; where it says what it should, ask whether everyone else does."""
    zone = find_zone(step, clients)
    found = find_sets(step, zone, clients)
    first: Mapping[str, Any] = found[0] if found else {}
    change = our_change(step, clients)
    record = Record(
        zone_id=zone,
        record=step.full_name,
        type=step.type,
        values=tuple(one["Value"] for one in first.get("ResourceRecords", ())),
        ttl=timedelta(seconds=first["TTL"]) if "TTL" in first else None,
        simple=len(found) < 2 and all("ResourceRecords" in one and "SetIdentifier" not in one for one in found),
        weights={one["SetIdentifier"]: one["Weight"] for one in found if "Weight" in one},
        change_id=change,
    )
    if not step.says(record):
        return record
    synced = in_sync(step, change, clients) if change else None
    answers = () if synced is False else ask_servers(step, step.agrees, clients)
    return record.model_copy(update={"in_sync": synced, "answers": answers})


def replace(step: PointDns, before: Record, clients: Clients) -> None:
    """Replace exactly the former record by the new one."""
    _change(step, before, _set(step, step.values, step.ttl or before.ttl or NEW_TTL), clients)


def restore(step: PointDns, before: Record, clients: Clients) -> None:
    """Delete exactly ours and create what was; leave alone what somebody has changed since."""
    now = look(step, clients)
    if now.simple and (set(now.values), now.ttl) == (set(before.values), before.ttl):
        return
    if not step.says(now):
        says = f"is weighted ({now.shows_weights})" if now.weights else f"says {', '.join(now.values) or 'nothing'}"
        raise ActionFailed(
            f"{now.record} {now.type} {says}, neither ours nor the former value: "
            "someone else changed it, so it is left as it is",
            attempted="undo of ChangeResourceRecordSets",
        )
    former = _set(step, before.values, before.ttl or NEW_TTL) if before.values else None
    _change(step, now, former, clients)


def back_by_hand(step: PointDns, before: Record) -> tuple[str, ...]:
    """The commands of `restore`: like it they fail where the record is not ours any more."""
    where = f"--endpoint-url {step.endpoint} " if step.endpoint else ""
    ttl = step.ttl or before.ttl or NEW_TTL
    changes = [{"Action": "DELETE", "ResourceRecordSet": _set(step, step.values, ttl)}]
    if before.values:
        changes.append({"Action": "CREATE", "ResourceRecordSet": _set(step, before.values, before.ttl or NEW_TTL)})
    zone = f"--hosted-zone-id {before.zone_id}"
    asks = f"--start-record-name {step.full_name} --start-record-type {step.type} --max-items 1"
    return (
        f"aws route53 list-resource-record-sets {where}{zone} {asks}",
        f"aws route53 change-resource-record-sets {where}{zone} --change-batch '{json.dumps({'Changes': changes})}'",
    )


def _change(step: PointDns, former: Record, new: Mapping[str, Any] | None, clients: Clients) -> None:
    there = [_set(step, former.values, former.ttl)] if former.values and former.ttl is not None else []
    swap(step, former.zone_id, there, [new] if new is not None else [], clients)


def _set(step: PointDns, values: tuple[str, ...], ttl: timedelta) -> dict[str, Any]:
    return {
        "Name": step.full_name,
        "Type": step.type,
        "TTL": int(ttl.total_seconds()),
        "ResourceRecords": [{"Value": value} for value in values],
    }
