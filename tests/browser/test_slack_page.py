"""The lab's Slack channel as a browser shows it: one card that ends on the truth, with its thread."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageStat

from tests.browser.chromium import Page, chromium, keep, picture
from tests.browser.slack_channel import channel_page


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chromium()
    path = tmp_path_factory.mktemp("page") / "slack.html"
    path.write_text(channel_page(), encoding="utf-8")
    return path


def test_the_card_and_its_thread_are_there_and_nothing_is_asked_for_outside(file: Path) -> None:
    page = Page.of(file)
    for words in ("recovered", "RTA", "P1", "Leave east and make west the primary?", "kim", "promote"):
        assert words in page.dom, words
    assert page.dom.count('class="header"') >= 1
    assert page.said == ()


def test_its_picture_is_no_blank_page(tmp_path: Path) -> None:
    opened = tmp_path / "slack.html"
    opened.write_text(channel_page().replace("<details", "<details open"), encoding="utf-8")
    taken = picture(opened, tmp_path / "slack.png", 1000, 1300)
    with Image.open(taken) as image:
        assert max(ImageStat.Stat(image.convert("L")).stddev) > 10
    keep(taken, "slack.png")
