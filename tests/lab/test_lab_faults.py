"""What faults look like from outside, in a real lab."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest

from deployments.lab import Lab, Refused, processes
from deployments.lab.addresses import Endpoint

from .conftest import eventually
from .provider import point_dns, scale

pytestmark = pytest.mark.lab
ORDER = "insert into orders (ref, region, instance, item, amount) values (%s, 'none', 'own side', 'book', 1)"


def connect(endpoint: Endpoint, seconds: float = 0.5) -> str:
    """Try a TCP connect and tell what came of it."""
    try:
        socket.create_connection((endpoint.host, endpoint.port), seconds).close()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silence"
    return "connected"


def orders(lab: Lab, region: str = "east") -> str:
    return f"http://{lab.addresses.balancer(region)}/orders"


def promote(lab: Lab, node: str) -> None:
    with psycopg.connect(lab.conninfo(node), autocommit=True) as connection:
        while connection.execute("select pg_is_in_recovery()").fetchone() == (True,):
            with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState):
                connection.execute("select pg_promote(false)")
            time.sleep(0.05)


def test_orders_flow_and_none_is_lost(fresh: Lab) -> None:
    eventually(lambda: fresh.status().traffic_records >= 20)
    facts = fresh.traffic_report()
    assert facts.acknowledged >= 20
    assert set(facts.by_node) == {"east"}
    assert (facts.missing, facts.duplicated, facts.given_up, facts.two_writers) == ((), (), 0, False)


def test_the_standby_has_the_orders_and_the_heartbeat(fresh: Lab) -> None:
    ref = str(uuid.uuid4())
    assert httpx.post(orders(fresh), json={"ref": ref}).status_code == 201
    assert httpx.post(orders(fresh), json={"ref": ref}).status_code == 200
    with psycopg.connect(fresh.conninfo("west"), autocommit=True) as west:
        eventually(lambda: west.execute("select from orders where ref = %s", [ref]).fetchone() is not None)
        eventually(
            lambda: west.execute("select clock_timestamp() - at from heartbeat").fetchone()[0].total_seconds() < 1
        )


def test_both_regions_are_healthy_and_only_east_is_writable(fresh: Lab) -> None:
    states = {
        at: httpx.get(f"http://{fresh.addresses.balancer(at)}/health").json()["database"] for at in ("east", "west")
    }
    assert states == {"east": "writable", "west": "read-only"}
    through_west = httpx.post(orders(fresh, "west"), json={"ref": str(uuid.uuid4())})
    assert (through_west.status_code, through_west.json()["region"], through_west.json()["node"]) == (201, "west", "east")
    assert httpx.post(orders(fresh), json={"ref": "no uuid"}).status_code == 400


@pytest.mark.parametrize("way", ["engine", "service", "replication"])
def test_a_killed_node_refuses_every_way_and_stays_dead(fresh: Lab, way: str) -> None:
    before = datetime.now(UTC)
    fault = fresh.break_node("primary", "kill")
    assert before <= fault <= datetime.now(UTC)
    assert connect(fresh.addresses.way("east", way)) == "refused"
    assert connect(fresh.addresses.own_side("east")) == "refused"
    assert processes.of_folder(fresh.addresses.folder / "nodes" / "east", "postgres") == []
    time.sleep(1.2)  # longer than a supervisor of services waits
    assert fresh.status().nodes["east"].state == "stopped"
    with pytest.raises(Refused):
        fresh.break_node("east", "kill")


def test_a_kill_resets_established_sessions(fresh: Lab) -> None:
    session = psycopg.connect(fresh.conninfo("east", own_side=False))
    fresh.break_node("east", "kill")
    with pytest.raises(psycopg.OperationalError):
        session.execute("select 1")
    session.close()


def test_an_unfenced_old_primary_comes_back_as_what_it_was(fresh: Lab) -> None:
    fresh.break_node("primary", "kill")
    promote(fresh, "west")
    fresh.heal()
    roles = {name: (node.role, node.state) for name, node in fresh.status().nodes.items()}
    assert roles == {"east": ("primary", "running"), "west": ("primary", "running")}
    with pytest.raises(Refused):
        fresh.break_node("primary", "kill")  # which?


def test_a_frozen_node_accepts_connections_and_says_nothing(fresh: Lab) -> None:
    with psycopg.connect(fresh.conninfo("east", own_side=False), autocommit=True) as session:
        fresh.break_node("primary", "freeze")
        assert connect(fresh.addresses.way("east", "engine")) == "connected"
        assert connect(fresh.addresses.own_side("east")) == "connected"
        with socket.socket() as client:
            endpoint = fresh.addresses.way("east", "engine")
            client.settimeout(0.5)
            client.connect((endpoint.host, endpoint.port))
            client.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")  # SSLRequest: a living server answers at once
            with pytest.raises(TimeoutError):
                client.recv(1)
        fresh.heal()
        assert session.execute("select 1").fetchone() == (1,)


def test_the_service_answers_in_time_while_its_database_is_frozen(fresh: Lab) -> None:
    fresh.break_node("primary", "freeze")
    for _ in range(3):
        began = time.monotonic()
        assert httpx.post(orders(fresh), json={"ref": str(uuid.uuid4())}, timeout=5).status_code == 503
        assert time.monotonic() - began < 2.3
    began = time.monotonic()
    assert httpx.get(f"http://{fresh.addresses.balancer('east')}/health", timeout=5).status_code == 503
    assert time.monotonic() - began < 1.3


def test_a_disconnected_node_is_silent_to_the_world_and_lives_on_its_own_side(fresh: Lab) -> None:
    with psycopg.connect(fresh.conninfo("east"), autocommit=True) as own:
        fresh.break_node("primary", "disconnect")
        for way in ("engine", "service", "replication"):
            assert connect(fresh.addresses.way("east", way)) == "silence"
        ref = str(uuid.uuid4())
        own.execute(ORDER, [ref])
        with psycopg.connect(fresh.conninfo("west"), autocommit=True) as west:
            time.sleep(0.5)
            assert west.execute("select from orders where ref = %s", [ref]).fetchone() is None
        fresh.heal()
        assert connect(fresh.addresses.way("east", "engine"), 5) == "connected"


def test_a_disconnect_stalls_established_sessions_without_ending_them(fresh: Lab) -> None:
    with psycopg.connect(fresh.conninfo("east", own_side=False), autocommit=True) as session:
        fresh.break_node("primary", "disconnect")
        answers: list[object] = []
        asking = threading.Thread(target=lambda: answers.append(session.execute("select 1").fetchone()))
        asking.start()
        asking.join(1)
        assert asking.is_alive()
        fresh.heal()
        asking.join(5)
        assert answers == [(1,)]


def test_a_disconnected_standby_hears_nothing_and_catches_up(fresh: Lab) -> None:
    fresh.break_node("west", "disconnect")
    ref = str(uuid.uuid4())
    with psycopg.connect(fresh.conninfo("east"), autocommit=True) as east:
        east.execute(ORDER, [ref])
    with psycopg.connect(fresh.conninfo("west"), autocommit=True) as west:
        time.sleep(0.5)
        assert west.execute("select from orders where ref = %s", [ref]).fetchone() is None
        fresh.heal()
        eventually(lambda: west.execute("select from orders where ref = %s", [ref]).fetchone() is not None)


def test_one_way_alone_can_be_cut(fresh: Lab) -> None:
    fresh.cut("east", "engine", "blackhole")
    assert connect(fresh.addresses.way("east", "engine")) == "silence"
    assert connect(fresh.addresses.way("east", "service")) == "connected"
    assert httpx.post(orders(fresh), json={"ref": str(uuid.uuid4())}).status_code == 201
    fresh.cut("east", "engine", "refuse")
    assert connect(fresh.addresses.way("east", "engine")) == "refused"


@pytest.mark.parametrize("how", ["kill", "freeze", "disconnect"])
def test_a_power_off_ends_every_process_and_lasts_until_released(fresh: Lab, how: str) -> None:
    fresh.break_node("primary", how)
    folder = fresh.addresses.folder / "nodes" / "east"
    node = fresh.stop_node("east")
    assert processes.of_folder(folder, "postgres") == []
    assert (node.state, node.stays_off) == ("stopped", True)
    assert fresh.stop_node("east").stays_off  # again: no harm
    with pytest.raises(Refused):
        fresh.start_node("east")
    fresh.heal()
    assert fresh.status().nodes["east"].state == "stopped"
    assert connect(fresh.addresses.way("east", "service")) == "refused"
    fresh.release_node("east")
    assert fresh.start_node("east").state == "running"


def test_a_failover_is_measured_from_outside(fresh: Lab) -> None:
    eventually(lambda: fresh.status().traffic_records > 10)
    fault = fresh.break_node("primary", "kill")
    fresh.stop_node("east")
    time.sleep(1)  # an outage that customers notice: an order tells that it failed once it is through
    promote(fresh, "west")
    point_dns(fresh, "west")
    eventually(lambda: fresh.traffic_report(fault).new_primary == "west")
    facts = fresh.traffic_report(fault)
    assert facts.downtime is not None
    assert timedelta(milliseconds=100) < facts.downtime < timedelta(seconds=20)
    assert facts.fault_to_new_primary is not None
    assert facts.first_failure is not None
    assert facts.first_failure >= fault
    assert set(facts.by_node) == {"east", "west"}
    assert not facts.two_writers
    assert facts.duplicated == ()


def test_what_only_the_old_primary_acknowledged_is_missing(fresh: Lab) -> None:
    fresh.cut("east", "replication", "blackhole")  # the standby hears nothing, customers are still served
    before = fresh.status().traffic_records
    eventually(lambda: fresh.status().traffic_records > before + 10)
    fresh.stop_node("east")
    promote(fresh, "west")
    assert len(fresh.traffic_report().missing) >= 10


def test_a_reset_brings_back_the_first_day(fresh: Lab) -> None:
    fresh.break_node("primary", "disconnect")
    fresh.stop_node("east")
    promote(fresh, "west")
    point_dns(fresh, "west")
    scale(fresh, "us-west-2", "checkout-west", 3)
    fresh.reset()
    status = fresh.status()
    assert {name: (node.role, node.state, node.stays_off) for name, node in status.nodes.items()} == {
        "east": ("primary", "running", False),
        "west": ("standby", "running", False),
    }
    assert all(state == "open" for node in status.nodes.values() for state in node.links.values())
    assert {name: (group.desired, group.in_service) for name, group in status.groups.items()} == {
        "east": (2, 2),
        "west": (1, 1),
    }
    assert status.serving == "east"
    facts = fresh.traffic_report()
    assert (facts.missing, set(facts.by_node)) == ((), {"east"})


def test_everything_done_to_the_lab_is_on_record(fresh: Lab) -> None:
    fault = fresh.break_node("primary", "kill")
    fresh.heal()
    events = fresh.events()
    broken = next(event for event in reversed(events) if event["event"] == "break")
    assert (datetime.fromisoformat(broken["at"]), broken["node"], broken["how"]) == (fault, "east", "kill")
    assert events[-1]["event"] == "heal"
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/break", {"node": "north", "how": "kill"}, 400),
        ("/break", {"how": "shoot"}, 400),
        ("/break", [], 400),
        ("/links/east/engine", {"state": "slow"}, 400),
        ("/links/east/back", {"state": "open"}, 404),
        ("/nodes/north/stop", {}, 404),
        ("/nodes/east/explode", {}, 404),
        ("/nothing", {}, 404),
    ],
)
def test_the_control_api_refuses_what_it_does_not_understand(lab: Lab, path: str, content: object, status: int) -> None:
    reply = httpx.post(f"{lab.addresses.control_url}{path}", json=content)
    assert reply.status_code == status
    assert reply.json()["error"]


def test_a_running_node_is_not_rebuilt_over_and_one_that_is_shut_down_leaves_its_standby_nothing_to_miss(fresh: Lab) -> None:
    facts = {"from": "west", "timeline": 1, "fork": "0/1000028"}
    with pytest.raises(Refused):
        fresh._call("POST", "/nodes/east/rebuild", facts)
    fresh._call("POST", "/nodes/east/shutdown")
    eventually(lambda: fresh.status().nodes["east"].state == "stopped")
    told = fresh._call("GET", "/nodes/east/rebuild")
    assert (told["stays_off"], told["control"]["clean"]) == (True, True)
    with psycopg.connect(fresh.conninfo("west"), autocommit=True) as west:
        last = "select pg_last_wal_replay_lsn() > %s::pg_lsn"
        assert west.execute(last, [told["control"]["checkpoint"]]).fetchone() == (True,)
    with pytest.raises(Refused):
        fresh.start_node("east")
    fresh._call("POST", "/nodes/east/rebuild", facts)
    eventually(lambda: fresh._call("GET", "/nodes/east/rebuild")["job"]["state"] == "failed")
    assert "signed off" in fresh._call("GET", "/nodes/east/rebuild")["job"]["error"]
    assert fresh.status().nodes["east"].state == "stopped"
