"""Two machines that serve the same runbook, each with another Prefect, over one journal on PostgreSQL."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import pytest

from deployments.exits import Exit
from flows.journal import Journal
from tests.deployments.machines import Machine
from tests.deployments.test_command import wait_for
from tests.flows.journals import PostgresPlace
from tests.prefect.conftest import PLUGIN, RUNBOOKS, Prefect, Run, eventually, free_port
from tests.tasks.postgres_nodes import Node

pytestmark = pytest.mark.prefect


class Serving:
    """A machine on which `failover serve` runs."""

    def __init__(self, machine: Machine, api: str, *more: str, **environ: str) -> None:
        machine.environ |= {"PYTHONPATH": str(PLUGIN), "PREFECT_HOME": str(machine.folder / "client"), **environ}
        self.process: subprocess.Popen[str] = machine.start("serve", ".", *more)
        self.http = httpx.Client(base_url=api, timeout=30, trust_env=False)

    def press_run(self, world: Path, journal: Journal) -> Run:
        found = self.http.post("/deployments/filter", json={"deployments": {"name": {"any_": ["shared"]}}}).json()[0]
        parameters = {"mode": "live", "your_name": "ines", "world": str(world)}
        run = self.http.post(f"/deployments/{found['id']}/create_flow_run", json={"parameters": parameters}).json()
        return Run(self.http, run["id"], journal, world)

    def stop(self) -> tuple[int, str]:
        self.http.close()
        self.process.terminate()
        rest = self.process.communicate(timeout=60)[0]
        return self.process.returncode, rest


@contextmanager
def both_serving(east: Machine, west: Machine, prefect: Prefect, home: Path) -> Iterator[tuple[Serving, Serving]]:
    """East with the Prefect of the session, west with a server of its own."""
    port = free_port()
    starting = (
        lambda: Serving(west, f"http://127.0.0.1:{port}/api", "--home", str(home), "--port", str(port)),
        lambda: Serving(east, prefect.server.api, PREFECT_API_URL=prefect.server.api),
    )
    with ExitStack() as ending:
        found = []
        for start in starting:
            found.append(start())
            ending.callback(lambda one=found[-1]: one.process.poll() is None and one.stop())
        for one in found:
            wait_for(one.process, "serving ")
        yield found[1], found[0]


def runbook() -> str:
    """Under a name that nobody else serves, and patient at its gate: two starts of a Prefect on a busy machine."""
    text = (RUNBOOKS / "gated.yaml").read_text()
    for old, new in (("name: gated", "name: shared"), ("rto: 5m", "rto: 30m"), ("timeout: 60s}", "timeout: 10m}")):
        assert old in text
        text = text.replace(old, new)
    return text


def test_what_one_machine_serves_the_other_sees_answers_and_does_not_start_a_second_time(
    journal_server: Node, prefect: Prefect, new_home: Callable[[Path], Path], tmp_path: Path
) -> None:
    place, world = PostgresPlace(journal_server), tmp_path / "world"
    world.mkdir()
    east, west = (Machine(tmp_path / name, place.address, runbook()) for name in ("east", "west"))
    home = new_home(tmp_path / "prefect")
    with both_serving(east, west, prefect, home) as (served_east, served_west), closing(place.open()) as journal:
        run = served_east.press_run(world, journal)
        form = run.form()
        assert run.execution in west.failover("list")
        second = served_west.press_run(world, journal)
        assert second.ended(60) == ("FAILED", "Busy")
        assert run.execution in second.message()
        west.failover("approve", run.execution, "go", "--as", "kim")
        assert run.ended(60) == ("COMPLETED", "Recovered")
        assert eventually(lambda: form.now() == ("COMPLETED", "Approved"))
        assert sorted(run.effects()) == ["fence", "look", "promote", "scale", "smoke"]
        assert second.events() == []
        for command in (("list", "--json"), ("export", run.execution)):
            assert east.failover(*command) == west.failover(*command), command
        for served in (served_east, served_west):
            code, rest = served.stop()
            assert code == Exit.met, rest
