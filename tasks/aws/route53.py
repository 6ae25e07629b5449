"""Point a Route 53 record at a new target, on condition that it is still what it was."""

from __future__ import annotations

import ipaddress
import json
import re
from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tasks.clients import Clients
from tasks.contract import Change, Duration, Frozen, Plane, Seen

_HOST = re.compile(
    r"(?=.{1,254}$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?"
)


class Answer(Frozen):
    """What one name server answers for the record."""

    server: str = Field(description="The name server, 'host:port'.")
    values: tuple[str, ...] = Field(description="Its answer.")
    agrees: bool = Field(description="Whether that is what the record is to say.")
    detail: str = Field("", description="Why it gave no answer.")


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
    change_id: str | None = Field(None, description="Route 53's id of our change, where we know it.")
    in_sync: bool | None = Field(
        None, description="Whether our change has reached all of Route 53's servers; null: not asked."
    )
    answers: tuple[Answer, ...] = Field((), description="What the name servers answer.")
    former_values: tuple[str, ...] | None = Field(None, description="What it said before this step changed it.")
    former_ttl: Duration | None = Field(None, description="Resolvers may keep the former answer for so long.")
    note: str = Field("", description="What users may still see, and for how long.")


class PointDns(Change[Record]):
    """Point a Route 53 record at new values and wait until name servers say so.

    Conditional: the former record is deleted and the new one created in one batch, so it fails if somebody changed it
    meanwhile. In sync is not "seen by users": resolvers keep the old answer for up to the old `ttl`, so lower it well
    before a failover. Undo: the former record set.
    Source: Route 53 API, ChangeResourceRecordSets and GetChange.
    """

    name: ClassVar[str] = "aws.route53.point"
    budget: ClassVar[timedelta] = timedelta(minutes=2)
    interval: ClassVar[timedelta] = timedelta(milliseconds=250)
    libraries: ClassVar[tuple[str, ...]] = ("boto3", "dns.query")
    reversible: ClassVar[bool] = True
    repoints: ClassVar[bool] = True
    plane: ClassVar[Plane] = Plane.control

    zone: str = Field(
        description="Hosted zone, by name or id.", examples=["shop.example", "Z0123456789ABCDEFGHIJ"], min_length=1
    )
    record: str = Field(description="Full name of the record.", examples=["checkout.shop.example"], min_length=1)
    type: Literal["A", "AAAA", "CNAME"] = Field("A", description="Type of the record.")
    values: tuple[str, ...] = Field(
        description="What it is to say: addresses, or one name.", min_length=1, examples=[["203.0.113.7"]]
    )
    ttl: Duration | None = Field(
        None, description="For how long resolvers may keep it; unset: as it is now, 60s if new."
    )
    name_servers: tuple[str, ...] = Field(
        (), description="Name servers to ask until they agree, 'host:port'.", examples=[["127.0.0.1:5300"]]
    )
    region: str = Field("us-east-1", description="Region whose endpoint is called; Route 53 has one for all.")
    endpoint: str | None = Field(None, description="Address of the API, for emulators; unset: AWS_ENDPOINT_URL or AWS.")
    patience: Duration = Field(timedelta(seconds=1), description="Longest wait for one name server.")

    @field_validator("record")
    @classmethod
    def _name(cls, value: str) -> str:
        if not _HOST.fullmatch(value.removeprefix("*.")):
            raise ValueError(f"'{value}' is no host name")
        return value

    @field_validator("ttl")
    @classmethod
    def _whole_seconds(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value % timedelta(seconds=1):
            raise ValueError("a ttl is in whole seconds")
        return value

    @field_validator("name_servers")
    @classmethod
    def _servers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for server in value:
            if not re.fullmatch(r"[^:\s]+:\d{1,5}|\[[0-9A-Fa-f:]+\]:\d{1,5}", server):
                raise ValueError(f"'{server}' is no name server; write host:port, such as 127.0.0.1:5300")
        return value

    @model_validator(mode="after")
    def _good_values(self) -> PointDns:
        for value in self.values:
            _check_value(self.type, value)
        if len(set(map(_plain, self.values))) != len(self.values):
            raise ValueError("values repeat; name each once")
        if self.type == "CNAME" and len(self.values) != 1:
            raise ValueError(f"a CNAME has one value, this one {len(self.values)}")
        return self

    @property
    def target(self) -> str:
        """The record; at an endpoint of its own it is another one."""
        return f"dns:{_plain(self.record)}/{self.type}" + (f" at {self.endpoint}" if self.endpoint else "")

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

    def observe(self, clients: Clients) -> Record:
        """Read the record and, once it says what it should, ask for our change and the name servers."""
        from tasks.aws.route53_calls import look

        return look(self, clients)

    def done(self, state: Record) -> bool:
        """The record says so, Route 53 is in sync, and every name server agrees."""
        return self.says(state) and state.in_sync is not False and all(answer.agrees for answer in state.answers)

    def says(self, state: Record) -> bool:
        """Tell whether the record itself is as wanted."""
        same_ttl = self.ttl is None or state.ttl == self.ttl
        return state.simple and same_ttl and self.agrees(state.values)

    def agrees(self, values: tuple[str, ...]) -> bool:
        """Tell whether these are the values wanted, in any order or spelling."""
        return {_plain(value) for value in values} == {_plain(value) for value in self.values}

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


def _plain(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return value.rstrip(".").lower()


def _check_value(kind: str, value: str) -> None:
    if kind == "CNAME":
        if not _HOST.fullmatch(value) or re.fullmatch(r"[0-9.]+", value):
            raise ValueError(f"'{value}' is no host name, which a CNAME needs")
        return
    wanted = 4 if kind == "A" else 6
    try:
        fits = ipaddress.ip_address(value).version == wanted
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"'{value}' is no IPv{wanted} address, which a record of type {kind} needs")


def _show(values: tuple[str, ...]) -> str:
    return ", ".join(values) or "nothing"


def _note(values: tuple[str, ...], ttl: timedelta | None) -> str:
    if not values or ttl is None:
        return ""
    return f"resolvers may keep the old answer for up to {ttl.total_seconds():g}s"
