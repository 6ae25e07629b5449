"""Nodes come back closed to clients until they have read who is the primary; with a watchdog they stop themselves in time."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import psycopg
import pytest

from deployments.lab import Lab
from deployments.lab.leases import TTL

from .conftest import eventually, worker
from .test_lab_faults import promote

pytestmark = pytest.mark.lab
LONG = TTL + 3.0  # seconds: a watchdog's time, and patience with a loaded machine


def takes_writes(lab: Lab, node: str) -> bool:
    """As a client on the node's own side sees it."""
    try:
        with psycopg.connect(lab.conninfo(node, "checkout"), autocommit=True) as session:
            session.execute("SET default_transaction_read_only = off")  # what a session may always do
            session.execute("UPDATE heartbeat SET at = clock_timestamp()")
    except psycopg.Error:
        return False
    return True


def test_a_former_primary_comes_back_closed_and_stays_so(fresh: Lab) -> None:
    fresh.break_node("east", "kill")
    promote(fresh, "west")
    eventually(lambda: fresh.status().nodes["west"].role == "primary")
    fresh.start_node("east")
    assert fresh.status().nodes["east"].role == "primary"  # PostgreSQL itself knows no better
    assert not takes_writes(fresh, "east")
    with psycopg.connect(fresh.conninfo("east")) as engine:
        assert engine.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
    fresh.heal()
    assert not takes_writes(fresh, "east")
    assert takes_writes(fresh, "west")


def test_the_primary_comes_back_open_when_nobody_was_promoted(fresh: Lab) -> None:
    fresh.break_node("east", "kill")
    fresh.heal()
    assert takes_writes(fresh, "east")


def test_a_promoted_node_comes_back_open(fresh: Lab) -> None:
    fresh.stop_node("east")
    promote(fresh, "west")
    eventually(lambda: fresh.status().nodes["west"].role == "primary")
    fresh.break_node("west", "kill")
    fresh.start_node("west")
    eventually(lambda: takes_writes(fresh, "west"))


def test_a_restart_while_partitioned_stays_closed_until_the_node_can_ask(fresh: Lab) -> None:
    fresh.break_node("east", "disconnect")
    assert takes_writes(fresh, "east")  # it never went down: closing what runs is a fence's work, not this
    fresh.break_node("east", "kill")
    fresh.start_node("east")
    time.sleep(0.5)
    assert not takes_writes(fresh, "east")
    fresh.heal()
    eventually(lambda: takes_writes(fresh, "east"))


@pytest.fixture(scope="module")
def watched() -> Iterator[Lab]:
    lab = Lab(181 + worker())
    lab.down()
    lab.up(traffic=False, watchdog=True)
    yield lab
    lab.down()


@pytest.fixture
def armed(watched: Lab) -> Lab:
    watched.reset()
    return watched


def lease(lab: Lab, verb: str = "") -> dict[str, object]:
    url = f"{lab.addresses.control_url}/leases/east"
    reply = httpx.post(f"{url}/{verb}") if verb else httpx.get(url)
    assert reply.status_code == 200
    return reply.json()


def test_a_node_that_can_renew_lives_on(armed: Lab) -> None:
    time.sleep(TTL + 1)
    assert takes_writes(armed, "east")
    assert lease(armed)["silent_for"] < TTL


@pytest.mark.parametrize("how", ["disconnect", "freeze"])
def test_a_node_that_cannot_renew_is_stopped_within_the_ttl(armed: Lab, how: str) -> None:
    armed.break_node("east", how)
    eventually(lambda: armed.status().nodes["east"].state == "stopped", LONG)
    expected = {"freeze": "hardware-reset"}.get(how)
    assert expected is None or any(event["event"] == expected for event in armed.events())


def test_a_thaw_after_the_ttl_finds_nothing_that_could_answer(armed: Lab) -> None:
    with psycopg.connect(armed.conninfo("east", "checkout"), autocommit=True) as session:
        armed.break_node("east", "freeze")
        lease(armed, "close")
        eventually(lambda: lease(armed)["silent_for"] > TTL, LONG)
        eventually(lambda: armed.status().nodes["east"].state == "stopped", LONG)
        armed.heal()
        with pytest.raises(psycopg.OperationalError):
            session.execute("UPDATE heartbeat SET at = clock_timestamp()")
    assert not takes_writes(armed, "east")


def test_a_closed_lease_stops_the_node_at_once_and_outlasts_its_restart(armed: Lab) -> None:
    lease(armed, "close")
    eventually(lambda: armed.status().nodes["east"].state == "stopped", LONG)
    armed.heal()
    assert not takes_writes(armed, "east")
    lease(armed, "release")
    eventually(lambda: takes_writes(armed, "east"))


def test_a_standby_needs_no_lease(armed: Lab) -> None:
    httpx.post(f"{armed.addresses.control_url}/leases/west/close")
    time.sleep(TTL + 1)
    assert armed.status().nodes["west"].state == "running"


def test_a_closed_way_outlasts_heals_and_restarts_and_reaches_only_those_who_take_it(fresh: Lab) -> None:
    control = f"{fresh.addresses.control_url}/paths/east"
    assert httpx.get(control).json() == {"closed": False, "stays_closed": False}
    httpx.post(f"{control}/close")
    fresh.break_node("east", "kill")
    fresh.heal()
    assert httpx.get(control).json() == {"closed": True, "stays_closed": True}
    endpoint = fresh.addresses.way("east", "service")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"{fresh.conninfo('east', 'checkout')} host={endpoint.host}").close()
    assert takes_writes(fresh, "east")  # a client beside the node: what `own_side: no-clients` must rule out
    httpx.post(f"{control}/open")
    psycopg.connect(f"{fresh.conninfo('east', 'checkout')} host={endpoint.host}").close()
