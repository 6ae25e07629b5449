"""The journal's database dies in the middle of an execution: a named person goes on from the copy, and brings it back."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.exits import Exit
from flows.anchors import anchors_in
from flows.journal_copy import CopyFile
from flows.journal_sqlite import SqliteJournal
from tests.deployments.machines import Machine
from tests.deployments.test_command import execution_in, wait_for
from tests.flows.journals import PostgresPlace
from tests.tasks.postgres_nodes import Installation, Node, until

RUNBOOK = """schema: failover/v1
name: by-hand
title: Move it by hand
service: shop
owner: me
objectives: {rto: 30m}
recovered_when: last
steps:
  - {id: first, manual: Move the cables, budget: 5m, on_failure: halt}
  - {id: last, manual: Look at the lights, budget: 5m, on_failure: halt}
"""
JOURNAL_DEAD = "so nothing more was done"


@pytest.fixture
def server(installation: Installation) -> Iterator[Node]:
    node = installation.node("breakable", fsync="on").start()
    yield node
    node.discard()


@pytest.fixture
def east(server: Node, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "east", PostgresPlace(server).address, RUNBOOK)


def die_in_the_middle(east: Machine, server: Node) -> tuple[str, str]:
    """A run whose first step is done and whose second is asked for when the journal's server is killed."""
    run = east.start("run", "by-hand.yaml", "--live", "--plain")
    execution = execution_in(wait_for(run, "GATE first"))
    east.failover("approve", execution, "first", "--as", "kim")
    wait_for(run, "GATE last")
    until(lambda: events(east.copy(execution))[-1] == "gate-opened")
    server.kill()
    out = run.communicate(timeout=60)[0]
    assert run.returncode == Exit.not_met, out
    return execution, out


def events(path: Path) -> list[str]:
    file = SqliteJournal(path)
    kinds = [row.kind for name in file.names() for row in file.stored(name)]
    file.close()
    return kinds


def go_on(east: Machine, execution: str) -> str:
    """Resume from the copy, and finish by hand."""
    path = str(east.copy(execution))
    again = east.start("resume", execution, "--journal", path, "--override", "kim", "--reason", "the database is dead", "--plain")
    wait_for(again, "GATE last")
    east.failover("approve", execution, "last", "--as", "kim", "--journal", path)
    out = again.communicate(timeout=60)[0]
    assert again.returncode == Exit.met, out
    return out


def test_a_dead_journal_stops_the_run_which_prints_the_command_that_goes_on(east: Machine, server: Node) -> None:
    execution, out = die_in_the_middle(east, server)
    path = str(east.copy(execution))
    assert JOURNAL_DEAD in out
    assert f"failover resume {execution} --journal {path} --override NAME --reason WHY" in out
    assert "override" not in events(east.copy(execution))
    for incomplete in ((), ("--override", "kim"), ("--override", "", "--reason", "dead")):
        east.failover("resume", execution, "--journal", path, *incomplete, expect=Exit.invalid)
    east.failover("run", "by-hand.yaml", "--live", "--journal", path, expect=Exit.invalid)
    assert "override" not in events(east.copy(execution))

    told = go_on(east, execution)
    assert "unleased, journal copy" in told
    kept = json.loads((east.state / "reports" / f"{execution}.json").read_text())
    assert kept["verdict"] == "recovered"
    assert len(kept["unleased"]) == 1
    assert [step["status"] for step in kept["steps"]] == ["done", "done"]
    assert events(east.copy(execution)).count("override") == 1

    server.start()
    east.failover("verify-journal", "--journal", path)
    said = east.failover("import", path)
    assert "imported from event" in said
    east.failover("import", path)
    assert "went on in" in east.failover("resume", execution, expect=Exit.invalid)
    report = json.loads(east.failover("report", execution, "--format", "json"))
    assert (report["verdict"], report["seal"]["anchor"], report["unleased"]) == ("recovered", kept["seal"]["anchor"], kept["unleased"])
    intact = east.failover("verify-journal", "--anchor", kept["seal"]["anchor"])
    assert "were imported from" in intact
    assert "intact" in intact


