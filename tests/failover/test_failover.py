"""The main job on real input: a real primary is killed, frozen or cut off, and the shipped runbook recovers the service."""

from __future__ import annotations

import signal
import time
import uuid
from datetime import UTC, datetime

import httpx
import psycopg
import pytest

from deployments.exits import Exit
from deployments.lab.addresses import NodeName
from deployments.lab.errors import LabError
from flows.events import Acting, GateClosed, StepFinished, Verdict
from flows.state import fold
from tests.failover.conftest import RATE, Scene
from tests.failover.pinned import WRITE, Pinned

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

CHANGES = ["dns", "fence", "promote", "scale"]


def run_arguments(scene: Scene, *more: str) -> list[str]:
    return ["run", str(scene.runbook()), "--live", "--approve", "go", "--as", "kim", "--reason", "test", *more]


def recovered_facts(scene: Scene, fault: datetime):
    end = time.monotonic() + 60
    while scene.lab.traffic_report(fault).first_ack_by_new_primary is None:
        assert time.monotonic() < end, "no order was acknowledged by the new primary"
        time.sleep(0.2)
    time.sleep(1.5)  # orders that were being retried get their answers
    return scene.lab.traffic_report(fault)


def stated_loss(scene: Scene) -> float:
    """The most that the promotion said may be lost, in seconds."""
    promoted = next(one for one in scene.events() if isinstance(one, StepFinished) and one.step == "promote")
    return float(promoted.output["loss_seconds_at_most"])


@pytest.mark.parametrize("how", ["kill", "freeze", "disconnect"])
def test_the_service_recovers_and_nothing_is_written_twice(scene: Scene, how: str) -> None:
    run = scene.start(*run_arguments(scene))
    scene.wait_for_event("step-started", "detect")
    time.sleep(1)
    fault = scene.lab.break_node("primary", how)
    out, _ = run.communicate(timeout=150)
    assert run.returncode == Exit.met, out
    facts = recovered_facts(scene, fault)
    assert not facts.two_writers
    assert facts.duplicated == ()
    assert facts.new_primary == "west"
    assert len(facts.missing) <= RATE * stated_loss(scene) + 1
    state = fold(scene.events())
    assert state.verdict is Verdict.recovered
    assert sorted(event.step for event in scene.events() if isinstance(event, Acting)) == CHANGES
    report = scene.report()
    parts = [report["rta"][part] for part in ("detection", "decision", "automation", "verification")]
    assert sum(parts) == pytest.approx(report["rta"]["total"], abs=1e-6)
    assert report["rto_met"] is True
    if how == "kill":
        assert facts.fault_to_new_primary.total_seconds() < 15
    scene.lab.heal()
    assert_old_primary_takes_no_writes(scene)


def assert_old_primary_takes_no_writes(scene: Scene) -> None:
    """Bring it back to life and try every way in."""
    lab, since = scene.lab, datetime.now(UTC)
    with pytest.raises(LabError):
        lab.start_node("east")  # the fence powered it off, and heals do not undo that
    lab.release_node("east")
    lab.start_node("east")
    with psycopg.connect(lab.conninfo("east")) as engine:
        assert engine.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)  # PostgreSQL itself knows no better
    assert insert(scene, "west") == "west"
    for own_side in (True, False):
        with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects"):  # it lives, and says no
            insert(scene, "east", own_side=own_side)
    pinned = Pinned(lab, frozenset({"east"})).start()
    try:
        assert pinned.wait_for("west", 20)
        told = httpx.post(f"http://{lab.addresses.balancer('east')}/orders", json={"ref": str(uuid.uuid4())}, timeout=10)
    finally:
        pinned.stop()
    assert pinned.by("east") == []
    assert pinned.refused > 0
    assert told.status_code >= 500 or told.json()["node"] == "west"  # the service of its own region
    assert not lab.traffic_report(since).two_writers
    with psycopg.connect(lab.conninfo("east")) as engine:
        assert engine.execute("SELECT count(*) FROM orders WHERE created_at > %s", (since,)).fetchone() == (0,)


def insert(scene: Scene, node: NodeName, *, own_side: bool = True) -> str:
    """Write one order as the service does, by a session that insists; give the node that took it."""
    with psycopg.connect(scene.lab.conninfo(node, "checkout", own_side=own_side), autocommit=True) as session:
        session.execute("SET default_transaction_read_only = off")
        return session.execute(WRITE, (str(uuid.uuid4()), node, "insists")).fetchone()[0]


