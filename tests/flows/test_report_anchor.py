"""A report carries the head of its journal and whoever went on without the journal's leases, in every format."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from deployments.reporting import render, write_all
from flows.anchors import anchor, anchors_in, beside, check
from flows.events import Override
from flows.journal_sqlite import SqliteJournal
from flows.report import Source, build, read_source
from flows.report_parts import Report
from tests.flows.reports import HOSTILE, gated, journaled, shipped_report, source

TEXTS = ("md", "json", "html")
NAME = "7f3a09c1"


def ran() -> Source:
    simulation = gated()
    simulation.run()
    return source(simulation.plan, simulation.journal)


@pytest.mark.parametrize("form", TEXTS)
def test_the_anchor_in_a_report_shows_that_the_end_of_the_journal_was_cut_off(tmp_path: Path, form: str) -> None:
    simulation = gated()
    simulation.run()
    report = build(journaled(simulation, tmp_path))
    assert (report.seal.problems, report.seal.unchecked) == ((), ())
    journal = SqliteJournal(tmp_path / "journal.db")
    rows = journal.stored(NAME)
    found = {str(one): one for one in anchors_in(render(report, form).decode())}
    assert [*found] == [report.seal.anchor] == [anchor(journal, NAME)]
    kept = [(one, form) for one in found.values()]
    assert check(kept, rows) == []
    assert check(kept, rows[:-1]) != []
    journal.close()


def test_verification_finds_the_reports_that_a_run_leaves(tmp_path: Path) -> None:
    simulation = gated()
    simulation.run()
    report = build(journaled(simulation, tmp_path))
    write_all(report, tmp_path / "reports")
    assert {str(one) for one, _ in beside(tmp_path, report.seal.journal, [NAME])} == {report.seal.anchor}


def test_a_key_that_is_not_here_is_no_sign_that_the_record_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = gated()
    simulation.run()
    journaled(simulation, tmp_path)
    journal = SqliteJournal(tmp_path / "journal.db")
    monkeypatch.setenv("FAILOVER_JOURNAL_KEY_FILE", str(tmp_path / "no-key"))
    elsewhere = build(read_source(journal, NAME, simulation.plan))
    journal.close()
    assert elsewhere.seal.problems == ()
    assert len(elsewhere.seal.unchecked) == 1
    for form in ("md", "html"):
        said = render(elsewhere, form).decode()
        assert "NOT INTACT" not in said
        assert elsewhere.seal.unchecked[0].partition("'")[0] in said


@pytest.mark.parametrize("form", TEXTS)
def test_whoever_went_on_without_the_leases_stands_in_every_report(form: str) -> None:
    known = ran()
    at = known.events[-1].at + timedelta(seconds=1)
    over = Override(at=at, by="kim", reason="the database is gone", journal="postgresql://x/failover", file="/copies/e.db",
                    host="east-1", last=7, waited=3.0)  # fmt: skip
    report: Report = build(Source(NAME, known.plan, [*known.events, over], known.seal))
    assert len(report.unleased) == 1
    assert build(known).unleased == ()
    for part in ("kim", "east-1", "/copies/e.db", "the database is gone"):
        assert part in report.unleased[0]
    assert "went on from /copies/e.db" in render(report, form).decode()
    hostile = over.model_copy(update={"reason": HOSTILE})
    page = render(build(Source(NAME, known.plan, [*known.events, hostile], known.seal)), form).decode()
    assert form == "json" or "<script" not in page  # JSON is no markup


def test_a_report_that_knows_no_journal_names_no_anchor() -> None:
    known = ran()
    report = build(Source(NAME, known.plan, known.events))
    assert report.seal.anchor == ""
    for form in TEXTS:
        assert anchors_in(render(report, form).decode()) == []
    assert shipped_report().seal.anchor
