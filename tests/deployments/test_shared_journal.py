"""Two machines with one journal on PostgreSQL, as people use it: two folders, two users' states, one address."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.exits import Exit
from tests.deployments.machines import Machine
from tests.deployments.test_command import MANUAL, execution_in, wait_for
from tests.flows.journals import PostgresPlace
from tests.tasks.postgres_nodes import Node

CANARY = "sea-canary-42"


@pytest.fixture
def machines(journal_server: Node, tmp_path: Path) -> tuple[Machine, Machine]:
    journal = PostgresPlace(journal_server).address_as("failover", CANARY)
    return Machine(tmp_path / "east", journal, MANUAL, CANARY), Machine(tmp_path / "west", journal, MANUAL, CANARY)


def test_two_machines_see_the_same_executions_and_either_answers(machines: tuple[Machine, Machine]) -> None:
    east, west = machines
    with east.start("run", "by-hand.yaml", "--live", "--plain") as run:
        execution = execution_in(wait_for(run, "move"))
        assert execution in west.failover("list")
        west.failover("approve", execution, "move", "--as", "kim")
        west.failover("approve", execution, "look", "--as", "kim")
        rest = run.communicate(timeout=60)[0]
    assert run.returncode == Exit.met, rest
    assert CANARY not in rest
    assert json.loads(west.failover("report", execution, "--format", "json"))["verdict"] == "recovered"
    assert east.failover("list", "--json") == west.failover("list", "--json")
    assert (east.state / "reports" / f"{execution}.md").exists()
    written = [path for path in (*east.state.rglob("*"), *west.state.rglob("*")) if path.is_file()]
    assert not [path for path in written if CANARY.encode() in path.read_bytes()]


def test_what_one_machine_halts_is_halted_on_the_other(machines: tuple[Machine, Machine]) -> None:
    east, west = machines
    west.failover("halt", "--reason", "stop", "--as", "kim")
    assert "halted by kim" in east.failover("run", "by-hand.yaml", "--live", "--plain", expect=Exit.refused)


def test_an_execution_that_lives_on_one_machine_is_not_resumed_on_the_other(machines: tuple[Machine, Machine]) -> None:
    east, west = machines
    with east.start("run", "by-hand.yaml", "--live", "--plain") as run:
        execution = execution_in(wait_for(run, "move"))
        assert execution in west.failover("resume", execution, "--plain", expect=Exit.busy)
        run.terminate()
        run.communicate(timeout=60)
    assert run.returncode == Exit.interrupted


@pytest.mark.parametrize("journal", [
    f"postgresql://kim:{CANARY}@127.0.0.1:1/journal", f"mysql://kim:{CANARY}@127.0.0.1/journal",
    f"postgresql:/kim:{CANARY}@//127.0.0.1/journal",
])  # fmt: skip
def test_a_journal_that_cannot_be_had_is_one_line_without_the_password(tmp_path: Path, journal: str) -> None:
    machine = Machine(tmp_path / "east", journal, MANUAL, CANARY)
    out = machine.failover("list", expect=Exit.not_met)
    assert out.startswith("journal")
    assert out.count("\n") == 1