@pytest.mark.parametrize(("event", "step"), [("acting", "fence"), ("acting", "promote"), ("step-finished", "promote"), ("acting", "dns")])
def test_a_killed_engine_is_resumed_by_another_and_repeats_nothing(scene: Scene, event: str, step: str) -> None:
    scene.lab.break_node("primary", "kill")
    run = scene.start(*run_arguments(scene))
    scene.wait_for_event(event, step)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    out = scene.failover("resume", fold_execution(scene), "--as", "bo")
    assert "RECOVERED" in out
    acted = [one.step for one in scene.events() if isinstance(one, Acting)]
    finished = [one.step for one in scene.events() if isinstance(one, StepFinished) and one.status.value == "done"]
    assert sorted(set(acted)) == CHANGES
    assert len(finished) == len(set(finished))
    stops = [one for one in scene.lab.events() if one.get("what") == "stop" or one.get("event") == "stop"]
    assert len(stops) <= 2
    with psycopg.connect(scene.lab.conninfo("west"), autocommit=True) as session:
        assert session.execute("SELECT timeline_id FROM pg_control_checkpoint()").fetchone()[0] <= 2
        assert session.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)


def fold_execution(scene: Scene) -> str:
    from flows.journal_sqlite import SqliteJournal

    journal = SqliteJournal(scene.journal)
    try:
        return journal.executions(1)[0].execution
    finally:
        journal.close()


def test_a_gate_is_answered_from_another_process_and_a_no_changes_nothing(scene: Scene) -> None:
    scene.lab.break_node("primary", "kill")
    run = scene.start("run", str(scene.runbook()), "--live", "--as", "ines")
    scene.wait_for_event("gate-opened", "go")
    execution = fold_execution(scene)
    status = scene.failover("status", execution)
    assert "waiting for people" in status
    assert f"failover approve {execution} go" in status
    scene.failover("deny", execution, "go", "--as", "kim", "--reason", "not yet")
    out, _ = run.communicate(timeout=60)
    assert run.returncode == Exit.refused, out
    assert {event.step for event in scene.events() if isinstance(event, Acting)} == {"scale"}
    assert scene.lab.status().nodes["west"].role == "standby"
    resumed = scene.start("resume", execution)
    wait_until_open_again(scene)
    scene.failover("approve", execution, "go", "--as", "kim", "--reason", "now")
    out, _ = resumed.communicate(timeout=60)
    assert resumed.returncode == Exit.met, out


def wait_until_open_again(scene: Scene) -> None:
    end = time.monotonic() + 30
    while sum(event.kind == "gate-opened" for event in scene.events()) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_second_run_on_the_same_targets_is_busy(scene: Scene) -> None:
    run = scene.start("run", str(scene.runbook()), "--live", "--as", "ines")
    scene.wait_for_event("step-started", "detect")
    try:
        out = scene.failover("run", str(scene.runbook()), "--live", expect=Exit.busy)
        assert "is held by execution" in out
        assert "detect" in out
    finally:
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=30)
    assert run.returncode == Exit.interrupted, out


def test_a_healthy_service_is_left_alone(scene: Scene) -> None:
    out = scene.failover(*run_arguments(scene))
    assert "NO-ACTION" in out
    assert not [event for event in scene.events() if isinstance(event, Acting | GateClosed)]


def test_a_dry_run_shows_old_and_new_and_changes_nothing(scene: Scene) -> None:
    before = scene.lab.status()
    out = scene.failover("run", str(scene.runbook()))
    assert "scale checkout-west: 1 -> 3 instances" in out
    assert f"127.{scene.lab.number}.1.1 -> 127.{scene.lab.number}.2.1" in out
    after = scene.lab.status()
    assert (before.record, before.groups["west"]) == (after.record, after.groups["west"])
    assert not [event for event in scene.events() if isinstance(event, Acting)]


def test_no_secret_is_in_anything_that_was_written(scene: Scene) -> None:
    scene.lab.break_node("primary", "kill")
    out = scene.failover(*run_arguments(scene))
    password = scene.lab.password
    written = b"".join(path.read_bytes() for path in scene.folder.rglob("*") if path.is_file())
    assert password.encode() not in written
    assert password not in out


def test_the_clock_is_real(scene: Scene) -> None:
    fault = scene.lab.break_node("primary", "kill")
    scene.failover(*run_arguments(scene))
    state = fold(scene.events())
    assert abs((state.clock_start - fault).total_seconds()) < 10  # of the fault, by the clock on the wall; a loaded machine sees it late
    assert state.finished.at <= datetime.now(UTC)
