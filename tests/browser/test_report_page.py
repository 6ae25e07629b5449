"""The report as a browser shows it: everything is there, nothing runs, nothing is asked for outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from flows.report import build
from flows.report_gantt import picture as gantt
from flows.report_html import html
from flows.report_png import png
from tests.browser.chromium import Page, chromium, keep, paper, picture
from tests.flows.reports import HOSTILE, gated, shipped_report, source


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chromium()
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html(shipped_report()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(file: Path) -> Page:
    return Page.of(file)


class Outline(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str, kind: str | None = None) -> int:
        return sum(name == tag and (kind is None or kind in (values.get("class") or "").split()) for name, values in self.tags)


def test_every_step_has_a_budget_a_bar_and_a_row_and_the_gate_has_a_lane(page: Page) -> None:
    shown = Outline(page.dom)
    steps = len(shipped_report().steps)
    assert shown.count("rect", "budget") == steps
    assert shown.count("rect", "done") >= steps
    assert shown.count("rect", "people") >= 1
    assert shown.count("polyline", "forecast") >= 1
    assert len(re.findall(r'<th scope="row">(?:detect|assess|replication|scale|fence|promote|dns|smoke)', page.dom)) >= steps


def test_the_browser_has_nothing_to_complain_of(page: Page) -> None:
    assert page.said == ()


def test_the_page_fills_the_window_by_day_by_night_and_is_not_wider_than_it(file: Path, tmp_path: Path) -> None:
    day = picture(file, tmp_path / "day.png", 1180, 1000)
    night = picture(file, tmp_path / "night.png", 1180, 1000, "--force-dark-mode", "--blink-settings=preferredColorScheme=0")
    bright, dark = (ImageStat.Stat(Image.open(path).convert("L")) for path in (day, night))
    assert bright.mean[0] > 200
    assert dark.mean[0] < 80
    assert min(bright.stddev[0], dark.stddev[0]) > 10  # not blank
    keep(picture(file, tmp_path / "whole.png", 1180, 2005), "report.png")


def test_its_chart_alone_is_a_picture_that_can_be_sent(tmp_path: Path) -> None:
    chart = tmp_path / "gantt.png"
    chart.write_bytes(png(gantt(shipped_report())))
    with Image.open(chart) as image:
        assert max(ImageStat.Stat(image.convert("L")).stddev) > 10
    keep(chart, "report-gantt.png")


def test_it_is_printed_on_a_few_pages(file: Path, tmp_path: Path) -> None:
    printed = paper(file, tmp_path / "report.pdf").read_bytes()
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 5


def test_what_was_journaled_cannot_run_load_or_break_the_page(tmp_path: Path) -> None:
    simulation = gated()
    simulation.world.fail_acts["fence"] = []
    simulation.run()
    first = simulation.journal[0].model_copy(update=dict.fromkeys(("title", "service", "reason", "initiator", "channel", "version"), HOSTILE))
    report = build(source(simulation.plan, [first, *simulation.journal[1:]]))
    path = tmp_path / "hostile.html"
    path.write_text(html(report), encoding="utf-8")
    found = Page.of(path)
    shown = Outline(found.dom)
    assert found.said == ()
    assert [shown.count(tag) for tag in ("script", "img", "iframe", "link", "object")] == [0, 0, 0, 0, 0]
    assert not any({"src", "href", "srcset", "data"} & set(values) for _, values in shown.tags)
    assert shown.text.count("<script>alert(1)</script>") >= 5
    assert not any(name.startswith("on") for _, values in shown.tags for name in values)
