"""The provider, the fleet and DNS, asked with the clients that people use."""

from __future__ import annotations

import json
import os
import signal
import time

import dns.message
import dns.query
import dns.rcode
import httpx
import pytest
from botocore.exceptions import ClientError

from deployments.lab import Lab
from deployments.lab.addresses import ZONE_ID

from .conftest import eventually
from .provider import lab_client, scale

pytestmark = pytest.mark.lab


def states(lab: Lab, region: str) -> list[tuple[str, str]]:
    (group,) = lab_client(lab, "autoscaling", region).describe_auto_scaling_groups()["AutoScalingGroups"]
    return [(one["LifecycleState"], one["HealthStatus"]) for one in group["Instances"]]


def record(lab: Lab, address: str, ttl: int = 2) -> dict:
    return {"Name": "checkout.lab.test", "Type": "A", "TTL": ttl, "ResourceRecords": [{"Value": address}]}


def change(lab: Lab, *changes: tuple[str, dict]) -> dict:
    batch = {"Changes": [{"Action": action, "ResourceRecordSet": wanted} for action, wanted in changes]}
    client = lab_client(lab, "route53", "us-east-1")
    return client.change_resource_record_sets(HostedZoneId=ZONE_ID, ChangeBatch=batch)["ChangeInfo"]


def resolve(lab: Lab, ask=dns.query.udp) -> tuple[list[str], int]:
    endpoint = lab.addresses.dns
    reply = ask(dns.message.make_query("checkout.lab.test", "A"), endpoint.host, timeout=2, port=endpoint.port)
    return [str(value) for value in reply.answer[0]], reply.answer[0].ttl


def test_instances_are_pending_until_their_process_is_healthy(fresh: Lab) -> None:
    scale(fresh, "us-west-2", "checkout-west", 3)
    assert sorted(states(fresh, "us-west-2")) == [("InService", "Healthy")] + [("Pending", "Healthy")] * 2
    eventually(lambda: states(fresh, "us-west-2") == [("InService", "Healthy")] * 3)
    assert fresh.status().groups["west"].in_service == 3
    for slot in range(3):
        endpoint = fresh.addresses.instance("west", slot)
        assert httpx.get(f"http://{endpoint}/health").status_code == 200


def test_instances_without_a_database_stay_pending(fresh: Lab) -> None:
    fresh.break_node("west", "kill")
    scale(fresh, "us-west-2", "checkout-west", 2)
    eventually(lambda: ("InService", "Unhealthy") in states(fresh, "us-west-2"))  # the one that was there before
    time.sleep(1)
    assert [lifecycle for lifecycle, _ in states(fresh, "us-west-2")].count("Pending") == 1
    fresh.heal()
    eventually(lambda: states(fresh, "us-west-2") == [("InService", "Healthy")] * 2)


def test_scaling_in_ends_processes(fresh: Lab) -> None:
    scale(fresh, "us-east-1", "checkout-east", 1)
    eventually(lambda: len(states(fresh, "us-east-1")) == 1)
    eventually(lambda: fresh.status().groups["east"].healthy == 1)
    answers = [_listens(fresh, slot) for slot in range(2)]
    assert sorted(answers) == [False, True]


def _listens(lab: Lab, slot: int) -> bool:
    try:
        return httpx.get(f"http://{lab.addresses.instance('east', slot)}/health").status_code == 200
    except httpx.ConnectError:
        return False


def test_a_dead_cloud_changes_nothing_that_runs_and_a_reset_brings_it_back(fresh: Lab) -> None:
    rows = json.loads((fresh.addresses.folder / "state.json").read_text())
    os.kill(next(row["pid"] for row in rows if row["name"] == "cloud"), signal.SIGKILL)
    time.sleep(0.5)
    assert resolve(fresh)[0] == [fresh.addresses.balancer("east").host]
    assert httpx.get(f"http://{fresh.addresses.balancer('east')}/health").status_code == 200
    before = fresh.status().traffic_records
    eventually(lambda: fresh.status().traffic_records > before)
    fresh.reset()
    assert states(fresh, "us-east-1") == [("InService", "Healthy")] * 2


