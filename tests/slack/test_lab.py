"""The lab's Slack for people and programs: `failover lab slack`, faults through the control API, a page that is safe."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.demo import LOOK, CardEdited, _answer_gates, _show_slack, watching_card
from deployments.lab import Lab, LabError
from deployments.lab.slack import TOKEN, Bucket, Workspace
from deployments.lab.slack_page import as_page, as_text
from flows.slack_channel import CARD, DETAIL, Label, SlackChannel, SlackTrouble
from flows.slack_limits import Message
from flows.slack_text import fit

NUMBER = 52


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    own = Lab(NUMBER)
    own.down()
    own.up(traffic=False)
    yield own
    own.down()


def command(lab: Lab, *arguments: str) -> str:
    environ = {**os.environ, "FAILOVER_LAB": str(lab.number), "BROWSER": "true", "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-m", "deployments", "lab", *arguments], env=environ, text=True, capture_output=True,
                          check=False, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.lab
def test_what_the_environment_of_the_lab_names_is_shown_to_people_and_fails_on_demand(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nothing was said" in command(lab, "slack")
    environ = lab.environment()
    ours = SlackChannel("#incidents", environ["SLACK_BOT_TOKEN"], environ["SLACK_API_URL"], 5)
    message = Message("*hello* people", ({"type": "section", "text": {"type": "mrkdwn", "text": "*hello* people"}},))
    ts = ours.post(message, Label(CARD, "e1", 1))
    ours.post(Message("in the thread"), Label(DETAIL, "e1", 2), ts)
    said = command(lab, "slack", "--open")
    assert "#incidents: 1 message(s)" in said
    assert "*hello* people" in said
    assert "    |   in the thread" in said
    page = lab.addresses.folder / "slack.html"
    assert f"page {page}" in said
    assert "<b>hello</b> people" in page.read_text()
    assert "https://" not in page.read_text()
    _show_slack(lab)
    assert "1 message(s) in its thread" in capsys.readouterr().out

    command(lab, "slack", "--fault", "down")
    with pytest.raises(SlackTrouble, match="ConnectionRefused"):
        ours.edit(ts, message, Label(CARD, "e1", 3))
    assert "hello" in command(lab, "slack")  # people still see what was said
    lab.break_slack("slow", seconds=0.4)
    begun = time.monotonic()
    assert ours.find("e1", datetime(2026, 1, 1, tzinfo=UTC)) == ts
    assert time.monotonic() - begun > 0.3
    for wrong in ({"fault": "tired"}, {"fault": "slow", "seconds": -1}, {"fault": "slow", "times": 0}):
        with pytest.raises(LabError):
            lab.break_slack(**wrong)
    lab.reset()
    assert lab.slack()["incidents"] == []


def card(state: str) -> Message:
    return Message(state, ({"type": "header", "text": {"type": "plain_text", "text": f"Out &amp; home · {state}"}},))


@pytest.mark.lab
def test_the_demo_tells_each_new_headline_of_the_card_and_no_old_one(lab: Lab) -> None:
    lab.reset()
    environ, told = lab.environment(), queue.SimpleQueue[CardEdited]()
    ours = SlackChannel("#incidents", environ["SLACK_BOT_TOKEN"], environ["SLACK_API_URL"], 5)
    ours.post(card("recovered"), Label(CARD, "e1", 1))
    with watching_card(lab, told.put):
        ts = ours.post(card("running"), Label(CARD, "e2", 1))
        assert told.get(timeout=10).headline == "Out & home · running"
        for number, state in enumerate(["running", "waiting for people"], start=2):
            ours.edit(ts, card(state), Label(CARD, "e2", number))
        assert told.get(timeout=10).headline == "Out & home · waiting for people"
    ours.edit(ts, card("recovered"), Label(CARD, "e2", 4))
    with pytest.raises(queue.Empty):
        told.get(timeout=3 * LOOK)


def test_a_headline_stands_among_the_lines_of_the_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.demo._headline", lambda lab: "")
    notices = queue.SimpleQueue[object]()
    for notice in (CardEdited(datetime(2026, 1, 1, tzinfo=UTC), "Out · waiting for people"), None):
        notices.put(notice)
    _answer_gates(Lab(NUMBER), "e1", notices)
    assert "in Slack: Out · waiting for people" in capsys.readouterr().out


@given(st.text(max_size=300) | st.sampled_from(["<script>alert(1)</script>", "```</pre><img src=x onerror=y>```", "&lt;b&gt;", "`<i>`"]))
@settings(max_examples=200, deadline=None)
def test_no_message_puts_markup_into_the_page(text: str) -> None:
    raw = {"type": "section", "text": {"type": "mrkdwn", "text": text or "-"}}
    message = {"ts": "1767322800.000001", "text": text, "blocks": [raw, {"type": "header", "text": {"type": "plain_text", "text": fit(text, 150) or "-"}}]}
    page = as_page({"incidents": [{**message, "replies": [{**message, "blocks": []}]}]})
    allowed = {"html", "meta", "title", "style", "body", "h1", "div", "span", "b", "code", "pre", "details", "summary", "a"}
    assert {one.lower() for one in re.findall(r"</?([a-zA-Z]+1?)", page.replace("<!doctype html>", ""))} <= allowed
    assert as_text("incidents", [{**message, "replies": []}]).startswith("#incidents: 1")


def test_the_workspace_gives_each_message_a_later_ts_even_within_a_moment() -> None:
    workspace = Workspace()
    stamps = [workspace.call("chat.postMessage", TOKEN, {"channel": "#drills", "text": "x"}, 1_767_322_800.0).body.get("ts") for _ in range(3)]
    assert stamps == sorted(set(stamps))


def test_a_bucket_lets_bursts_through_and_no_more_than_its_rate_after_them() -> None:
    bucket = Bucket(rate=1.0, burst=3)
    assert [bucket.take(100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take(100.0) == pytest.approx(1.0)
    assert bucket.take(101.0) == 0.0
    assert bucket.take(101.5) == pytest.approx(0.5)
