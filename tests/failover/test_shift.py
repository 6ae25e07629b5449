"""Customers moved in phases in the lab: the engine is killed in a soak, the new side dies under them, all end well."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from deployments.exits import Exit
from flows.events import Acting, Event, Resumed, Verdict
from flows.journal_sqlite import SqliteJournal
from flows.state import fold
from tests.failover.conftest import Scene
from tests.lab.provider import lab_client, point_dns

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

RUNBOOK = """
schema: failover/v1
name: shift
title: Bring customers to the east in phases
service: checkout
owner: team-checkout
objectives: {rto: 30m}
targets:
  live:
    east: 127.77.1.1
    west: 127.77.2.1
steps:
  - id: shift
    uses: aws.route53.shift_weights
    with:
      zone: lab.test
      record: checkout.lab.test
      old: {id: west, values: ["${target.west}"]}
      new: {id: east, values: ["${target.east}"]}
      phases: [5, 50, 100]
      soak: 2s
      base: http://checkout.lab.test:18080
      requests:
        - {name: health, url: /health, expect: {body: {database: writable}}}
      limits: {max_p95: 2s}
      minimum: 10
      latest: 20
      name_servers: ["127.77.0.53:15353"]
      then: simple
      max_trips: 10 # how soon it is healed is the machine's affair
    timeout: 4m
recovered_when: shift
"""


def moves(events: list[Event]) -> list[str]:
    return [event.describe.split(",")[0] for event in events if isinstance(event, Acting)]


def runbook(scene: Scene) -> Path:
    path = scene.folder / "shift.yaml"
    path.write_text(RUNBOOK.replace("127.77.", f"127.{scene.lab.number}."))
    point_dns(scene.lab, "west")  # as after a failover, but for the database: what goes west cannot be written
    end = time.monotonic() + 10
    while scene.lab.status().serving != "west":
        assert time.monotonic() < end
        time.sleep(0.05)
    return path


def wait_for_move(scene: Scene, to: str) -> None:
    end = time.monotonic() + 90
    while not any(to in move for move in (moves(scene.events()) if scene.journal.exists() and scene.started() else [])):
        assert time.monotonic() < end, f"nobody was moved: {to}"
        time.sleep(0.1)


def sets(scene: Scene) -> dict[str | None, int | None]:
    api = lab_client(scene.lab, "route53", "us-east-1")
    found = api.list_resource_record_sets(HostedZoneId="Z0LABTEST00000")["ResourceRecordSets"]
    return {one.get("SetIdentifier"): one.get("Weight") for one in found if one["Type"] == "A"}


FORWARD = [f"checkout.lab.test: east {before} -> {after} of 100" for before, after in ((0, 5), (5, 50), (50, 100))]


def test_a_killed_engine_is_resumed_in_its_phase_and_everyone_arrives(scene: Scene) -> None:
    run = scene.start("run", str(runbook(scene)), "--live", "--as", "kim")
    wait_for_move(scene, "5 -> 50")
    time.sleep(1.5)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    journal = SqliteJournal(scene.journal)
    execution = journal.executions(1)[0].execution
    journal.close()
    scene.failover("resume", execution)
    events = scene.events()
    assert fold(events).verdict is Verdict.recovered
    assert any(isinstance(event, Resumed) for event in events)
    assert moves(events)[:3] == FORWARD
    assert len(moves(events)) == 4
    assert sets(scene) == {None: None}
    assert scene.lab.status().serving == "east"
    before = scene.lab.status().traffic_records
    end = time.monotonic() + 20
    while scene.lab.status().traffic_records < before + 20:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_side_that_dies_under_customers_is_left_phase_by_phase_and_tried_again_when_it_lives(scene: Scene) -> None:
    run = scene.start("run", str(runbook(scene)), "--live", "--as", "kim")
    wait_for_move(scene, "5 -> 50")
    scene.lab.break_node("east", "freeze")
    wait_for_move(scene, "50 -> 5 ")
    scene.lab.heal()
    out, _ = run.communicate(timeout=150)
    assert run.returncode == Exit.met, out
    said = moves(scene.events())
    assert said[:3] == [*FORWARD[:2], "checkout.lab.test: east 50 -> 5 of 100"]
    assert said[-2] == FORWARD[-1]
    assert sets(scene) == {None: None}
