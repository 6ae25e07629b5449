"""slack_sdk's own client against the lab's Slack over HTTP: what the program relies on, and every way it can go wrong."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from deployments.lab.addresses import Endpoint
from deployments.lab.slack import TOKEN
from deployments.lab.slack_server import Fault, SlackServer
from flows.slack_channel import AGAIN, CARD, DETAIL, FIXABLE, Label, Posted, SlackChannel, SlackTrouble
from flows.slack_limits import Message

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
HELLO = Message("hello", ({"type": "section", "text": {"type": "mrkdwn", "text": "*hello*"}},))


@pytest.fixture
def slack() -> Iterator[SlackServer]:
    server = SlackServer(Endpoint("127.0.0.1", 0))
    server.open()
    yield server
    server.close()


def channel(slack: SlackServer, name: str = "#incidents", token: str = TOKEN, timeout: float = 5.0) -> SlackChannel:
    return SlackChannel(name, token, slack.url, timeout)


def label(number: int, kind: str = CARD, execution: str = "e1") -> Label:
    return Label(kind, execution, number)


def test_a_message_is_posted_edited_found_and_read_by_another_process(slack: SlackServer) -> None:
    first = channel(slack)
    ts = first.post(HELLO, label(1))
    assert re.fullmatch(r"\d{10}\.\d{6}", ts)
    first.post(Message("other"), label(1, execution="e2"))
    first.post(HELLO, label(2, DETAIL), ts)
    first.edit(ts, Message("changed", HELLO.blocks), label(3))
    other = channel(slack)
    assert other.find("e1", SINCE) == ts
    assert other.find("e3", SINCE) is None
    assert other.read(ts, "e1") == Posted(card=3, thread=2)
    assert other.read("1700000000.000001", "e1") is None
    told = slack.workspace.seen()["incidents"]
    assert [(one["text"], len(one["replies"])) for one in told] == [("changed", 1), ("other", 0)]


def test_a_card_is_found_behind_many_pages_of_other_messages(slack: SlackServer) -> None:
    ts = channel(slack).post(HELLO, label(1))
    message = slack.workspace.messages["C0INCIDENTS"][0]
    filler = [{**message, "ts": f"{time.time() + number:.6f}", "metadata": {}} for number in range(1, 900)]
    slack.workspace.messages["C0INCIDENTS"] += filler
    assert channel(slack).find("e1", SINCE) == ts


def test_a_channel_id_spares_the_look_up(slack: SlackServer) -> None:
    assert channel(slack, "C0INCIDENTS").find("e1", SINCE) is None
    assert [call.method for call in slack.workspace.calls] == ["conversations.history"]


def test_a_dropped_connection_is_unclear_and_the_client_does_not_post_again(slack: SlackServer) -> None:
    slack.suffer(Fault("drop", times=1))
    trouble = refused(lambda: channel(slack).post(HELLO, label(1)))
    assert trouble.unclear
    assert len(slack.workspace.seen()["incidents"]) == 1


def test_a_time_out_is_unclear(slack: SlackServer) -> None:
    slack.suffer(Fault("slow", seconds=1.5))
    begun = time.monotonic()
    trouble = refused(lambda: channel(slack, timeout=0.3).post(HELLO, label(1)))
    assert trouble.unclear
    assert time.monotonic() - begun < 1.2


def test_a_slow_answer_is_an_answer(slack: SlackServer) -> None:
    slack.suffer(Fault("slow", seconds=0.5, times=1))
    assert channel(slack).post(HELLO, label(1))


def test_a_rate_limit_says_how_long_to_wait_and_nothing_was_done(slack: SlackServer) -> None:
    slack.suffer(Fault("rate-limit", seconds=7, times=1))
    trouble = refused(lambda: channel(slack).post(HELLO, label(1)))
    assert (trouble.wait, trouble.unclear, trouble.code) == (7.0, False, "ratelimited")
    assert slack.workspace.seen()["incidents"] == []


def test_the_workspace_itself_limits_posts_to_one_a_second(slack: SlackServer) -> None:
    ours = channel(slack)
    troubles = [one for one in (attempt(lambda: ours.post(HELLO, label(1))) for _ in range(6)) if one is not None]
    assert len(troubles) >= 2
    assert {one.code for one in troubles} == {"ratelimited"}
    assert all(1 <= one.wait <= 2 for one in troubles)


def test_down_is_clear_nothing_left_us(slack: SlackServer) -> None:
    slack.suffer(Fault("down"))
    trouble = refused(lambda: channel(slack).post(HELLO, label(1)))
    assert (trouble.unclear, trouble.wait) == (False, AGAIN)


def test_reads_that_fail_leave_nothing_in_doubt(slack: SlackServer) -> None:
    slack.suffer(Fault("drop", times=1))
    assert not refused(lambda: channel(slack, "C0INCIDENTS").find("e1", SINCE)).unclear


@pytest.mark.parametrize(
    ("name", "token", "code"),
    [("#nowhere", TOKEN, "channel_not_found"), ("#incidents", "xoxb-wrong-canary", "invalid_auth")],
)
def test_what_a_person_can_mend_is_named_tried_seldom_and_shows_no_token(slack: SlackServer, name: str, token: str, code: str) -> None:
    ours = channel(slack, name, token)
    trouble = refused(lambda: ours.post(HELLO, label(1)))
    assert trouble.code == code
    assert trouble.wait == FIXABLE
    assert "canary" not in f"{trouble!r} {trouble} {ours!r} {vars(trouble)}"


def test_a_missing_scope_is_named(slack: SlackServer) -> None:
    slack.workspace.scopes = frozenset({"chat:write", "channels:read"})
    assert "needs channels:history" in str(refused(lambda: channel(slack).find("e1", SINCE)))


def test_too_many_blocks_are_told_from_other_refusals(slack: SlackServer) -> None:
    ours = channel(slack)
    assert refused(lambda: ours.post(Message("x", ({"type": "divider"},) * 51), label(1))).too_much
    assert refused(lambda: ours.post(Message("x" * 4001), label(1))).too_much
    assert not refused(lambda: ours.post(HELLO, label(1), "1700000000.000001")).too_much


def test_an_answer_that_is_no_json_is_unclear() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        import threading

        def serve() -> None:
            connection, _ = listening.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\nConnection: close\r\n\r\nproxy")
            connection.close()

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api/"
        assert refused(lambda: SlackChannel("#incidents", TOKEN, url, 5).post(HELLO, label(1))).unclear


def refused(call) -> SlackTrouble:
    trouble = attempt(call)
    assert trouble is not None
    return trouble


def attempt(call) -> SlackTrouble | None:
    try:
        call()
    except SlackTrouble as trouble:
        return trouble
    return None