def test_an_instance_whose_process_dies_is_booted_again(fresh: Lab) -> None:
    rows = json.loads((fresh.addresses.folder / "state.json").read_text())
    os.kill(next(row["pid"] for row in rows if row["name"] == "checkout-east-0"), signal.SIGKILL)
    eventually(lambda: fresh.status().groups["east"].healthy == 1)
    eventually(lambda: fresh.status().groups["east"].healthy == 2)
    assert fresh.traffic_report().missing == ()


def test_a_capacity_outside_the_limits_is_refused(lab: Lab) -> None:
    for wrong in (7, 0):
        with pytest.raises(ClientError, match=f"SetDesiredCapacity value {wrong}"):
            scale(lab, "us-west-2", "checkout-west", wrong)


def test_a_dns_change_is_pending_and_unseen_then_in_sync_and_seen(fresh: Lab) -> None:
    east, west = fresh.addresses.balancer("east").host, fresh.addresses.balancer("west").host
    client = lab_client(fresh, "route53", "us-east-1")
    assert resolve(fresh) == ([east], 2)
    began = change(fresh, ("DELETE", record(fresh, east)), ("CREATE", record(fresh, west, ttl=3)))
    assert began["Status"] == "PENDING"
    assert resolve(fresh)[0] == [east]
    eventually(lambda: client.get_change(Id=began["Id"])["ChangeInfo"]["Status"] == "INSYNC")
    eventually(lambda: resolve(fresh) == ([west], 3), 1.0)
    assert resolve(fresh, dns.query.tcp) == ([west], 3)


def test_a_change_based_on_an_old_record_changes_nothing(lab: Lab) -> None:
    before = resolve(lab)
    with pytest.raises(ClientError, match="do not match the current values") as caught:
        change(
            lab, ("CREATE", record(lab, "127.1.1.1") | {"Name": "new.lab.test"}), ("DELETE", record(lab, "127.9.9.9"))
        )
    assert caught.value.response["Error"]["Code"] == "InvalidChangeBatch"
    listed = lab_client(lab, "route53", "us-east-1").list_resource_record_sets(HostedZoneId=ZONE_ID)
    assert "new.lab.test." not in {one["Name"] for one in listed["ResourceRecordSets"]}
    assert resolve(lab) == before


@pytest.mark.parametrize(
    ("action", "name", "address", "message"),
    [
        ("CREATE", "checkout.lab.test", "127.1.1.1", "already exists"),
        ("DELETE", "nope.lab.test", "127.1.1.1", "not found"),
        ("UPSERT", "checkout.lab.test", "127.1.1.256", "not a valid IPv4 address"),
        ("UPSERT", "checkout.example.com", "127.1.1.1", "not permitted in zone"),
    ],
)
def test_a_change_that_route_53_refuses_is_refused(
    lab: Lab, action: str, name: str, address: str, message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        change(lab, (action, record(lab, address) | {"Name": name}))


def test_an_unknown_change_is_not_in_sync(lab: Lab) -> None:
    with pytest.raises(ClientError, match="NoSuchChange"):
        lab_client(lab, "route53", "us-east-1").get_change(Id="C0UNKNOWN")


def test_the_cloud_counts_what_it_accepted_since_the_first_day_so_that_twice_is_seen(fresh: Lab) -> None:
    def counted() -> dict:
        return httpx.get(f"{fresh.addresses.cloud_url}/lab/changes").json()

    assert counted() == {"capacity": {}, "records": 0}
    for _ in range(2):
        scale(fresh, "us-west-2", "checkout-west", 2)
        change(fresh, ("UPSERT", record(fresh, "127.1.1.1")))
    with pytest.raises(ClientError):
        scale(fresh, "us-west-2", "checkout-west", 99)
    assert counted() == {"capacity": {"checkout-west": 2}, "records": 2}
    fresh.reset()
    assert counted() == {"capacity": {}, "records": 0}
