"""The way home on real input: after a real failover the shipped runbook returns under load, and the customers count."""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from deployments.exits import Exit
from deployments.lab.report import TrafficReport
from flows.events import Acting, GateOpened, StepFinished
from tests.failover.conftest import Scene
from tests.failover.test_failover import fold_execution, recovered_facts, run_arguments

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]


def fail_over(scene: Scene, unreplicated: float = 0.0) -> TrafficReport:
    """Kill the primary after it wrote for so many seconds what nobody else got, and fail over; what customers lost."""
    if unreplicated:
        scene.lab.cut("east", "replication", "blackhole")
        time.sleep(unreplicated)
    fault = scene.lab.break_node("primary", "kill")
    scene.failover(*run_arguments(scene))
    scene.lab.cut("east", "replication", "open")
    return recovered_facts(scene, fault)


def arguments(scene: Scene, *more: str) -> list[str]:
    return ["run", str(scene.runbook("region-failback")), "--live", "--as", "kim", "-i", "soak=1s", "-i", "hold=2s", *more]


def facts_of_the_way_home(scene: Scene, since: datetime) -> TrafficReport:
    time.sleep(2.5)  # orders that were being retried get their answers
    return scene.lab.traffic_report(since)


def assert_home(scene: Scene) -> None:
    nodes = {name: (node.role, node.state) for name, node in scene.lab.status().nodes.items()}
    assert nodes == {"east": ("primary", "running"), "west": ("standby", "running")}
    assert scene.lab.status().serving == "east"
    with psycopg.connect(scene.lab.conninfo("east"), autocommit=True) as east:
        row = east.execute("SELECT application_name, state FROM pg_stat_replication").fetchall()
        assert row == [("west", "streaming")]
        slots = east.execute("SELECT slot_name, active FROM pg_replication_slots").fetchall()
        assert slots == [("west", True)]
    with psycopg.connect(scene.lab.conninfo("west"), autocommit=True) as west:
        assert west.execute("SELECT slot_name FROM pg_replication_slots").fetchall() == []


def output(scene: Scene, step: str) -> dict:
    finished = [one for one in scene.events() if isinstance(one, StepFinished) and one.step == step and one.output]
    return finished[-1].output


def test_a_failback_waits_for_the_data_owner_and_then_loses_and_doubles_no_order(scene: Scene) -> None:
    lost = fail_over(scene, unreplicated=0.8)
    assert len(lost.missing) > 2
    since = datetime.now(UTC)
    control = scene.lab.addresses.folder / "nodes" / "east" / "data" / "global" / "pg_control"
    untouched = control.read_bytes()

    run = scene.start(*arguments(scene, "--approve", "window"))
    asked = scene.wait_for_event("gate-opened", "sign-off")
    scene.failover("deny", fold_execution(scene), "sign-off", "--as", "dana", "--reason", "show me the orders first")
    out, _ = run.communicate(timeout=60)
    assert run.returncode == Exit.refused, out
    assert not [one for one in scene.events() if isinstance(one, Acting)]
    assert control.read_bytes() == untouched
    assert scene.lab.status().nodes["east"].stays_off

    assert isinstance(asked, GateOpened)
    listed = {row["key"] for row in output(scene, "divergence")["rows"]}
    assert set(lost.missing) <= listed
    assert any(f"{len(listed)} row(s) are lost" in line for line in asked.evidence)
    shown = [line for line in asked.evidence if line.startswith("lost row: orders ") and ", committed 20" in line]
    assert {line.split()[3].rstrip(",") for line in shown} == listed
    whole = json.loads((kept_of(scene) / output(scene, "divergence")["file"].rsplit("/", 1)[-1]).read_text())
    assert set(lost.missing) <= {row["key"] for row in whole["tables"][0]["rows"]}

    resumed = scene.start("resume", fold_execution(scene), "--as", "kim")
    wait_for_gates(scene, "sign-off", 2)
    scene.failover("approve", fold_execution(scene), "sign-off", "--as", "dana", "--reason", "seen and kept")
    out, _ = resumed.communicate(timeout=90)
    assert resumed.returncode == Exit.met, out
    assert_home(scene)
    facts = facts_of_the_way_home(scene, since)
    assert set(facts.missing) == set(lost.missing)
    assert (facts.duplicated, facts.given_up, facts.two_writers) == ((), 0, False)
    assert (facts.new_primary, facts.by_node["east"] > 0) == ("east", True)

    rebuilt = output(scene, "rebuild")
    assert rebuilt["method"] == "rewind"
    kept = kept_of(scene) / rebuilt["kept"].rsplit("/", 1)[-1]
    assert set(lost.missing) <= {row["key"] for row in json.loads((kept / "diverged.json").read_text())["told"]["tables"][0]["rows"]}
    assert list((kept / "pg_wal").iterdir())

    reports = scene.folder / "reports" / fold_execution(scene)
    report = json.loads(reports.with_suffix(".json").read_text())
    told = report["lost_transactions"][0]["lost"]
    assert {row["key"] for row in told["rows"]} == listed
    assert len(told["transactions"]) == told["committed"] >= len(listed)
    page = reports.with_suffix(".md").read_text().partition("## Lost transactions")[2]
    assert all(ref in page for ref in lost.missing)


def kept_of(scene: Scene) -> Path:
    return scene.lab.addresses.folder / "kept"


def wait_for_gates(scene: Scene, gate: str, count: int) -> None:
    end = time.monotonic() + 30
    while sum(isinstance(event, GateOpened) and event.gate == gate for event in scene.events()) < count:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_failback_whose_engine_is_killed_twice_is_resumed_and_does_nothing_twice(scene: Scene) -> None:
    lost = fail_over(scene)
    since = datetime.now(UTC)
    run = scene.start(*arguments(scene, "--approve", "sign-off", "--approve", "window"))
    for step in ("rebuild", "home"):
        scene.wait_for_event("acting", step)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        run = scene.start("resume", fold_execution(scene), "--as", "bo")
    out, _ = run.communicate(timeout=90)
    assert run.returncode == Exit.met, out
    assert_home(scene)
    facts = facts_of_the_way_home(scene, since)
    assert set(facts.missing) == set(lost.missing)
    assert (facts.duplicated, facts.given_up, facts.two_writers) == ((), 0, False)
    done = [event["event"] for event in scene.lab.events() if event["at"] > since.isoformat()]
    assert [done.count(what) for what in ("rebuilt", "shut-down", "rebuild-failed")] == [2, 1, 0]
    with psycopg.connect(scene.lab.conninfo("east"), autocommit=True) as east:
        row = east.execute("SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int").fetchone()
    assert row == (3,)  # one promotion there and one back
