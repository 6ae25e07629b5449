"""Secrets never reach Prefect: a run of its own server with canaries, and a search through its database and every log."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.journal_sqlite import SqliteJournal
from tests.deployments.test_canaries import (
    BY_ENV,
    BY_FILE,
    LEAKING,
    echo_into,
    filled_in,
    leaks,
    make_vault,
    process_list,
    vault_environ,
)
from tests.prefect.conftest import Prefect, Run, serving
from tests.tasks.parties import web

pytestmark = pytest.mark.prefect

RUNBOOK = """schema: failover/v1
name: leaky
title: Say everything
service: shop
owner: me
objectives: {rto: 30m}
recovered_when: move
targets:
  live:
    nobody: {host: 127.0.0.1, port: CLOSED, database: postgres, user: failover, password: "${env.CANARY_PASSWORD}"}
steps:
LEAKING  - {id: move, manual: Move the cables, after: [refused, echoed, illegal], budget: 5m, on_failure: halt}
""".replace("LEAKING", LEAKING)


def test_no_secret_reaches_prefect(prefect: Prefect, tmp_path: Path) -> None:
    vault, folder, place = make_vault(tmp_path / "vault"), tmp_path / "runbooks", tmp_path / "place"
    folder.mkdir()
    place.mkdir()
    environment, heard = {"PREFECT_API_URL": prefect.server.api, **vault_environ(vault)}, list[str]()
    with web(echo_into(heard)) as party, process_list() as seen:
        (folder / "leaky.yaml").write_text(filled_in(RUNBOOK, party.url, vault))
        with serving(folder, place / "journal.db", place / "log", **environment) as served:
            shown = pressed(prefect, place)
            form = shown.form()
            form.resume(decision="done", name="ada")
            assert shown.ended(60) == ("COMPLETED", "Recovered"), served.said()
            execution = shown.execution
            served.stop()
    assert BY_ENV in heard[0]
    assert BY_FILE in heard[0]  # they were used, and came back in answers

    home = Path(prefect.server.home)
    files = [path for root in (home, place, folder) for path in root.rglob("*") if path.is_file()]
    texts = {str(path): path.read_bytes() for path in files} | {f"command line {number}": line for number, line in enumerate(seen)}
    database = [text for name, text in texts.items() if Path(name).name.startswith("prefect.db")]
    assert any(execution.encode() in text for text in database)  # it is the database that this run is in
    assert leaks(texts) == []


def pressed(prefect: Prefect, place: Path) -> Run:
    deployment = prefect.http.post("/deployments/filter", json={"deployments": {"name": {"any_": ["leaky"]}}}).json()[0]
    parameters = {"mode": "live", "your_name": "ines"}
    run = prefect.http.post(f"/deployments/{deployment['id']}/create_flow_run", json={"parameters": parameters}).json()
    return Run(prefect.http, run["id"], SqliteJournal(place / "journal.db"), place)
