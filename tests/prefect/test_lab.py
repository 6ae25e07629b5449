"""Run, pressed in the Prefect UI, does the whole failover of the shipped runbook in the lab."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.lab import Lab
from flows.journal_sqlite import SqliteJournal
from runbooks.shipped import find
from tests.prefect.conftest import Prefect, Run, eventually, serving

pytestmark = [pytest.mark.prefect, pytest.mark.lab]


@pytest.fixture
def lab() -> Iterator[Lab]:
    own = Lab(97)
    own.down()
    with own:
        yield own


def test_run_in_prefect_recovers_the_service(lab: Lab, prefect: Prefect, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    text = find("region-failover").read_text().replace("127.77.", f"127.{lab.number}.")
    (folder / "region-failover.yaml").write_text(text)
    environment = {**lab.environment(), "PREFECT_API_URL": prefect.server.api}
    with serving(folder, tmp_path / "journal.db", tmp_path / "log", **environment) as found:
        fault = lab.break_node("primary", "kill")
        deployment = prefect.http.post("/deployments/filter", json={"deployments": {"name": {"any_": ["region-failover"]}}}).json()[0]
        assert deployment["parameter_openapi_schema"]["properties"]["capacity"]["maximum"] == 6
        parameters = {"mode": "live", "your_name": "ines"}
        run = prefect.http.post(f"/deployments/{deployment['id']}/create_flow_run", json={"parameters": parameters}).json()
        journal = SqliteJournal(tmp_path / "journal.db")
        shown = Run(prefect.http, run["id"], journal, tmp_path)
        form = shown.form()
        assert "loss" in form.text()
        form.resume(decision="approve", name="ada", reason="the primary is dead")
        assert shown.ended(90) == ("COMPLETED", "Recovered"), found.said()
        steps = {step.id for step in shown_plan(shown).steps}
        eventually(lambda: set(shown.steps()) == steps)
        assert all(kind == "COMPLETED" for kind, _ in shown.steps().values())
        artifacts = prefect.http.post("/artifacts/filter", json={"flow_runs": {"id": {"any_": [shown.id]}}}).json()
        pages = {one["key"]: one["data"] for one in artifacts}
        assert set(pages) == {"failover-report", "failover-status", "failover-timeline"}
        assert "recovered after" in pages["failover-status"]
        eventually(lambda: lab.traffic_report(fault).first_ack_by_new_primary)
        journal.close()
        assert found.stop() == 0


def shown_plan(run: Run):  # noqa: ANN201
    from flows.runs import replan

    return replan(run.journaled())
