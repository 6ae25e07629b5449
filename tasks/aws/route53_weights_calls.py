"""The calls behind `aws.route53.shift_weights`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from tasks.aws.permissions import rights
from tasks.aws.route53_weights import ShiftWeights
from tasks.aws.route53_zone import NEW_TTL, ask_servers, find_sets, find_zone, in_sync, our_change, same, swap
from tasks.aws.weighted_sets import WHOLE, Next, RecordSet, Shift, Side, show
from tasks.clients import Clients, Late
from tasks.contract import Need
from tasks.errors import ActionFailed
from tasks.http_requests import Shot, send, url_of
from tasks.soaking import Sample

BEYOND = timedelta(milliseconds=500)  # a request ends by its own timeout; this much later it is called late
KNOWN = {"Name", "Type", "TTL", "ResourceRecords", "SetIdentifier", "Weight", "HealthCheckId"}


def needs(step: ShiftWeights, clients: Clients) -> tuple[Need, ...]:
    """The record sets as they are, and the right to change them."""
    state = step.observe(clients)
    refused = step.refuse(state)
    shown = ", ".join(" ".join(one.values) for one in state.sets) or "nothing"
    record = Need(
        what=f"record {state.record} {state.type}", found=f"says {shown}", problem=refused is not None, advice=refused or ""
    )
    return (record, rights(("route53:ChangeResourceRecordSets",), step.region, step.endpoint, clients))


def look(step: ShiftWeights, clients: Clients) -> Shift:
    """Read the record sets; where they are ours to shift, ask whether everyone sees them and how the new side does."""
    zone = find_zone(step, clients)
    sets = tuple(_record_set(one) for one in find_sets(step, zone, clients))
    state = Shift(zone_id=zone, record=step.full_name, type=step.type, sets=sets, change_id=our_change(step, clients))
    if step.share_of(state) is None:
        return state
    synced = in_sync(step, state.change_id, clients) if state.change_id else None
    may_say = [one.values for one in sets if one.weight != 0]
    answers = ask_servers(step, lambda said: any(same(said, values) for values in may_say), clients)
    shots = _ask_new_side(step, clients)
    wrong = next((f"{shot.name}: {shot.reason}" for shot in reversed(shots) if shot.reason), "")
    sent = tuple(Sample(ms=shot.milliseconds, good=not shot.reason, error=shot.error) for shot in shots)
    return state.model_copy(update={"in_sync": synced, "answers": answers, "sent": sent, "wrong": wrong})


def _ask_new_side(step: ShiftWeights, clients: Clients) -> list[Shot]:
    """Send every request `rounds` times, all at once, to the new side's addresses in turn and not by DNS's chance."""
    calls = {}
    for number in range(step.rounds):
        address = step.new.values[number % len(step.new.values)].rstrip(".")
        for index, request in enumerate(step.requests):
            url = url_of(request, step.base)
            to = {urlsplit(url).hostname or "": address}
            calls[f"{number}.{index}"] = partial(send, request, url, to, clients)
    patience = max(request.timeout for request in step.requests) + BEYOND
    answers = clients.parallel(calls, patience)
    return [_shot(step, key, answers[key]) for key in calls]


def _shot(step: ShiftWeights, key: str, answer: Shot | Exception | Late) -> Shot:
    if isinstance(answer, Exception):
        raise answer
    if isinstance(answer, Late):
        name = step.requests[int(key.partition(".")[2])].name
        return Shot(name, None, error=True, reason=f"no answer within {answer.after.total_seconds():g}s")
    return answer


def change(step: ShiftWeights, before: Shift, going: Next, clients: Clients) -> None:
    """Replace what was seen by the next phase in one batch."""
    new = [_simple(step, before)] if going.simple else pair(step, going.share, before.sets)
    swap(step, before.zone_id, [_as_seen(step, one) for one in before.sets], new, clients)


def restore(step: ShiftWeights, before: Shift, clients: Clients) -> None:
    """Replace exactly ours by what was; leave alone what somebody has made of it since."""
    zone = find_zone(step, clients)
    sets = tuple(_record_set(one) for one in find_sets(step, zone, clients))
    if set(sets) == set(before.sets):
        return
    now = Shift(zone_id=zone, record=step.full_name, type=step.type, sets=sets)
    if step.share_of(now) is None:
        raise ActionFailed(
            f"{now.record} {now.type} is {show(sets)}, neither ours nor what was: someone else changed it, so it is left "
            "as it is",
            attempted="undo of ChangeResourceRecordSets",
        )
    swap(step, zone, [_as_seen(step, one) for one in sets], [_as_seen(step, one) for one in before.sets], clients)


def by_hand(step: ShiftWeights) -> tuple[str, ...]:
    """Find the zone, look, then one batch a phase."""
    where = f"--endpoint-url {step.endpoint} " if step.endpoint else ""
    finds = f"aws route53 list-hosted-zones-by-name {where}--dns-name {step.zone} --query 'HostedZones[0].Id'"
    phases = (_batch(step, "ZONE", pair(step, phase, ())) for phase in step.phases)
    return (finds, _look(step, step.record, "ZONE"), *phases)


def back_by_hand(step: ShiftWeights, before: Shift) -> tuple[str, ...]:
    """Look, then all record sets that were; what is there besides must go in the same batch, as Route 53 shows it."""
    former = {one.id for one in before.sets}
    besides = {None} if former - {None} else {step.old.id, step.new.id}
    names = " and ".join("the simple one" if name is None else f"'{name}'" for name in sorted(besides, key=str))
    return (
        _look(step, step.full_name, before.zone_id),
        f"# if that shows {names}, put a DELETE of each, exactly as shown, first into the batch below",
        _batch(step, before.zone_id, [_as_seen(step, one) for one in before.sets]),
    )


def _look(step: ShiftWeights, name: str, zone: str) -> str:
    where = f"--endpoint-url {step.endpoint} " if step.endpoint else ""
    ask = f"--hosted-zone-id {zone} --start-record-name {name} --start-record-type {step.type} --max-items 10"
    return f"aws route53 list-resource-record-sets {where}{ask}"


def _batch(step: ShiftWeights, zone: str, sets: Sequence[Mapping[str, Any]]) -> str:
    where = f"--endpoint-url {step.endpoint} " if step.endpoint else ""
    batch = json.dumps({"Changes": [{"Action": "UPSERT", "ResourceRecordSet": one} for one in sets]})
    return f"aws route53 change-resource-record-sets {where}--hosted-zone-id {zone} --change-batch '{batch}'"


def pair(step: ShiftWeights, share: int, there: Sequence[RecordSet]) -> list[dict[str, Any]]:
    """Give both weighted record sets at a share, of one ttl (Route 53 wants one), with the health checks they have."""
    checks = {one.id: one.health_check for one in there}
    ttl = step.ttl or next((one.ttl for one in there if one.ttl is not None), NEW_TTL)

    def made(side: Side, weight: int) -> dict[str, Any]:
        one = RecordSet(id=side.id, weight=weight, values=side.values, ttl=ttl, health_check=checks.get(side.id))
        return _as_seen(step, one)

    return [made(step.old, WHOLE - share), made(step.new, share)]


def _simple(step: ShiftWeights, before: Shift) -> dict[str, Any]:
    ttl = step.ttl or next((one.ttl for one in before.sets if one.ttl is not None), NEW_TTL)
    return _as_seen(step, RecordSet(id=None, weight=None, values=step.new.values, ttl=ttl))


def _record_set(found: Mapping[str, Any]) -> RecordSet:
    other = sorted(set(found) - KNOWN)
    if "SetIdentifier" in found and "Weight" not in found:
        other.append("no weight")
    return RecordSet(
        id=found.get("SetIdentifier"),
        weight=found.get("Weight"),
        values=tuple(one["Value"] for one in found.get("ResourceRecords", ())),
        ttl=timedelta(seconds=found["TTL"]) if "TTL" in found else None,
        health_check=found.get("HealthCheckId"),
        foreign=f"with {', '.join(other)}" if other else "",
    )


def _as_seen(step: ShiftWeights, one: RecordSet) -> dict[str, Any]:
    """Give a record set as Route 53 takes it; a DELETE must name everything as it is."""
    named: dict[str, Any] = {
        "Name": step.full_name,
        "Type": step.type,
        "TTL": int((one.ttl or NEW_TTL).total_seconds()),
        "ResourceRecords": [{"Value": value} for value in one.values],
    }
    if one.id is not None:
        named |= {"SetIdentifier": one.id, "Weight": one.weight}
    if one.health_check is not None:
        named["HealthCheckId"] = one.health_check
    return named


