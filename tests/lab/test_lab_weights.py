"""Weighted records: the provider takes what Route 53 takes, and customers split as the weights say."""

from __future__ import annotations

import asyncio
from collections import Counter

import dns.message
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from deployments.lab import Lab
from deployments.lab.addresses import NODES, SERVICE_NAME, ZONE_ID, NodeName
from deployments.lab.names import Record, Weighted, answer, serving
from deployments.lab.traffic import Resolver

from .chance import bounds
from .conftest import eventually
from .provider import lab_client

EAST, WEST = (Record(f"{SERVICE_NAME}.", "A", 2, (f"127.77.{at}.1",)) for at in (1, 2))


def answers(east: int, west: int, times: int) -> Counter[str]:
    zone = {(f"{SERVICE_NAME}.", "A"): Weighted((EAST, WEST), (east, west))}
    query = dns.message.make_query(SERVICE_NAME, "A").to_wire()
    said: Counter[str] = Counter()
    for _ in range(times):
        reply = answer(query, zone)
        assert reply is not None
        (found,) = dns.message.from_wire(reply).answer[0]
        said[str(found)] += 1
    return said


@pytest.mark.parametrize(("east", "west"), [(5, 95), (25, 75), (50, 50), (1, 3)])
def test_each_query_is_answered_by_weight(east: int, west: int) -> None:
    least, most = bounds(2000, east / (east + west))
    assert least <= answers(east, west, 2000)["127.77.1.1"] <= most


def test_weight_0_is_never_answered_unless_all_are_0() -> None:
    assert answers(0, 1, 500) == {"127.77.2.1": 500}
    assert set(answers(0, 0, 500)) == {"127.77.1.1", "127.77.2.1"}
    assert serving(Weighted((EAST, WEST), (0, 100))) == (WEST,)


@given(st.integers(1, 300), st.floats(0.02, 0.98))
def test_the_bounds_hold_what_is_expected(draws: int, share: float) -> None:
    least, most = bounds(draws, share)
    assert 0 <= least <= draws * share <= most <= draws


def weighted(lab: Lab, region: NodeName, weight: int) -> dict:
    values = [{"Value": lab.addresses.balancer(region).host}]
    return {"Name": SERVICE_NAME, "Type": "A", "TTL": 2, "SetIdentifier": region, "Weight": weight, "ResourceRecords": values}


def simple(lab: Lab) -> dict:
    values = [{"Value": lab.addresses.balancer("east").host}]
    return {"Name": SERVICE_NAME, "Type": "A", "TTL": 2, "ResourceRecords": values}


def change(lab: Lab, *changes: tuple[str, dict]) -> None:
    batch = {"Changes": [{"Action": action, "ResourceRecordSet": wanted} for action, wanted in changes]}
    lab_client(lab, "route53", "us-east-1").change_resource_record_sets(HostedZoneId=ZONE_ID, ChangeBatch=batch)


def ask_anew(lab: Lab, times: int) -> Counter[str]:
    """What so many customers, each with an empty cache of their own, are sent to."""

    async def ask() -> list[str]:
        return [await Resolver(lab.addresses.dns, SERVICE_NAME).address() for _ in range(times)]

    return Counter(asyncio.run(ask()))


@pytest.mark.lab
def test_customers_split_as_the_weights_say(fresh: Lab) -> None:
    east, west = (fresh.addresses.balancer(region).host for region in NODES)
    pair = [("CREATE", weighted(fresh, "east", 75)), ("CREATE", weighted(fresh, "west", 25))]
    change(fresh, ("DELETE", simple(fresh)), *pair)
    eventually(lambda: set(fresh.status().record) == {east, west})
    assert fresh.status().serving is None
    least, most = bounds(1000, 0.25)
    assert least <= ask_anew(fresh, 1000)[west] <= most
    change(fresh, ("UPSERT", weighted(fresh, "east", 100)), ("UPSERT", weighted(fresh, "west", 0)))
    eventually(lambda: fresh.status().serving == "east")
    assert ask_anew(fresh, 200) == {east: 200}
    before = fresh.status().traffic_records
    eventually(lambda: fresh.status().traffic_records > before)


@pytest.mark.lab
def test_a_name_is_simple_or_weighted_and_a_refused_batch_changes_nothing(fresh: Lab) -> None:
    api = lab_client(fresh, "route53", "us-east-1")
    before = api.list_resource_record_sets(HostedZoneId=ZONE_ID)["ResourceRecordSets"]
    east, west = weighted(fresh, "east", 5), weighted(fresh, "west", 95)
    nameless = {key: value for key, value in east.items() if key != "SetIdentifier"}
    policyless = {key: value for key, value in east.items() if key != "Weight"}
    there = simple(fresh)
    for batch, why in (
        ([("CREATE", east)], "other RRSets exist"),
        ([("DELETE", there), ("CREATE", east), ("CREATE", there)], "other RRSets exist"),
        ([("DELETE", there), ("CREATE", east), ("CREATE", east)], "already exists"),
        ([("DELETE", there), ("CREATE", nameless)], "SetIdentifier"),
        ([("DELETE", there), ("CREATE", policyless)], "SetIdentifier"),
        ([("DELETE", there), ("CREATE", east), ("DELETE", {**east, "Weight": 6})], "do not match"),
        ([("DELETE", there), ("CREATE", east), ("DELETE", west)], "not found"),
    ):
        with pytest.raises(ClientError, match=why):
            change(fresh, *batch)
        assert api.list_resource_record_sets(HostedZoneId=ZONE_ID)["ResourceRecordSets"] == before
