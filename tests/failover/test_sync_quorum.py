"""A lost sync quorum is no fence where the old primary was seen to wait for nobody; where it is one: test_rounds.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from deployments.exits import Exit
from deployments.lab import Lab
from tests.failover.conftest import NUMBER
from tests.failover.provider import Provider
from tests.failover.rounds import clients, prepared
from tests.failover.scenarios import draw_kind

DISCONNECT = draw_kind(1, "sync-quorum: disconnect", "sync-quorum")


@pytest.fixture(scope="module")
def synchronous() -> Iterator[Lab]:
    lab = Lab(NUMBER + 1)
    lab.down()
    lab.up(sync=True, traffic=False)
    yield lab
    lab.down()


@pytest.mark.lab
@pytest.mark.timeout(240)
def test_a_primary_that_was_seen_to_wait_for_nobody_is_not_fenced_by_it(synchronous: Lab, tmp_path: Path) -> None:
    synchronous.reset()
    with psycopg.connect(synchronous.conninfo("east"), autocommit=True) as session:
        session.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        session.execute("SELECT pg_reload_conf()")
    with Provider(synchronous, DISCONNECT.provider) as provider, clients(synchronous, DISCONNECT) as pinned:
        scene = prepared(synchronous, tmp_path, DISCONNECT, provider)
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
