"""One frozen report is the only source of every format, and says the same of the same events for ever."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
from PIL import Image

from flows.events import Answer, GateOpened, Noted, Resumed, StepFinished, StopAsked
from flows.journal import SaidAboutGate
from flows.report import build
from flows.report_gantt import WIDTH, axis_of, forecast_chart, gantt, picture
from flows.report_html import html
from flows.report_parts import Report
from flows.report_png import png
from flows.report_schema import FILE, schema, text
from flows.report_shapes import Box, Stroke, Trail, Words
from flows.report_svg import svg
from flows.report_text import markdown, parts, timeline_text, to_json
from flows.state import fold
from flows.watching import view
from runbooks.model import Mode
from tasks.durations import show_seconds
from tests.flows.reports import HOSTILE, gated, journaled, many, shipped, shipped_report, source
from tests.flows.world import START, Crash, Simulation, Watch, World, failure, make_plan, step


def said(answer: Answer, after: float) -> list:
    return [(START + timedelta(seconds=after), SaidAboutGate(gate="go", answer=answer, by="kim", how="slack-signature", reason="why not"))]


def over(simulation: Simulation) -> Report:
    simulation.run()
    return build(source(simulation.plan, simulation.journal))


def recovered() -> Report:
    return over(gated(letters=said(Answer.approve, 60)))


def refused() -> Report:
    return over(gated(letters=said(Answer.deny, 20)))


def timed_out() -> Report:
    return over(gated())


def failed() -> Report:
    plan = make_plan(step("a"), step("b", after=("a",)), step("c", after=("b",)))
    return over(Simulation(plan, World(fail_acts={"b": [failure()]})))


def rolled_back() -> Report:
    plan = make_plan(step("a"), step("b", after=("a",), on_failure="roll-back"))
    return over(Simulation(plan, World(fail_acts={"b": [failure()]})))


def dry() -> Report:
    return over(Simulation(make_plan(step("a", Watch), mode=Mode.dry_run), World(facts={"a": 1})))


def running() -> Report:
    """It waits at its gate."""
    simulation = gated(crash=lambda what, _: what == "after gate-opened")
    with pytest.raises(Crash):
        simulation.run()
    return build(source(simulation.plan, simulation.journal))


def only_started() -> Report:
    simulation = gated(crash=lambda what, _: what == "before step-started")
    with pytest.raises(Crash):
        simulation.run()
    return build(source(simulation.plan, simulation.journal))


def stopped() -> Report:
    return over(gated(stops=[START + timedelta(seconds=5)]))


def resumed() -> Report:
    simulation = gated(crash=lambda what, _: what == "after gate-opened")
    with pytest.raises(Crash):
        simulation.run()
    at = START + timedelta(minutes=1)
    took = Resumed(at=at, version="0", by="ines", host="b", pid=2, again=())
    simulation = replace(simulation, journal=[*simulation.journal, took], crash=lambda *_: False, letters=said(Answer.approve, 100))
    simulation.world.now = at
    return over(simulation)


KINDS: list[Callable[[], Report]] = [
    recovered, refused, timed_out, failed, rolled_back, dry, running, only_started, stopped, resumed, shipped_report,
]  # fmt: skip


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def report(request: pytest.FixtureRequest) -> Report:
    return request.param()


def test_the_published_schema_is_the_models() -> None:
    assert FILE.read_text(encoding="utf-8") == text()
    assert schema()["properties"]["schema"]["const"] == "failover-report/v1"


def test_the_json_of_every_kind_of_run_fits_the_schema_and_comes_back_as_the_same_report(report: Report) -> None:
    written = json.loads(to_json(report))
    jsonschema.Draft202012Validator(schema()).validate(written)
    assert Report.model_validate(written) == report


def test_every_kind_of_run_is_told_in_every_format(report: Report) -> None:
    page, words = html(report), markdown(report)
    for line in report.steps:
        assert line.step in page
        assert line.step in words
    assert report.verdict in page
    assert report.seal.hash in page
    assert report.seal.hash in words
    assert len(timeline_text(report)) == 1 + len(report.steps) + len(report.gates)
    with Image.open(io.BytesIO(png(picture(report)))) as image:
        assert image.width == 2 * WIDTH


def test_the_parts_of_the_recovery_time_add_up(report: Report) -> None:
    if report.rta is None:
        assert report.recovered is None
    else:
        assert sum(part for _, part in parts(report)) == pytest.approx(report.rta.total)
        assert (report.recovered - report.impact).total_seconds() == pytest.approx(report.rta.total)


def test_nothing_is_drawn_outside_of_the_charts(report: Report) -> None:
    for chart in filter(None, (gantt(report), forecast_chart(report), picture(report))):
        for shape in chart.shapes:
            assert all(0 <= x <= chart.width and 0 <= y <= chart.height for x, y in corners(shape)), shape


def corners(shape: object) -> list[tuple[float, float]]:
    match shape:
        case Box():
            return [(shape.x, shape.y), (shape.x + shape.width, shape.y + shape.height)]
        case Stroke():
            return [(shape.x1, shape.y1), (shape.x2, shape.y2)]
        case Trail():
            return list(shape.points)
        case Words():
            return [(shape.x, shape.y)]
    raise AssertionError(shape)


# -- what it says


def test_peoples_time_is_apart_from_the_work_and_both_are_drawn() -> None:
    report = recovered()
    fence = next(line for line in report.steps if line.step == "fence")
    assert fence.waited == pytest.approx(60, abs=0.5)
    assert fence.actual < 1
    assert report.people == pytest.approx(60, abs=0.5)
    axis, boxes = axis_of(report), [shape for shape in gantt(report).shapes if isinstance(shape, Box)]
    minute = axis.x(START + timedelta(seconds=60)) - axis.x(START)
    lane = next(box for box in boxes if box.kind == "people" and box.note.startswith("gate go"))
    assert lane.width == pytest.approx(minute, abs=2)
    assert all(box.width < minute / 10 for box in boxes if box.kind == "done")


def test_who_watches_sees_the_same_times_as_the_report_tells() -> None:
    """Also while people are still waited for: the live view and the card in Slack are made of it."""
    simulation = gated(letters=said(Answer.approve, 60))
    simulation.run()
    asked = next(event.at for event in simulation.journal if isinstance(event, GateOpened))
    state = fold(event for event in simulation.journal if event.at <= asked)
    (waiting,) = [one for one in view(simulation.plan, state, asked + timedelta(seconds=50), {}).steps if one.step == "fence"]
    assert waiting.status == "waits"
    assert float(waiting.actual.split()[0]) < 1
    ended = view(simulation.plan, fold(simulation.journal), simulation.journal[-1].at, {})
    told = build(source(simulation.plan, simulation.journal)).steps
    assert [one.actual for one in ended.steps] == [show_seconds(timedelta(seconds=one.actual)) for one in told]


def test_a_bar_is_as_long_as_the_work_and_its_outline_as_the_budget() -> None:
    plan = make_plan(step("a", with_={"takes": 4.0}), step("b", after=("a",), with_={"takes": 15.0}))
    report = over(Simulation(plan, World()))
    axis, boxes = axis_of(report), [shape for shape in gantt(report).shapes if isinstance(shape, Box)]
    second = (axis.x(START + timedelta(seconds=10)) - axis.x(START)) / 10
    within, late = (next(box for box in boxes if box.kind == kind) for kind in ("done", "late"))
    budgets = [box for box in boxes if box.kind == "budget"]
    assert within.width / second == pytest.approx(report.steps[0].actual, abs=0.2)
    assert late.width / second == pytest.approx(report.steps[1].actual, abs=0.2)
    assert [box.width / second for box in budgets] == [pytest.approx(10, abs=0.2)] * 2
    assert late.x == pytest.approx(within.x + within.width, abs=2)


def test_a_budget_that_is_longer_than_the_chart_is_drawn_open() -> None:
    plan = make_plan(step("a", budget=timedelta(hours=1)))
    chart = gantt(over(Simulation(plan, World())))
    assert [shape.open for shape in chart.shapes if isinstance(shape, Box) and shape.kind == "budget"] == [True]
    assert '<path class="budget"' in svg(chart)
    assert '<rect class="budget"' in svg(gantt(shipped_report()))


def test_an_approval_says_who_how_known_when_and_why() -> None:
    answer = recovered().answers[0]
    assert (answer.by, answer.how, answer.reason) == ("kim", "slack-signature", "why not")
    assert answer.at == START + timedelta(seconds=60)
    assert recovered().gates[0].evidence


def test_what_cannot_be_undone_is_told_and_only_of_what_was_done() -> None:
    assert [one.step for one in recovered().lasting] == ["fence", "promote"]
    assert refused().lasting == ()


def test_the_forecast_ends_where_recovery_came_and_moves_between_events_too() -> None:
    report = shipped_report()
    assert report.expectations[-1].recovery == report.recovered
    scaling = [one for one in report.expectations if 20 < (one.at - report.impact).total_seconds() < 80]
    assert len(scaling) > 10
    assert len({one.recovery for one in scaling}) > 2


def test_a_stop_the_kill_switch_and_notes_are_told() -> None:
    simulation = gated(letters=said(Answer.approve, 5))
    simulation.run()
    events = [*simulation.journal]
    events[3:3] = [StopAsked(at=START, by="kill switch", reason="* is halted by bo"), Noted(at=START, by="bo", text="looked at it")]
    found = build(source(simulation.plan, events)).interventions
    assert [(one.what, one.by) for one in found] == [("kill switch", "kill switch"), ("note", "bo")]
    assert [one.what for one in stopped().interventions] == ["stop", "interrupted"]
    assert [one.what for one in resumed().interventions] == ["resumed"]


def test_an_attempt_whose_process_died_is_drawn_until_it_was_last_heard_of() -> None:
    fence = next(line for line in resumed().steps if line.step == "fence")
    assert [one.status for one in fence.tries] == ["interrupted", "done"]
    assert fence.tries[0].end < START + timedelta(seconds=1)


def test_loss_is_told_as_the_range_that_the_steps_measured() -> None:
    before, after = shipped_report().losses
    assert (before.step, before.at_least, before.at_most) == ("replication", 0.0, 1.42)
    assert (after.step, after.at_most) == ("promote", 0.61)
    page = html(shipped_report())
    assert "0.61 s" in page


def test_the_report_is_sealed_by_the_journals_last_hash_and_a_changed_journal_is_told(tmp_path: Path) -> None:
    import sqlite3

    simulation = gated(letters=said(Answer.approve, 5))
    simulation.run()
    sealed = build(journaled(simulation, tmp_path)).seal
    assert (sealed.events, len(sealed.hash), sealed.problems) == (len(simulation.journal), 64, ())
    with sqlite3.connect(tmp_path / "journal.db") as other:
        other.execute("DROP TRIGGER events_stay")
        other.execute("UPDATE events SET body = replace(body, 'kim', 'eve')")
    other.close()
    from flows.journal_sqlite import SqliteJournal
    from flows.report import read_source

    journal = SqliteJournal(tmp_path / "journal.db")
    found = build(read_source(journal, "7f3a09c1", simulation.plan))
    journal.close()
    assert found.seal.problems
    assert "NOT INTACT" in html(found)
    assert "NOT INTACT" in markdown(found)


# -- what it withstands


def test_hostile_text_becomes_no_markup_in_any_format() -> None:
    simulation = gated(letters=[(START, SaidAboutGate(gate="go", answer=Answer.approve, by=HOSTILE, reason=f"![x](http://example.org) | {HOSTILE}\n```\n# x"))])
    simulation.run()
    events = [event.model_copy(update={"detail": HOSTILE}) if isinstance(event, StepFinished) else event for event in simulation.journal]
    events[0] = events[0].model_copy(update={"title": HOSTILE, "service": HOSTILE, "initiator": HOSTILE})
    report = build(source(simulation.plan, events))
    page, words, drawing = html(report), markdown(report), svg(gantt(report))
    assert "<script" not in page + words + drawing
    assert "<img" not in page + words + drawing
    assert "![" not in words
    assert json.loads(to_json(report))["title"] == HOSTILE
    assert len(png(picture(report))) < 200_000


def test_five_hundred_steps_are_drawn_each_and_the_files_stay_small() -> None:
    report = over(many(500))
    assert sum(shape.kind == "budget" for shape in gantt(report).shapes if isinstance(shape, Box)) == 500
    assert len(html(report)) < 2_000_000
    with Image.open(io.BytesIO(png(picture(report)))) as image:
        assert image.height < 10_000
        assert len(image.tobytes()) > 0
    assert len(report.expectations) <= 110


@pytest.mark.parametrize("before", [timedelta(seconds=1), timedelta(hours=30)])
def test_an_impact_long_ago_and_an_rto_far_away_leave_the_work_readable(before: timedelta) -> None:
    plan, simulation = shipped()
    simulation.run()
    events = [event.model_copy(update={"when": START - before}) if event.kind == "marked" and event.mark == "impact" else event for event in simulation.journal]
    report = build(source(replace(plan, rto=timedelta(days=3)), events))
    work = [shape.width for shape in gantt(report).shapes if isinstance(shape, Box) and shape.kind == "done"]
    assert max(work) > WIDTH / 10
