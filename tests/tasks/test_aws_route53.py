"""Pointing DNS against moto's server; its missing strictness and its missing PENDING are put in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.route53.exceptions import Route53ClientError
from moto.route53.models import Route53Backend
from moto.route53.responses import Route53

from tasks.aws.route53 import PointDns, Record
from tasks.clients import Clients
from tasks.contract import ActionFailed, Seen
from tests.tasks.conftest import real
from tests.tasks.parties import Names, names
from tests.tasks.postgres_nodes import until

NAME = "checkout.shop.example"


class Zone:
    """A hosted zone as a test sees and changes it behind the action's back."""

    def __init__(self, endpoint: str) -> None:
        self.api = real("route53", "us-east-1", endpoint)
        made = self.api.create_hosted_zone(Name="shop.example", CallerReference="test")
        self.id = made["HostedZone"]["Id"].removeprefix("/hostedzone/")
        self.upsert("192.0.2.1", 60)

    def upsert(self, value: str, ttl: int, **more: Any) -> None:
        record = {"Name": NAME, "Type": "A", "TTL": ttl, "ResourceRecords": [{"Value": value}], **more}
        batch = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]}
        self.api.change_resource_record_sets(HostedZoneId=self.id, ChangeBatch=batch)

    def delete(self, value: str, ttl: int) -> None:
        record = {"Name": NAME, "Type": "A", "TTL": ttl, "ResourceRecords": [{"Value": value}]}
        batch = {"Changes": [{"Action": "DELETE", "ResourceRecordSet": record}]}
        self.api.change_resource_record_sets(HostedZoneId=self.id, ChangeBatch=batch)

    def now(self) -> list[tuple[str, int]]:
        found = self.api.list_resource_record_sets(HostedZoneId=self.id)["ResourceRecordSets"]
        return [(one["ResourceRecords"][0]["Value"], one["TTL"]) for one in found if one["Type"] == "A"]


@pytest.fixture
def zone(aws: str, monkeypatch: pytest.MonkeyPatch) -> Zone:
    """A zone in a moto that, like Route 53, refuses a DELETE of what is not there and a CREATE of what is."""
    change = Route53Backend.change_resource_record_sets

    def strict(self: Any, zoneid: str, change_list: list[dict[str, Any]]) -> None:
        there = {(r.name.rstrip("."), r.type): r for r in self.get_hosted_zone(zoneid).rrsets}
        for one in change_list:
            wanted = one["ResourceRecordSet"]
            found = there.get((wanted["Name"].rstrip("."), wanted["Type"]))
            values = [record["Value"] for record in wanted.get("ResourceRecords", [])]
            same = found is not None and (sorted(found.records), int(found.ttl)) == (sorted(values), int(wanted["TTL"]))
            if one["Action"] == "DELETE" and not same:
                raise Route53ClientError("InvalidChangeBatch", "the values provided do not match the current values")
            if one["Action"] == "CREATE" and found is not None and not _deletes(change_list, wanted):
                raise Route53ClientError("InvalidChangeBatch", "it already exists")
        change(self, zoneid, change_list)

    monkeypatch.setattr(Route53Backend, "change_resource_record_sets", strict)
    return Zone(aws)


def _deletes(changes: list[dict[str, Any]], wanted: dict[str, Any]) -> bool:
    return any(one["Action"] == "DELETE" and one["ResourceRecordSet"]["Name"] == wanted["Name"] for one in changes)


@pytest.fixture
def dns_names() -> Iterator[Names]:
    with names() as found:
        yield found


def point(**more: object) -> PointDns:
    return PointDns.model_validate({"zone": "shop.example", "record": NAME, "values": ["192.0.2.7"], **more})


def look(step: PointDns, clients: Clients, earlier: Seen[Record] | None = None) -> Seen[Record]:
    state, at = step.observe(clients), datetime.now(UTC)
    return Seen(step.fold(earlier, Seen(state, at)), at)


def test_it_replaces_the_record_keeps_its_ttl_and_says_how_long_caches_keep_the_old(
    zone: Zone, clients: Clients
) -> None:
    step = point()
    seen = look(step, clients)
    assert not step.done(seen.state)
    assert step.describe(seen.state) == (
        f"point {NAME}. A: 192.0.2.1 -> 192.0.2.7; resolvers may keep the old answer for up to 60s"
    )
    step.act(seen.state, clients)
    after = look(step, clients, seen).state
    assert step.done(after)
    assert (after.in_sync, after.former_values, after.former_ttl) == (True, ("192.0.2.1",), timedelta(seconds=60))
    assert after.note == "resolvers may keep the old answer for up to 60s"
    assert zone.now() == [("192.0.2.7", 60)]


def test_a_record_that_changed_meanwhile_is_not_overwritten(zone: Zone, clients: Clients) -> None:
    step = point()
    before = look(step, clients).state
    zone.upsert("192.0.2.99", 60)
    with pytest.raises(ActionFailed, match="look again") as failed:
        step.act(before, clients)
    assert failed.value.retry
    assert zone.now() == [("192.0.2.99", 60)]


def test_a_new_record_is_created_and_removed_by_undo(zone: Zone, clients: Clients) -> None:
    zone.delete("192.0.2.1", 60)
    step = point(ttl="5s")
    before = look(step, clients).state
    assert before.values == ()
    step.act(before, clients)
    assert zone.now() == [("192.0.2.7", 5)]
    step.undo(before, Clients())
    assert zone.now() == []


def test_undo_brings_the_former_record_back_and_may_be_repeated(zone: Zone, clients: Clients) -> None:
    step = point(ttl="5s")
    before = look(step, clients).state
    step.act(before, clients)
    for _ in range(2):
        step.undo(before, Clients())
        assert zone.now() == [("192.0.2.1", 60)]


