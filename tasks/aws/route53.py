"""Point a Route 53 record at a new target, on condition that it is still what it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from tasks.aws.route53_zone import Answer, RecordChange, check_ttl, check_values, same
from tasks.clients import Clients
from tasks.contract import Duration, Frozen, Need, Plane, Seen

LONG_TTL = timedelta(seconds=60)  # what resolvers may add to every failover; above, it is worth saying beforehand


class Record(Frozen):
    """A record set as Route 53 holds it and as name servers answer it."""

    zone_id: str = Field(description="Id of the hosted zone.")
    record: str = Field(description="Name of the record, with the final dot.")
    type: str = Field(description="A, AAAA or CNAME.")
    values: tuple[str, ...] = Field(description="What it says; empty: there is no such record.")
    ttl: Duration | None = Field(description="For how long resolvers may keep it.")
    simple: bool = Field(
        description="False: an alias or a record with a routing policy, which this action leaves alone."
    )
    weights: Mapping[str, int] = Field(
        default_factory=dict, description="Weight by set identifier, where the record is weighted."
    )
    change_id: str | None = Field(None, description="Route 53's id of our change, where we know it.")
    in_sync: bool | None = Field(
        None, description="Whether our change has reached all of Route 53's servers; null: not asked."
    )
    answers: tuple[Answer, ...] = Field((), description="What the name servers answer.")
    former_values: tuple[str, ...] | None = Field(None, description="What it said before this step changed it.")
    former_ttl: Duration | None = Field(None, description="Resolvers may keep the former answer for so long.")
    note: str = Field("", description="What users may still see, and for how long.")

    @property
    def shows_weights(self) -> str:
        """The weights for people: 'east 5, west 95'."""
        return ", ".join(f"{name} {weight}" for name, weight in sorted(self.weights.items()))


class PointDns(RecordChange[Record]):
    """Point a Route 53 record at new values and wait until name servers say so.

    Conditional: the former record is deleted and the new one created in one batch, so it fails if somebody changed it
    meanwhile. In sync is not "seen by users": resolvers keep the old answer for up to the old `ttl`, so lower it well
    before a failover. Undo: the former record set.
    Source: Route 53 API, ChangeResourceRecordSets and GetChange.
    """

    name: ClassVar[str] = "aws.route53.point"
    budget: ClassVar[timedelta] = timedelta(minutes=2)
    interval: ClassVar[timedelta] = timedelta(milliseconds=250)
    soonest: ClassVar[timedelta | None] = interval  # Route 53 allows an account five calls a second
    libraries: ClassVar[tuple[str, ...]] = ("boto3", "dns.query")
    reversible: ClassVar[bool] = True
    repoints: ClassVar[bool] = True
    plane: ClassVar[Plane] = Plane.control

    values: tuple[str, ...] = Field(
        description="What it is to say: addresses, or one name.", min_length=1, examples=[["203.0.113.7"]]
    )
    ttl: Duration | None = Field(
        None, description="For how long resolvers may keep it; unset: as it is now, 60s if new."
    )

    _whole_seconds = field_validator("ttl")(check_ttl)

    @model_validator(mode="after")
    def _good_values(self) -> PointDns:
        check_values(self.type, self.values)
        return self

    def by_hand(self) -> tuple[str, ...]:
        """Find the zone, change the record, ask the name servers."""
        where = f"--endpoint-url {self.endpoint} " if self.endpoint else ""
        ttl = int(self.ttl.total_seconds()) if self.ttl is not None else 60
        records = [{"Value": value} for value in self.values]
        record = {"Name": self.record, "Type": self.type, "TTL": ttl, "ResourceRecords": records}
        batch = json.dumps({"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]})
        servers = self.name_servers or ("",)
        asks = (server.rpartition(":") for server in servers)
        return (
            f"aws route53 list-hosted-zones-by-name {where}--dns-name {self.zone} --query 'HostedZones[0].Id'",
            f"aws route53 change-resource-record-sets {where}--hosted-zone-id ZONE --change-batch '{batch}'",
            *(f"dig +short {self.record} {self.type}" + (f" @{host} -p {port}" if host else "") for host, _, port in asks),
        )

    def undo_by_hand(self, before: Record) -> tuple[str, ...]:
        """Replace exactly our record by the former one, or take it away if there was none."""
        from tasks.aws.route53_calls import back_by_hand

        return back_by_hand(self, before)

    def observe(self, clients: Clients) -> Record:
        """Read the record and, once it says what it should, ask for our change and the name servers."""
        from tasks.aws.route53_calls import look

        return look(self, clients)

    def preflight(self, clients: Clients) -> tuple[Need, ...]:
        """The zone, the record and its time to live, and the right to change it."""
        from tasks.aws.permissions import rights

        record = self.observe(clients)
        ttl = f", kept by resolvers for {record.ttl.total_seconds():g} s" if record.ttl is not None else ""
        slow = record.ttl is not None and record.ttl > LONG_TTL
        advice = f"resolvers keep the old answer that long; lower it to {LONG_TTL.total_seconds():g} s or less" if slow else ""
        refused = self.refuse(record)
        return (
            Need(
                what=f"record {record.record} {record.type}", found=f"says {_show(record.values)}{ttl}",
                problem=refused is not None, advice=refused or advice,
            ),
            rights(("route53:ChangeResourceRecordSets",), self.region, self.endpoint, clients),
        )  # fmt: skip

    def done(self, state: Record) -> bool:
        """The record says so, Route 53 is in sync, and every name server agrees."""
        return self.says(state) and state.in_sync is not False and all(answer.agrees for answer in state.answers)

    def says(self, state: Record) -> bool:
        """Tell whether the record itself is as wanted."""
        same_ttl = self.ttl is None or state.ttl == self.ttl
        return state.simple and same_ttl and self.agrees(state.values)

    def agrees(self, values: tuple[str, ...]) -> bool:
        """Tell whether these are the values wanted, in any order or spelling."""
        return same(values, self.values)

    def fold(self, earlier: Seen[Record] | None, now: Seen[Record]) -> Record:
        """Keep what the record said before, for the note on caches."""
        state = now.state
        if not self.says(state):
            return state.model_copy(update={"former_values": state.values, "former_ttl": state.ttl})
        if earlier is None or earlier.state.former_values is None:
            return state
        former, ttl = earlier.state.former_values, earlier.state.former_ttl
        update = {"former_values": former, "former_ttl": ttl, "note": _note(former, ttl)}
        return state.model_copy(update={**update, "change_id": state.change_id or earlier.state.change_id})

    def underway(self, state: Record) -> bool:
        """The record is changed; Route 53 and the name servers follow."""
        return self.says(state)

    def refuse(self, before: Record) -> str | None:
        """Refuse records that are more than a name and its values."""
        if before.weights:
            return (
                f"{before.record} {before.type} is weighted ({before.shows_weights}) and only simple records are pointed; "
                "move its customers with aws.route53.shift_weights, whose `then: simple` leaves a simple record"
            )
        if not before.simple:
            return f"{before.record} {before.type} is an alias or has a routing policy; only simple records are changed"
        return None

    def explain(self, state: Record) -> str:
        """Say what the record, Route 53 and the name servers say."""
        parts = [f"{state.record} {state.type} says {_show(state.values)}"]
        if state.in_sync is not None:
            parts.append("in sync" if state.in_sync else "change pending")
        parts += [
            f"{one.server} answers {_show(one.values) if one.values else one.detail or 'nothing'}"
            for one in state.answers
        ]
        return ", ".join([*parts, *([state.note] if state.note else [])])

    def describe(self, before: Record) -> str:
        """Say what the record says before and after, and how long caches keep it."""
        note = _note(before.values, before.ttl)
        change = f"point {before.record} {self.type}: {_show(before.values)} -> {_show(self.values)}"
        return f"{change}; {note}" if note else change

    def act(self, before: Record, clients: Clients) -> None:
        """Replace exactly the former record by the new one."""
        from tasks.aws.route53_calls import replace

        replace(self, before, clients)

    def undo(self, before: Record, clients: Clients) -> None:
        """Replace exactly our record by the former one."""
        from tasks.aws.route53_calls import restore

        restore(self, before, clients)


def _show(values: tuple[str, ...]) -> str:
    return ", ".join(values) or "nothing"


def _note(values: tuple[str, ...], ttl: timedelta | None) -> str:
    if not values or ttl is None:
        return ""
    return f"resolvers may keep the old answer for up to {ttl.total_seconds():g}s"
