"""Reports as the command leaves them, and history as people see it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import jsonschema
import pytest

from deployments.reporting import FORMATS
from flows.report_schema import schema
from tests.deployments.test_command import failover

LOOK = """schema: failover/v1
name: look
title: See that nobody answers
service: shop
owner: me
objectives: {rto: 5m}
recovered_when: look
steps:
  - id: look
    uses: detect.outage
    with:
      signals: {port: {tcp: {host: 127.59.0.9, port: 9}}}
      agree: 1
    on_failure: halt
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the same runbook ran three times, and once more."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "look.yaml").write_text(LOOK)
    for _ in range(4):
        failover(folder, "run", "look.yaml", "--live", "--plain")
    return folder


def test_a_run_leaves_its_report_in_every_format_for_its_owner_only(folder: Path) -> None:
    files = sorted((folder / "reports").iterdir())
    assert len(files) == 4 * len(FORMATS)
    assert {path.suffix[1:] for path in files} == set(FORMATS)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    for path in files:
        if path.suffix == ".json":
            jsonschema.Draft202012Validator(schema()).validate(json.loads(path.read_text()))


def test_three_earlier_runs_are_seen_in_the_report_the_plan_and_the_status(folder: Path) -> None:
    report = json.loads(failover(folder, "report", "--format", "json"))
    assert report["steps"][0]["expected_from"] == "from 3 runs"
    assert 0 < report["steps"][0]["expected"] < 30
    planned = json.loads(failover(folder, "plan", "look.yaml", "--json"))["steps"][0]
    assert (planned["runs"], planned["expected_from"]) == (4, "from 4 runs")
    assert "from 4 runs" in failover(folder, "plan", "look.yaml")
    assert json.loads(failover(folder, "status", "--json"))["forecast_from"]["look"].endswith("from 3 runs")


def test_a_report_is_written_where_one_asks_for_it(folder: Path, tmp_path: Path) -> None:
    failover(folder, "report", "--format", "all", "-o", str(tmp_path / "all"))
    assert {path.suffix[1:] for path in (tmp_path / "all").iterdir()} == set(FORMATS)
    failover(folder, "report", "--format", "png", "-o", str(tmp_path / "one.png"))
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    failover(folder, "report", "--format", "html", "-o", str(tmp_path / "no" / "such.html"), expect=2)


def test_a_plan_needs_no_journal_and_makes_none(tmp_path: Path) -> None:
    (tmp_path / "look.yaml").write_text(LOOK)
    assert "budget" in failover(tmp_path, "plan", "look.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["look.yaml"]
    (tmp_path / "journal.db").write_text("this is no database, and never was one")
    assert "history: journal" in failover(tmp_path, "plan", "look.yaml")
    assert "history: " in failover(tmp_path, "plan", "look.yaml", "--journal", "postgresql://nobody@127.59.0.9:9/none")
