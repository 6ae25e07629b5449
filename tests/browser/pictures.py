"""Make the pictures of docs/ again: `python -m tests.browser.pictures` (needs Chromium)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from flows.report_gantt import picture as chart
from flows.report_html import html
from flows.report_png import png
from tests.browser.chromium import picture
from tests.browser.slack_channel import channel_page
from tests.flows.reports import shipped_report

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
WIDTH, HEIGHT = 1180, 2005


def main() -> None:
    """Photograph the report of a rehearsed run, and the channel that was told of it."""
    FOLDER.mkdir(exist_ok=True)
    report = shipped_report()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text(html(report), encoding="utf-8")
        small(picture(page, Path(folder) / "report.png", WIDTH, HEIGHT), FOLDER / "report.png")
        channel = Path(folder) / "slack.html"
        channel.write_text(channel_page().replace("<details", "<details open"), encoding="utf-8")
        small(picture(channel, Path(folder) / "slack.png", 1000, 1300), FOLDER / "slack.png")
    (FOLDER / "report-gantt.png").write_bytes(png(chart(report)))


def small(taken: Path, target: Path) -> None:
    """Keep a picture with a palette: a third of the size."""
    with Image.open(taken) as image:
        image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    main()
