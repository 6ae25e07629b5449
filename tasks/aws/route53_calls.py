"""The calls behind `aws.route53.point`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from tasks.aws.route53 import Answer, PointDns, Record
from tasks.clients import Clients, Late
from tasks.dns_questions import ask
from tasks.errors import ActionFailed

NEW_TTL = timedelta(seconds=60)  # for a record that is new and is given none


def look(step: PointDns, clients: Clients) -> Record:
    """Read the record; where it says what it should, ask whether everyone else does."""
    zone = _zone(step, clients)
    found = _find(step, zone, clients)
    simple = len(found) < 2 and all("ResourceRecords" in one and "SetIdentifier" not in one for one in found)
    first: Mapping[str, Any] = found[0] if found else {}
    change = clients.kept(_key(step))
    record = Record(
        zone_id=zone,
        record=step.record.rstrip(".") + ".",
        type=step.type,
        values=tuple(one["Value"] for one in first.get("ResourceRecords", ())),
        ttl=timedelta(seconds=first["TTL"]) if "TTL" in first else None,
        simple=simple,
        change_id=str(change) if change else None,
    )
    if not step.says(record):
        return record
    in_sync = _in_sync(step, str(change), clients) if change else None
    answers = () if in_sync is False else _ask_servers(step, clients)
    return record.model_copy(update={"in_sync": in_sync, "answers": answers})


def replace(step: PointDns, before: Record, clients: Clients) -> None:
    """Delete exactly what was seen and create what is wanted: Route 53 does both or, if it is no longer so, neither."""
    ttl = step.ttl or before.ttl or NEW_TTL
    _change(step, before, _set(step, step.values, ttl), clients)


def restore(step: PointDns, before: Record, clients: Clients) -> None:
    """Delete exactly ours and create what was; leave alone what somebody has changed since."""
    now = look(step, clients)
    if (set(now.values), now.ttl) == (set(before.values), before.ttl):
        return
    if not step.says(now):
        raise ActionFailed(
            f"{now.record} {now.type} says {', '.join(now.values) or 'nothing'}, neither ours nor the former value: "
            "someone else changed it, so it is left as it is",
            attempted="undo of ChangeResourceRecordSets",
        )
    former = _set(step, before.values, before.ttl or NEW_TTL) if before.values else None
    _change(step, now, former, clients)


def _change(step: PointDns, former: Record, new: Mapping[str, Any] | None, clients: Clients) -> None:
    changes = []
    if former.values and former.ttl is not None:
        changes.append({"Action": "DELETE", "ResourceRecordSet": _set(step, former.values, former.ttl)})
    if new is not None:
        changes.append({"Action": "CREATE", "ResourceRecordSet": new})
    try:
        answer = _route53(step, clients).change_resource_record_sets(
            HostedZoneId=former.zone_id, ChangeBatch={"Comment": "failover", "Changes": changes}
        )
    except ActionFailed as error:
        if error.code != "InvalidChangeBatch":
            raise
        raise ActionFailed(
            f"{error.reason}; perhaps somebody changed '{former.record}' meanwhile: look again",
            attempted=error.attempted,
            code=error.code,
            retry=True,
        ) from error
    clients.forget(_key(step))
    clients.keep(_key(step), lambda: answer["ChangeInfo"]["Id"])


def _key(step: PointDns) -> tuple[str, str]:
    return ("route53 change", step.target)


def _set(step: PointDns, values: tuple[str, ...], ttl: timedelta) -> dict[str, Any]:
    return {
        "Name": step.record.rstrip(".") + ".",
        "Type": step.type,
        "TTL": int(ttl.total_seconds()),
        "ResourceRecords": [{"Value": value} for value in values],
    }


def _route53(step: PointDns, clients: Clients) -> Any:
    return clients.aws("route53", step.region, step.endpoint)


def _zone(step: PointDns, clients: Clients) -> str:
    if "." not in step.zone:
        return step.zone.removeprefix("/hostedzone/")
    return clients.keep(("route53 zone", step.zone), lambda: _find_zone(step, clients))


def _find_zone(step: PointDns, clients: Clients) -> str:
    name = step.zone.rstrip(".").lower() + "."
    answer = _route53(step, clients).list_hosted_zones_by_name(DNSName=name)
    found = [one["Id"].removeprefix("/hostedzone/") for one in answer["HostedZones"] if one["Name"].lower() == name]
    if len(found) == 1:
        return str(found[0])
    what = (
        f"{len(found)} hosted zones are called '{name}': {', '.join(found)}; give the id"
        if found
        else (f"there is no hosted zone '{name}'; give its name or id")
    )
    raise ActionFailed(what, attempted=f"ListHostedZonesByName for '{name}'")


def _find(step: PointDns, zone: str, clients: Clients) -> list[Mapping[str, Any]]:
    name = step.record.rstrip(".").lower()
    answer = _route53(step, clients).list_resource_record_sets(
        HostedZoneId=zone, StartRecordName=name + ".", StartRecordType=step.type, MaxItems="10"
    )
    return [
        one
        for one in answer["ResourceRecordSets"]
        if one["Name"].rstrip(".").lower().replace("\\052", "*") == name and one["Type"] == step.type
    ]


def _in_sync(step: PointDns, change: str, clients: Clients) -> bool:
    answer = _route53(step, clients).get_change(Id=change.removeprefix("/change/"))
    return bool(answer["ChangeInfo"]["Status"] == "INSYNC")


def _ask_servers(step: PointDns, clients: Clients) -> tuple[Answer, ...]:
    calls: dict[str, Callable[[], tuple[str, ...]]] = {
        server: partial(ask, server, step.record, step.type, clients, step.patience) for server in step.name_servers
    }
    if not calls:
        return ()
    answers = clients.parallel(calls, step.patience + timedelta(milliseconds=200))
    return tuple(_answer(step, server, answers[server]) for server in step.name_servers)


def _answer(step: PointDns, server: str, said: tuple[str, ...] | Exception | Late) -> Answer:
    if isinstance(said, tuple):
        return Answer(server=server, values=said, agrees=step.agrees(said))
    if isinstance(said, Late):
        return Answer(server=server, values=(), agrees=False, detail="no answer in time")
    if isinstance(said, ActionFailed):
        return Answer(server=server, values=(), agrees=False, detail=said.reason)
    raise said
