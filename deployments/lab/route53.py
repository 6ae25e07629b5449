"""Route 53 made honest on moto: changes are checked, atomic, PENDING for a while, and only then seen by resolvers."""

from __future__ import annotations

import copy
import ipaddress
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.route53 import responses
from moto.route53.exceptions import Route53ClientError
from moto.route53.models import HostedZoneIdentifier
from moto.utilities.id_generator import moto_id_manager

from .addresses import ZONE, ZONE_ID

PROPAGATION = 0.2  # seconds a change is PENDING


@dataclass(frozen=True)
class Change:
    """An accepted change: when it came, and what the zone's record sets were after it."""

    at: float
    submitted: Any
    records: tuple[dict[str, Any], ...]


class Propagation:
    """Takes the place of moto's answers about changes, and knows what resolvers see now."""

    def __init__(self) -> None:
        self._changes: dict[str, Change] = {}
        self._lock = threading.Lock()

    def install(self) -> None:
        """Patch moto in this process. Works for every zone; resolvers are served the lab's only."""
        propagation = self

        def change_resource_record_sets(self: Any) -> ActionResult:
            zone = self.backend.get_hosted_zone(self._get_param("HostedZoneId"))
            return propagation.change(zone, self._get_param("ChangeBatch.Changes"))

        def get_change(self: Any) -> ActionResult:
            return propagation.info(self._get_param("Id").rpartition("/")[2])

        responses.Route53.change_resource_record_sets = change_resource_record_sets  # type: ignore[method-assign]
        responses.Route53.get_change = get_change  # type: ignore[method-assign]
        self.reset()

    def reset(self) -> None:
        """Forget every change; the lab's zone will have the same id again."""
        self._changes.clear()
        moto_id_manager.set_custom_id(HostedZoneIdentifier(DEFAULT_ACCOUNT_ID, f"{ZONE}.", None), ZONE_ID)

    def change(self, zone: Any, changes: list[dict[str, Any]]) -> ActionResult:
        """Apply a batch, all or nothing, as Route 53 does."""
        if not changes:
            raise Route53ClientError("InvalidChangeBatch", "[The change batch is empty]")
        before = list(zone.rrsets)
        try:
            for change in copy.deepcopy(changes):
                _apply(zone, change["Action"], _normal(change["ResourceRecordSet"]))
        except Route53ClientError:
            zone.rrsets = before
            raise
        number = f"C{secrets.token_hex(7).upper()}"
        records = tuple(_record(rrset) for rrset in zone.rrsets) if zone.resource_id == ZONE_ID else ()
        with self._lock:
            self._changes[number] = Change(time.monotonic(), utcnow(), records)
        return self.info(number)

    def info(self, number: str) -> ActionResult:
        """Tell how far a change is. Fails on an id nobody was given."""
        change = self._changes.get(number)
        if change is None:
            raise Route53ClientError("NoSuchChange", f"A change with ID '{number}' does not exist")
        info = {"Id": f"/change/{number}", "Status": self._status(change), "SubmittedAt": change.submitted}
        return ActionResult({"ChangeInfo": info})

    @property
    def accepted(self) -> int:
        """How many change batches were taken since the first day, its own among them."""
        return len(self._changes)

    def visible(self) -> list[dict[str, Any]]:
        """List the lab's record sets as resolvers see them: those of the newest change that is in sync."""
        with self._lock:
            changes = list(self._changes.values())
        seen = [change.records for change in changes if change.records and self._status(change) == "INSYNC"]
        return list(seen[-1]) if seen else []

    @staticmethod
    def _status(change: Change) -> str:
        return "INSYNC" if time.monotonic() - change.at >= PROPAGATION else "PENDING"


def _normal(rrset: dict[str, Any]) -> dict[str, Any]:
    """Bring a record set into the form moto keeps: absolute lower-case name, values as a list of strings."""
    rrset["Name"] = rrset["Name"].lower().rstrip(".") + "."
    if "ResourceRecords" in rrset:
        rrset["ResourceRecords"] = [
            value["Value"] if isinstance(value, dict) else value for value in rrset["ResourceRecords"]
        ]
    return rrset


def _apply(zone: Any, action: str, rrset: dict[str, Any]) -> None:
    label = f"[name='{rrset['Name']}', type='{rrset['Type']}']"
    if not f".{rrset['Name']}".endswith(f".{zone.name.rstrip('.')}."):
        _invalid(f"RRSet with DNS name {rrset['Name']} is not permitted in zone {zone.name}")
    for value in rrset.get("ResourceRecords") or [] if rrset["Type"] == "A" else []:
        _check_address(rrset["Name"], value)
    current = [known for known in zone.rrsets if _key(_record(known)) == _key(rrset)]
    if action != "DELETE":
        _check_policy(rrset, [_record(known) for known in zone.rrsets if known not in current])
    match action:
        case "CREATE" if current:
            _invalid(f"Tried to create resource record set {label} but it already exists")
        case "DELETE" if not current:
            _invalid(f"Tried to delete resource record set {label} but it was not found")
        case "DELETE" if _values(_record(current[0])) != _values(rrset):
            _invalid(
                f"Tried to delete resource record set {label} but the values provided do not match the current values"
            )
        case "DELETE":
            zone.rrsets = [known for known in zone.rrsets if known is not current[0]]
        case _:
            zone.rrsets = [known for known in zone.rrsets if known not in current]
            zone.add_rrset(rrset)


def _check_policy(rrset: dict[str, Any], others: list[dict[str, Any]]) -> None:
    """A name and a type have one simple record set, or weighted ones with identifiers of their own; never both."""
    label = f"RRSet with DNS name {rrset['Name']}, type {rrset['Type']}"
    identifier, weight = rrset.get("SetIdentifier"), rrset.get("Weight")
    if (identifier is None) != (weight is None):
        _invalid(f"{label} needs both a SetIdentifier and a routing policy, here a Weight, or neither")
    if weight is not None and not 0 <= int(weight) <= 255:
        _invalid(f"{label} has Weight {weight}, which is not from 0 to 255")
    for other in others:
        if _key(other)[:2] == _key(rrset)[:2] and (other["SetIdentifier"] is None or identifier is None):
            _invalid(f"{label}, SetIdentifier {identifier} cannot be created as other RRSets exist with the same name and type")


def _check_address(name: str, value: str) -> None:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        _invalid(f"Invalid Resource Record: 'FATAL problem: ARRDATAIllegalIPv4Address (Value is not a valid IPv4 address) "
                 f"encountered with '{value}'' for {name}")  # fmt: skip


def _invalid(message: str) -> None:
    raise Route53ClientError("InvalidChangeBatch", f"[{message}]")


def _record(rrset: Any) -> dict[str, Any]:
    return {
        "Name": rrset.name,
        "Type": rrset.type,
        "TTL": int(rrset.ttl) if rrset.ttl else None,
        "SetIdentifier": rrset.set_identifier,
        "Weight": None if rrset.weight is None else int(rrset.weight),
        "ResourceRecords": [value["Value"] if isinstance(value, dict) else value for value in rrset.records],
    }


def _key(record: dict[str, Any]) -> tuple[str, str, str | None]:
    return record["Name"], record["Type"], record.get("SetIdentifier")


def _values(record: dict[str, Any]) -> tuple[int | None, int | None, tuple[str, ...]]:
    ttl, weight = record.get("TTL"), record.get("Weight")
    values = tuple(sorted(record.get("ResourceRecords") or []))
    return (int(ttl) if ttl else None), (None if weight is None else int(weight)), values
