"""What every change of a Route 53 record shares: where it is, how it is read, changed, and seen by name servers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, field_validator

from tasks.clients import Clients, Late
from tasks.contract import Change, Duration, Frozen
from tasks.dns_questions import NameServers, ask
from tasks.errors import ActionFailed

NEW_TTL = timedelta(seconds=60)  # for a record that is new and is given none
HOST = re.compile(
    r"(?=.{1,254}$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?"
)
StateT = TypeVar("StateT", bound=BaseModel)


class Answer(Frozen):
    """What one name server answers for the record."""

    server: str = Field(description="The name server, 'host:port'.")
    values: tuple[str, ...] = Field(description="Its answer.")
    agrees: bool = Field(description="Whether that is what the record is to say.")
    detail: str = Field("", description="Why it gave no answer.")


class RecordChange(Change[StateT]):
    """Base of the actions that change a record: both lease the same target, so they exclude each other."""

    zone: str = Field(
        description="Hosted zone, by name or id.", examples=["shop.example", "Z0123456789ABCDEFGHIJ"], min_length=1
    )
    record: str = Field(description="Full name of the record.", examples=["checkout.shop.example"], min_length=1)
    type: Literal["A", "AAAA", "CNAME"] = Field("A", description="Type of the record.")
    name_servers: NameServers = Field(
        (), description="Name servers to ask until they agree, 'host:port'.", examples=[["127.0.0.1:5300"]]
    )
    region: str = Field("us-east-1", description="Region whose endpoint is called; Route 53 has one for all.")
    endpoint: str | None = Field(None, description="Address of the API, for emulators; unset: AWS_ENDPOINT_URL or AWS.")
    patience: Duration = Field(timedelta(seconds=1), description="Longest wait for one name server.")

    @field_validator("record")
    @classmethod
    def _name(cls, value: str) -> str:
        if not HOST.fullmatch(value.removeprefix("*.")):
            raise ValueError(f"'{value}' is no host name")
        return value

    @property
    def target(self) -> str:
        """The record; at an endpoint of its own it is another one."""
        return f"dns:{plain(self.record)}/{self.type}" + (f" at {self.endpoint}" if self.endpoint else "")

    @property
    def full_name(self) -> str:
        """The record's name as Route 53 says it, with the final dot."""
        return self.record.rstrip(".") + "."


Step = RecordChange[Any]


def plain(value: str) -> str:
    """Give an address or a name in its one spelling, to compare."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return value.rstrip(".").lower()


def same(values: Sequence[str], others: Sequence[str]) -> bool:
    """Tell whether two records say the same, in any order or spelling."""
    return {plain(value) for value in values} == {plain(value) for value in others}


def check_values(kind: str, values: Sequence[str]) -> None:
    """Raise ValueError for values that a record of this type cannot have; emulators swallow them."""
    for value in values:
        _check_value(kind, value)
    if len({plain(value) for value in values}) != len(values):
        raise ValueError("values repeat; name each once")
    if kind == "CNAME" and len(values) != 1:
        raise ValueError(f"a CNAME has one value, this one {len(values)}")


def _check_value(kind: str, value: str) -> None:
    if kind == "CNAME":
        if not HOST.fullmatch(value) or re.fullmatch(r"[0-9.]+", value):
            raise ValueError(f"'{value}' is no host name, which a CNAME needs")
        return
    wanted = 4 if kind == "A" else 6
    try:
        fits = ipaddress.ip_address(value).version == wanted
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"'{value}' is no IPv{wanted} address, which a record of type {kind} needs")


def check_ttl(value: timedelta | None) -> timedelta | None:
    """Refuse a ttl that Route 53 could not hold."""
    if value is not None and value % timedelta(seconds=1):
        raise ValueError("a ttl is in whole seconds")
    return value


def find_zone(step: Step, clients: Clients) -> str:
    """Give the hosted zone's id. Raises ActionFailed when the name stands for none or for several."""
    if "." not in step.zone:
        return step.zone.removeprefix("/hostedzone/")
    return clients.keep(("route53 zone", step.zone), lambda: _ask_zone(step, clients))


def _ask_zone(step: Step, clients: Clients) -> str:
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


def find_sets(step: Step, zone: str, clients: Clients) -> list[Mapping[str, Any]]:
    """Give the record sets of the record's name and type, ten at most, as Route 53 holds them (pending ones too)."""
    name = step.record.rstrip(".").lower()
    answer = _route53(step, clients).list_resource_record_sets(
        HostedZoneId=zone, StartRecordName=name + ".", StartRecordType=step.type, MaxItems="10"
    )
    return [
        one
        for one in answer["ResourceRecordSets"]
        if one["Name"].rstrip(".").lower().replace("\\052", "*") == name and one["Type"] == step.type
    ]


def swap(step: Step, zone: str, former: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], clients: Clients) -> None:
    """Delete exactly what was seen and create what is wanted: Route 53 does all of it or, if it is no longer so, nothing."""
    changes = [{"Action": "DELETE", "ResourceRecordSet": one} for one in former]
    changes += [{"Action": "CREATE", "ResourceRecordSet": one} for one in new]
    try:
        answer = _route53(step, clients).change_resource_record_sets(
            HostedZoneId=zone, ChangeBatch={"Comment": "failover", "Changes": changes}
        )
    except ActionFailed as error:
        if error.code != "InvalidChangeBatch":
            raise
        raise ActionFailed(
            f"{error.reason}; perhaps somebody changed '{step.full_name}' meanwhile: look again",
            attempted=error.attempted,
            code=error.code,
            retry=True,
        ) from error
    clients.forget(_key(step))
    clients.keep(_key(step), lambda: answer["ChangeInfo"]["Id"])


def our_change(step: Step, clients: Clients) -> str | None:
    """Give the id of this attempt's last change; None after a crash: then only the name servers tell."""
    change = clients.kept(_key(step))
    return str(change) if change else None


def in_sync(step: Step, change: str, clients: Clients) -> bool:
    """Ask whether a change has reached all of Route 53's servers."""
    answer = _route53(step, clients).get_change(Id=change.removeprefix("/change/"))
    return bool(answer["ChangeInfo"]["Status"] == "INSYNC")


def ask_servers(step: Step, agrees: Callable[[tuple[str, ...]], bool], clients: Clients) -> tuple[Answer, ...]:
    """Ask every name server at the same time and judge what each says."""
    calls: dict[str, Callable[[], tuple[str, ...]]] = {
        server: partial(ask, server, step.record, step.type, clients, step.patience) for server in step.name_servers
    }
    if not calls:
        return ()
    answers = clients.parallel(calls, step.patience + timedelta(milliseconds=200))
    return tuple(_answer(server, answers[server], agrees) for server in step.name_servers)


def _answer(
    server: str, said: tuple[str, ...] | Exception | Late, agrees: Callable[[tuple[str, ...]], bool]
) -> Answer:
    if isinstance(said, tuple):
        return Answer(server=server, values=said, agrees=agrees(said))
    if isinstance(said, Late):
        return Answer(server=server, values=(), agrees=False, detail="no answer in time")
    if isinstance(said, ActionFailed):
        return Answer(server=server, values=(), agrees=False, detail=said.reason)
    raise said


def _key(step: Step) -> tuple[str, str]:
    return ("route53 change", step.target)


def _route53(step: Step, clients: Clients) -> Any:
    return clients.aws("route53", step.region, step.endpoint)
