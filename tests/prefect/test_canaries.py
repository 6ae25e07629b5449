"""Secrets never reach Prefect: a run of its own server with canaries, and a search through its database and every log."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.journal_sqlite import SqliteJournal
from tests.deployments.test_canaries import BROKEN, BY_ENV, BY_FILE, KEY, PASSWORD, leaks, process_list
from tests.prefect.conftest import Prefect, Run, serving
from tests.tasks.parties import closed_port, web

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
  - id: refused
    uses: postgres.replication
    with: {standby: "${target.nobody}"}
    budget: 1s
    on_failure: continue
  - id: echoed
    uses: http.smoke_test
    with:
      base: WEB
      rounds: 2
      requests:
        - name: health
          url: /health
          headers: {Authorization: "Bearer ${env.CANARY_ENV}", X-Token: "${file.FILE}"}
          expect: {body: {status: ok}}
    budget: 1s
    on_failure: continue
  - id: illegal
    uses: http.smoke_test
    with:
      base: WEB
      rounds: 1
      requests: [{name: health, url: /health, headers: {X-Token: "${file.BROKEN}"}}]
    budget: 1s
    on_failure: continue
  - {id: move, manual: Move the cables, after: [refused, echoed, illegal], budget: 5m, on_failure: halt}
"""


def test_no_secret_reaches_prefect(prefect: Prefect, tmp_path: Path) -> None:
    vault, folder, place = tmp_path / "vault", tmp_path / "runbooks", tmp_path / "place"
    for made in (vault, folder, place):
        made.mkdir()
    (vault / "token").write_text(BY_FILE)
    (vault / "broken").write_text(f"{BROKEN}\ntwo lines, which no header may have")
    (vault / "journal.key").write_text(KEY)
    environment = {
        "PREFECT_API_URL": prefect.server.api, "CANARY_ENV": BY_ENV, "CANARY_PASSWORD": PASSWORD,
        "FAILOVER_JOURNAL_KEY_FILE": str(vault / "journal.key"),
    }  # fmt: skip
    heard: list[str] = []

    def echo(call: object) -> tuple[int, object]:
        heard.append(str(call.headers))
        return 200, {"status": f"you said {call.headers['Authorization']} and {call.headers['X-Token']}"}

    with web(echo) as party, process_list() as seen:
        text = RUNBOOK.replace("CLOSED", str(closed_port())).replace("WEB", party.url)
        (folder / "leaky.yaml").write_text(text.replace("FILE", str(vault / "token")).replace("BROKEN", str(vault / "broken")))
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
