"""Prefect may die at any moment: the failover neither waits nor fails, and Prefect shows the truth afterwards."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from deployments.prefect_server import child_environment, running
from flows.events import Acting, GateClosed, StepFinished, Verdict
from flows.journal_sqlite import SqliteJournal
from tests.prefect.conftest import PLUGIN, Prefect, Run, Serve, eventually, free_port, serve
from tests.prefect.test_served import Ask

pytestmark = pytest.mark.prefect
GATED = {"scale": {"look"}, "fence": {"look", "go"}, "promote": {"fence"}, "smoke": {"scale", "promote"}}
"""What each step of gated.yaml waits for; `go` is its gate."""


def test_a_server_that_dies_in_the_middle_delays_no_step_and_shows_the_truth_when_it_is_back(
    ask: Ask, prefect: Prefect, tmp_path: Path
) -> None:
    worlds = [tmp_path / name for name in ("lives", "dies")]
    for world in worlds:
        world.mkdir()
    lives, dies = (ask("slow", world=str(world)) for world in worlds)
    for run in (lives, dies):
        eventually(lambda run=run: run.journaled().step("two").acting)
    prefect.kill()
    for run in (lives, dies):
        eventually(lambda run=run: run.journaled().finished)
        assert [step for step, record in run.journaled().steps.items() if record.status] == ["one", "two", "three", "four", "five"]
        assert longest_pause(run) < timedelta(seconds=1)
    os.kill(dies.pid(), signal.SIGKILL)  # it could not tell, and now never will
    prefect.start()
    for run in (dies, lives):
        assert run.ended(60) == ("COMPLETED", "Recovered")
        eventually(lambda run=run: len(run.steps()) == 5 and set(run.steps().values()) == {("COMPLETED", "Done")})
        assert shown_where_they_happened(run)


def test_a_gate_is_answered_by_command_while_the_server_is_dead_and_the_answer_is_shown_when_it_is_back(
    ask: Ask, prefect: Prefect, served: Serve, tmp_path: Path
) -> None:
    worlds = [tmp_path / name for name in ("at-its-gate", "before-its-gate")]
    for world in worlds:
        world.mkdir()
    waits = ask("gated", world=str(worlds[0]))
    form = waits.form()
    comes = ask("gated", world=str(worlds[1]), takes=50)
    eventually(lambda: comes.journaled().step("look").acting)
    prefect.kill()
    assert comes.journaled().gate("go").opened is None
    for fact in ("look", "scale"):
        comes.settle(fact)
    for run in (waits, comes):
        eventually(lambda run=run: run.journaled().gate("go").waiting)
        approve(run, served.journal, tmp_path)
    for run in (waits, comes):
        ended = eventually(lambda run=run: run.journaled().finished)
        assert ended.verdict is Verdict.recovered
        assert sorted(run.effects()) == ["fence", "look", "promote", "scale", "smoke"]
        assert latest(run) < timedelta(seconds=1)
        os.kill(run.pid(), signal.SIGKILL)  # it could not tell, and now never will
    prefect.start()
    for run in (waits, comes):
        assert run.ended(60) == ("COMPLETED", "Recovered")
        eventually(lambda run=run: len(run.steps()) == 5 and set(run.steps().values()) == {("COMPLETED", "Done")})
        assert shown_where_they_happened(run)
    assert form.now() == ("COMPLETED", "Approved")
    assert {child["state_type"] for run in (waits, comes) for child in run.children()} == {"COMPLETED"}


def approve(run: Run, journal: Path, folder: Path) -> None:
    """Say yes at its gate, on the command line."""
    done = subprocess.run(
        [sys.executable, "-m", "deployments", "approve", run.execution, "go", "--as", "ada", "--journal", str(journal)],
        env=child_environment(PYTHONPATH=str(PLUGIN)), cwd=folder, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def latest(run: Run) -> timedelta:
    """The longest time from when a step of gated.yaml could act, or its gate was answered, to when that was so."""
    events = run.events()
    acted = {event.step: event.at for event in events if isinstance(event, Acting)}
    over = {event.step: event.at for event in events if isinstance(event, StepFinished)}
    closed = next(event for event in events if isinstance(event, GateClosed))
    answered = max(one.given_at for one in run.journaled().gate("go").answers)
    waits = [acted[step] - max({**over, "go": closed.at}[before] for before in needs) for step, needs in GATED.items()]
    return max(closed.at - answered, *waits)


def longest_pause(run: Run) -> timedelta:
    """The longest time from a step's end to the next one's act."""
    events = [event for event in run.events() if isinstance(event, StepFinished | Acting)]
    pairs = [(a, b) for a, b in zip(events, events[1:], strict=False) if isinstance(a, StepFinished)]
    return max(b.at - a.at for a, b in pairs)


def shown_where_they_happened(run: Run) -> bool:
    """Whether Prefect's times are the journal's."""
    spans, steps = run.step_spans(), run.journaled().steps
    return all(abs(datetime.fromisoformat(spans[name][1]) - record.finished) < timedelta(milliseconds=1) for name, record in steps.items())


def test_requests_at_the_same_time_are_not_refused_by_the_database(prefect: Prefect) -> None:
    """The contract of deployments.prefect_app with Prefect: without its cure 25 of these 30 are answered 503."""
    flow = prefect.http.post("/flows/", json={"name": "burst"}).json()["id"]
    run = prefect.http.post("/flow_runs/", json={"flow_id": flow, "state": {"type": "RUNNING"}}).json()["id"]

    def send(number: int) -> int:
        if number % 4:
            return prefect.http.post("/events", json=[task_run_event(run) for _ in range(3)]).status_code
        body = {"flow_run_id": run, "task_key": "burst", "dynamic_key": str(number), "state": {"type": "PENDING"}}
        return prefect.http.post("/task_runs/", json=body).status_code

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(send, range(120))) == {201, 204}


def task_run_event(flow_run: str) -> dict[str, Any]:
    task_run = str(uuid4())
    return {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.task-run.Running",
        "resource": {"prefect.resource.id": f"prefect.task-run.{task_run}", "prefect.orchestration": "client"},
        "related": [{"prefect.resource.id": f"prefect.flow-run.{flow_run}", "prefect.resource.role": "flow-run"}],
        "payload": {
            "validated_state": {"type": "RUNNING", "name": "Running", "state_details": {}},
            "task_run": {"name": "burst", "task_key": "burst", "dynamic_key": task_run},
        },
    }


def test_serve_starts_a_server_of_its_own_and_on_sigterm_everything_ends_in_good_order(
    new_home: Callable[[Path], Path], folder: Path, tmp_path: Path
) -> None:
    import httpx

    home, world = new_home(tmp_path / "home"), tmp_path / "world"
    world.mkdir()
    port = free_port()
    found = serve(folder, tmp_path / "journal.db", tmp_path / "log", "--home", str(home), "--port", str(port), PREFECT_API_URL="")
    server = running(home)
    assert server is not None
    assert server.port == port
    assert f"Prefect UI: http://127.0.0.1:{port}" in found.said()
    with httpx.Client(base_url=server.api, timeout=30, trust_env=False) as http:
        assert http.get(f"http://127.0.0.1:{port}/ui-settings").json()["default_ui"] == "v1"
        deployment = http.post("/deployments/filter", json={"deployments": {"name": {"any_": ["gated"]}}}).json()[0]["id"]
        parameters = {"mode": "live", "your_name": "ines", "world": str(world)}
        answer = http.post(f"/deployments/{deployment}/create_flow_run", json={"parameters": parameters}).json()
        journal = SqliteJournal(tmp_path / "journal.db")
        run = Run(http, answer["id"], journal, world)
        run.form()
    child = run.pid()
    assert found.stop() == 2
    assert run.journaled().interrupted is not None
    journal.close()
    assert not server.alive
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    with sqlite3.connect(home / "prefect.db") as database:
        shown = database.execute("SELECT state_type, state_name FROM flow_run WHERE id = ?", (str(UUID(run.id)),)).fetchone()
    database.close()
    assert shown == ("CANCELLED", "Interrupted")