def test_a_fork_is_told_and_nothing_is_merged(east: Machine, server: Node, tmp_path: Path) -> None:
    execution, _ = die_in_the_middle(east, server)
    go_on(east, execution)
    server.start()
    path = str(east.copy(execution))
    assert path in east.failover("resume", execution, expect=Exit.invalid)  # the machine that went on knows

    west = Machine(tmp_path / "west", east.environ["FAILOVER_JOURNAL"], RUNBOOK)
    until_free = west.start("resume", execution, "--plain", "--as", "lee")
    wait_for(until_free, "GATE last")
    until_free.terminate()
    until_free.communicate(timeout=60)
    ours, theirs = west.failover("export", execution), east.failover("export", execution, "--journal", path)

    told = east.failover("import", path, expect=Exit.refused)
    first = next(number for number, pair in enumerate(zip(ours.splitlines(), theirs.splitlines(), strict=False)) if number and pair[0] != pair[1])
    assert f"forked at event {first}" in told
    assert "kim on" in told
    assert "lee on" in told
    assert west.failover("export", execution) == ours
    assert east.failover("export", execution, "--journal", path) == theirs


def test_the_last_events_of_a_journal_that_lost_them_are_brought_back_by_the_copy(east: Machine, server: Node) -> None:
    run = east.start("run", "by-hand.yaml", "--live", "--plain")
    execution = execution_in(wait_for(run, "GATE first"))
    east.failover("approve", execution, "first", "--as", "kim")
    wait_for(run, "GATE last")
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    whole = east.failover("export", execution)
    head = anchors_in(whole)[-1]
    place = PostgresPlace.__new__(PostgresPlace)
    place.node, place.database = server, "postgres"
    for statement in (*place.spoil, f"DELETE FROM failover.events WHERE number > {head.number - 3}"):
        place.execute(statement)
    assert str(head) not in east.failover("export", execution)
    assert "is missing" in east.failover("verify-journal", "--anchor", str(head), expect=Exit.not_met)
    assert "failover import" in east.failover("resume", execution, expect=Exit.invalid)
    east.failover("import", str(east.copy(execution)))
    assert east.failover("export", execution) == whole
    again = east.start("resume", execution, "--plain")  # nothing went on elsewhere, so the journal goes on
    wait_for(again, "GATE last")
    again.terminate()
    again.communicate(timeout=60)
    assert again.returncode == Exit.interrupted


def test_a_holder_that_lives_on_this_machine_is_not_overridden(east: Machine, server: Node) -> None:
    run = east.start("run", "by-hand.yaml", "--live", "--plain")
    execution = execution_in(wait_for(run, "GATE first"))
    path = str(east.copy(execution))
    east.failover("resume", execution, "--journal", path, "--override", "kim", "--reason", "dead", expect=Exit.busy)
    assert "override" not in events(east.copy(execution))
    run.kill()
    run.communicate()
    begun = time.monotonic()
    again = east.start("resume", execution, "--journal", path, "--override", "kim", "--reason", "dead", "--plain")
    wait_for(again, "GATE first")
    assert time.monotonic() - begun < 15  # its process is gone for certain, so its lease need not be waited for
    again.kill()
    again.communicate()


def test_a_copy_that_was_changed_goes_on_nowhere(east: Machine, server: Node) -> None:
    execution, _ = die_in_the_middle(east, server)
    file = CopyFile(east.copy(execution))
    file._db.executescript("DROP TRIGGER events_stay; UPDATE events SET body = replace(body, 'kim', 'lee')")
    file.close()
    path = str(east.copy(execution))
    assert "does not fit" in east.failover(
        "resume", execution, "--journal", path, "--override", "kim", "--reason", "dead", expect=Exit.not_met
    )
    server.start()
    assert "nothing was imported" in east.failover("import", path, expect=Exit.not_met)


def test_what_people_read_names_the_anchor(east: Machine, server: Node) -> None:
    run = east.start("run", "by-hand.yaml", "--live", "--plain", "--as", "kim")
    execution = execution_in(wait_for(run, "GATE first"))
    for gate in ("first", "last"):
        east.failover("approve", execution, gate, "--as", "kim")
    out = run.communicate(timeout=60)[0]
    head = anchors_in(out)[-1]
    texts = [path for form in ("md", "json", "html") for path in east.state.glob(f"reports/*.{form}")]
    for path in (*texts, *east.state.glob("eject/*")):
        assert head in anchors_in(path.read_text()), path
    PostgresPlace(server)  # the whole journal is gone, and with it every trace of the execution but the anchors
    assert execution in east.failover("verify-journal", expect=Exit.not_met)


