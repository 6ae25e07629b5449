"""A lost sync quorum as a fence, for real: the old primary lives, its own clients go on trying, and its provider is away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from deployments.exits import Exit
from deployments.lab import Lab
from flows.events import StepFinished
from tests.failover.conftest import Scene
from tests.failover.provider import Provider
from tests.failover.rounds import clients, prepared
from tests.failover.scenarios import Scenario
from tests.failover.verdict import Rows, judge

UNREACHABLE = Scenario(seed=0, number=0, kind="unfenceable: unreachable", fault="disconnect", provider="unreachable")
SYSTEM = "      system_id: ${steps.replication.system_id}\n    after: replication"
SYNC_QUORUM = """\
      if_unreachable: sync-quorum
      sync_quorum: {rule: west, standbys: {west: "${target.west_database}"}, sessions: every-commit-waits}
"""


@pytest.fixture(scope="module")
def synchronous() -> Iterator[Lab]:
    lab = Lab(int(os.environ.get("FAILOVER_TEST_SYNC_LAB", "93")))
    lab.down()
    lab.up(sync=True, traffic=False)
    yield lab
    lab.down()


def staged(lab: Lab, folder: Path, provider: Provider) -> Scene:
    scene = prepared(lab, folder, UNREACHABLE, provider)
    runbook = folder / "rounds.yaml"
    text = runbook.read_text()
    assert SYSTEM in text
    assert "timeout: 4s" in text
    runbook.write_text(text.replace(SYSTEM, SYNC_QUORUM + SYSTEM).replace("timeout: 4s", "timeout: 20s"))
    return scene


def on(lab: Lab) -> Rows:
    with psycopg.connect(lab.conninfo("west")) as session:
        found = session.execute("SELECT ref::text, node FROM orders WHERE instance LIKE 'pinned-%'").fetchall()
    return Rows(dict.fromkeys((ref for ref, _ in found), 0.0), dict(found), len(found) - len(dict(found)))


@pytest.mark.lab
@pytest.mark.timeout(240)
def test_the_standby_is_promoted_and_no_write_is_acknowledged_by_two(synchronous: Lab, tmp_path: Path) -> None:
    synchronous.reset()
    with Provider(synchronous, "unreachable") as provider, clients(synchronous) as pinned:
        scene = staged(synchronous, tmp_path, provider)
        synchronous.break_node("east", "disconnect")
        scene.failover("run", str(tmp_path / "rounds.yaml"), "--live", "--approve", "go", "--as", "kim")
        assert synchronous.status().nodes["west"].role == "primary"
        assert pinned.wait_for("west", 20)
        synchronous.heal()
        assert pinned.wait_for("west", 20)  # whatever was healed gets its chance to write
        pinned.stop()
    found = judge(pinned.by("east"), pinned.by("west"), None, on(synchronous))
    assert (found.two_writers, found.content, found.lost) == (0, (), 0)
    fence = scene.wait_for_event("step-finished", "fence")
    assert isinstance(fence, StepFinished)
    assert fence.output is not None
    assert (fence.output["state"], fence.output["reachable"], fence.output["commits"]) == ("sync-quorum-lost", False, None)


@pytest.mark.lab
@pytest.mark.timeout(240)
def test_a_primary_that_was_seen_to_wait_for_nobody_is_not_fenced_by_it(synchronous: Lab, tmp_path: Path) -> None:
    synchronous.reset()
    with psycopg.connect(synchronous.conninfo("east"), autocommit=True) as session:
        session.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        session.execute("SELECT pg_reload_conf()")
    with Provider(synchronous, "unreachable") as provider, clients(synchronous) as pinned:
        scene = staged(synchronous, tmp_path, provider)
        run = scene.start("run", str(tmp_path / "rounds.yaml"), "--live", "--force", "--reason", "test", "--as", "kim")
        scene.wait_for_event("gate-opened", "go")
        synchronous.break_node("east", "disconnect")
        scene.failover("approve", scene.execution(), "go", "--as", "kim")
        out, _ = run.communicate(timeout=100)
        assert run.returncode == Exit.not_met, out
        assert pinned.wait_for("east", 20)  # its own side's clients are acknowledged, so a promotion would make two
        synchronous.heal()
    assert synchronous.status().nodes["west"].role == "standby"
    assert pinned.by("west") == []
    with psycopg.connect(synchronous.conninfo("west")) as session:
        told = session.execute("SELECT sourcefile FROM pg_settings WHERE name = 'primary_conninfo'").fetchone()
    assert told is not None
    assert not str(told[0]).endswith("postgresql.auto.conf")  # nobody was cut off for nothing