@pytest.mark.parametrize("there", [True, False])
def test_the_command_that_undoes_it_by_hand_does_what_undo_does(zone: Zone, clients: Clients, there: bool) -> None:
    if not there:
        zone.delete("192.0.2.1", 60)
    step = point(ttl="5s")
    before = look(step, clients).state
    former = zone.now()
    step.act(before, clients)
    _, command = step.undo_by_hand(before)
    words = shlex.split(command)
    batch = json.loads(words[words.index("--change-batch") + 1])
    zone.api.change_resource_record_sets(HostedZoneId=words[words.index("--hosted-zone-id") + 1], ChangeBatch=batch)
    assert zone.now() == former
    with pytest.raises(zone.api.exceptions.ClientError):  # as undo, it leaves alone what is not ours
        zone.api.change_resource_record_sets(HostedZoneId=zone.id, ChangeBatch=batch)


def test_undo_leaves_alone_what_someone_else_changed(zone: Zone, clients: Clients) -> None:
    step = point()
    before = look(step, clients).state
    step.act(before, clients)
    zone.upsert("192.0.2.99", 60)
    with pytest.raises(ActionFailed, match="someone else changed it"):
        step.undo(before, clients)
    assert zone.now() == [("192.0.2.99", 60)]


def test_pending_is_waited_for_and_insync_is_done(
    zone: Zone, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.core.responses import ActionResult

    status = "PENDING"
    monkeypatch.setattr(
        Route53,
        "get_change",
        lambda _: ActionResult({"ChangeInfo": {"Id": "C1", "Status": status, "SubmittedAt": datetime.now(UTC)}}),
    )
    step = point()
    step.act(look(step, clients).state, clients)
    state = look(step, clients).state
    assert (state.in_sync, step.done(state), step.underway(state)) == (False, False, True)
    status = "INSYNC"
    assert step.done(look(step, clients).state)


def test_it_is_done_only_when_the_name_servers_agree(zone: Zone, clients: Clients, dns_names: Names) -> None:
    dns_names.records[NAME] = ["192.0.2.1"]
    step = point(name_servers=[dns_names.place], patience="300ms")
    step.act(look(step, clients).state, clients)
    state = look(step, clients).state
    assert [(one.values, one.agrees) for one in state.answers] == [(("192.0.2.1",), False)]
    assert (step.done(state), step.underway(state)) == (False, True)
    dns_names.silent = True
    assert look(step, clients).state.answers[0].agrees is False
    dns_names.silent = False
    dns_names.records[NAME] = ["192.0.2.7"]
    until(lambda: step.done(look(step, clients).state))


def test_after_a_crash_the_record_and_the_name_servers_tell(zone: Zone, clients: Clients, dns_names: Names) -> None:
    step = point(name_servers=[dns_names.place])
    step.act(look(step, clients).state, clients)
    dns_names.records[NAME] = ["192.0.2.7"]
    other = Clients()
    state = look(step, other).state
    assert (state.change_id, state.in_sync, step.done(state)) == (None, None, True)


def test_a_lost_answer_is_found_done_by_looking_again(
    zone: Zone, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = Route53.change_resource_record_sets

    def lose(self: Any) -> Any:
        change(self)
        raise OSError("the connection is gone")

    step = point()
    before = look(step, clients).state
    with monkeypatch.context() as patch:
        patch.setattr(Route53, "change_resource_record_sets", lose)
        with pytest.raises(ActionFailed) as failed:
            step.act(before, clients)
    assert failed.value.retry
    assert step.done(look(step, clients).state)
    assert zone.now() == [("192.0.2.7", 60)]


def test_records_with_a_routing_policy_are_left_alone(zone: Zone, clients: Clients) -> None:
    zone.delete("192.0.2.1", 60)
    backend = get_backend("route53")[DEFAULT_ACCOUNT_ID]["aws"]
    backend.get_hosted_zone(zone.id).upsert_rrset(
        {
            "Name": NAME + ".",
            "Type": "A",
            "TTL": 60,
            "ResourceRecords": ["192.0.2.1"],
            "SetIdentifier": "east",
            "Weight": 1,
        }
    )
    step = point()
    assert "weighted (east 1)" in (step.refuse(look(step, clients).state) or "")


def test_a_zone_that_is_not_there_or_twice_is_said(zone: Zone, clients: Clients) -> None:
    with pytest.raises(ActionFailed, match="no hosted zone 'other.example.'"):
        point(zone="other.example").observe(clients)
    zone.api.create_hosted_zone(Name="shop.example", CallerReference="again")
    with pytest.raises(ActionFailed, match="2 hosted zones"):
        point().observe(clients)
    assert point(zone=zone.id).observe(clients).values == ("192.0.2.1",)


def test_what_is_there_already_needs_no_change(zone: Zone, clients: Clients) -> None:
    step = point(values=["192.0.2.1"])
    assert step.done(look(step, clients).state)
    shorter = point(values=["192.0.2.1"], ttl="5s")
    assert not shorter.done(look(shorter, clients).state)


@pytest.mark.parametrize(
    "bad",
    [
        {"values": []},
        {"values": ["300.1.1.1"]},
        {"values": ["2001:db8::1"]},
        {"values": ["192.0.2.7", "192.0.2.7"]},
        {"type": "CNAME", "values": ["192.0.2.7"]},
        {"type": "CNAME", "values": ["a.example", "b.example"]},
        {"type": "AAAA"},
        {"ttl": "1500ms"},
        {"name_servers": ["127.0.0.1"]},
        {"record": "not a name"},
    ],
)
def test_what_route_53_or_moto_might_swallow_is_refused_by_the_plan(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        point(**bad)
