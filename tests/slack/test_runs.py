"""Real runs beside a Slack that fails in every way: they take no longer, and Slack has all of it in the end, once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from deployments.lab.addresses import Endpoint
from deployments.lab.slack import TOKEN
from deployments.lab.slack_server import Fault, SlackServer
from deployments.slack import open_channel, tell_left_over, tell_slack
from deployments.slack_marks import Marks
from flows.anchors import anchor, anchors_in
from flows.clock import SystemClock
from flows.engine import Engine
from flows.events import Verdict
from flows.journal_sqlite import SqliteJournal
from flows.runs import Request, start
from flows.slack_channel import SlackChannel
from flows.slack_outbox import Outbox, Timing
from flows.slack_story import story_of
from runbooks.loader import load_text
from runbooks.model import Mode
from runbooks.planner import plan
from tasks import registry
from tests.flows.world import WORLD, Fact, Set, World

MANUAL = """schema: failover/v1
name: by-hand
title: Move it by hand
service: shop
owner: me
objectives: {rto: 30m}
recovered_when: look
comms: {slack: "#incidents"}
steps:
  - {id: move, title: Move the cables, manual: Move the cables from A to B, budget: 5m, on_failure: halt}
  - {id: look, manual: Look whether the lights are green, budget: 1m, on_failure: halt}
"""
QUICK = Timing(pace=0.05, settle=0.1, late=0.2, refresh=0.5, longest=0.3)
FAULTS = {
    "healthy": Fault(), "slow": Fault("slow", seconds=1.0), "rate-limited": Fault("rate-limit", seconds=1), "dropping": Fault("drop"),
    "down": Fault("down"),
}  # fmt: skip


class Quick(Set):
    """A change that its looks see done after 20 ms, and that says its secret wherever it can."""

    name: ClassVar[str] = "test.quick"
    interval: ClassVar[Any] = Set.interval / 25
    secret: SecretStr = SecretStr("")

    def describe(self, before: Fact) -> str:
        return f"with {self.secret.get_secret_value()}"

    def explain(self, state: Fact) -> str:
        return f"saw {self.secret.get_secret_value()}"


def steps_text(count: int = 8, more: str = "") -> str:
    lines = ["schema: failover/v1", "name: quick", "title: Quick", "service: shop", "owner: me", "objectives: {rto: 5m}",
             f"recovered_when: s{count - 1}", 'comms: {slack: "#incidents"}', "steps:"]  # fmt: skip
    lines += [f"  - {{id: s{number}, uses: test.quick, with: {{fact: f{number}{more}}}, budget: 5s}}" for number in range(count)]
    return "\n".join(lines) + "\n"


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setitem(registry.OURS, "test.quick", f"{__name__}:Quick")
    WORLD[0] = World(real=True)
    return WORLD[0]


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackServer]:
    server = SlackServer(Endpoint("127.0.0.1", 0))
    server.open()
    monkeypatch.setenv("SLACK_API_URL", server.url)
    monkeypatch.setenv("SLACK_BOT_TOKEN", TOKEN)
    yield server
    server.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(tmp_path / "journal.db")
    yield journal
    journal.close()


@dataclass
class Told:
    """An engine and its outbox, each on a thread, with paces short enough for a test."""

    journal: SqliteJournal
    slack: SlackServer
    text: str = field(default_factory=steps_text)
    environ: dict[str, str] = field(default_factory=dict)
    timeout: float = 5.0
    execution: str = ""
    thread: threading.Thread | None = None

    def run(self) -> float:
        """Carry it out; give how long the engine took. Slack may be behind by then."""
        planned = plan(load_text(self.text, "quick.yaml"), mode=Mode.live, inputs={}, environ=self.environ)
        engine: Engine = start(self.journal, Request(planned, "ines", "test"), SystemClock(), self.environ)
        self.execution = engine.execution
        notices: Any = engine.subscribe()
        story = story_of(engine.execution, planned, [event for _, event in self.journal.read(engine.execution)])
        outbox = Outbox(story, SlackChannel("#incidents", TOKEN, self.slack.url, self.timeout), fresh=True, timing=QUICK)
        self.thread = threading.Thread(target=outbox.run, args=(notices,), daemon=True)
        self.thread.start()
        begun = time.monotonic()
        assert engine.run().verdict is Verdict.recovered
        return time.monotonic() - begun

    def told(self, seconds: float = 20) -> None:
        assert self.thread is not None
        self.thread.join(seconds)
        assert not self.thread.is_alive()


def whole(slack: SlackServer, count: int) -> list[dict[str, Any]]:
    """The one card shows the end, and each step's end stands in the thread once, in order. Gives the thread."""
    (card,) = slack.workspace.seen()["incidents"]
    assert "recovered" in card["text"]
    said = "\n".join(block["text"]["text"] for one in card["replies"] for block in one["blocks"])
    assert re.findall(r"(s\d+): DONE", said) == [f"s{number}" for number in range(count)]
    numbers = [one["metadata"]["event_payload"]["number"] for one in card["replies"]]
    assert numbers == sorted(set(numbers))
    return card["replies"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_slack_delays_no_step_and_has_everything_once_and_in_order_when_it_returns(
    journal: SqliteJournal, slack: SlackServer, fault: str
) -> None:
    run = Told(journal, slack)
    slack.suffer(FAULTS[fault])
    assert run.run() < 1.0
    time.sleep(0.5)
    slack.suffer(Fault())
    run.told()
    whole(slack, 8)


def test_time_outs_repeat_nothing(journal: SqliteJournal, slack: SlackServer) -> None:
    run = Told(journal, slack, timeout=0.2)
    slack.suffer(Fault("slow", seconds=0.3))  # done all the same, after the client has given up
    run.run()
    time.sleep(2)
    slack.suffer(Fault())
    run.told()
    whole(slack, 8)


def test_no_secret_reaches_slack(journal: SqliteJournal, slack: SlackServer) -> None:
    run = Told(journal, slack, steps_text(2, ", secret: '${env.CANARY}'"), {"CANARY": "canary-3f9a"})
    run.run()
    run.told()
    assert "saw ***" in str(whole(slack, 2))
    assert "canary" not in str(slack.workspace.seen())
    assert TOKEN not in str(slack.workspace.seen())
    assert all(TOKEN not in event.model_dump_json() for _, event in journal.read(run.execution))


def test_two_tellers_never_tell_at_once(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "slack")
    with marks.hold("e1", wait=False) as first:
        assert first is not None
        with marks.hold("e1", wait=False) as second:
            assert second is None
        first.done()
    assert marks.left() == []
    with marks.hold("e1", wait=False) as third:
        assert third is not None


def test_whoever_waited_for_a_teller_that_was_done_holds_the_mark_anew(tmp_path: Path) -> None:
    marks, got = Marks(tmp_path / "slack"), []

    def wait() -> None:
        with marks.hold("e1", wait=True) as hold:
            got.append(hold.path.exists())

    with marks.hold("e1", wait=False) as first:
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.1)
        first.done()
    waiting.join(5)
    assert got == [True]


def test_without_a_token_or_a_channel_a_run_says_at_most_one_line(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLACK_BOT_TOKEN", raising=False)
    for text, lines in ((steps_text(1), 1), (steps_text(1).replace('comms: {slack: "#incidents"}\n', ""), 0)):
        planned = plan(load_text(text, "quick.yaml"), mode=Mode.live, inputs={})
        engine = start(journal, Request(planned, "ines", "test"), SystemClock())
        assert tell_slack(engine, journal) is None
        assert engine.run().verdict is Verdict.recovered
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_an_end_that_is_told_late_carries_the_anchor_though_the_runs_own_connection_is_closed(
    tmp_path: Path, slack: SlackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", TOKEN)
    monkeypatch.setenv("SLACK_API_URL", slack.url)
    journal = SqliteJournal(tmp_path / "closed.db")
    planned = plan(load_text(steps_text(1), "quick.yaml"), mode=Mode.live, inputs={})
    engine = start(journal, Request(planned, "ines", "test"), SystemClock())
    slack.suffer(Fault("slow", seconds=1.0))
    telling = tell_slack(engine, journal)
    assert telling is not None
    assert engine.run().verdict is Verdict.recovered
    head = anchor(journal, engine.execution)
    journal.close()
    slack.suffer(Fault())
    telling.last_words(20)
    (card,) = slack.workspace.seen()["incidents"]
    assert head in str(card["blocks"])


# -- the command, in processes of its own


@dataclass
class Stage:
    """A folder with a runbook, and a Slack beside it."""

    folder: Path
    slack: SlackServer

    def environment(self) -> dict[str, str]:
        known = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "FAILOVER"))}
        return {**known, "FAILOVER_JOURNAL": str(self.folder / "journal.db"), "PYTHONSAFEPATH": "1"}

    def failover(self, *arguments: str, expect: int = 0) -> str:
        done = subprocess.run([sys.executable, "-m", "deployments", *arguments], cwd=self.folder, text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, check=False, timeout=60, env=self.environment())  # fmt: skip
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-m", "deployments", *arguments], cwd=self.folder, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environment())  # fmt: skip

    def card(self) -> dict[str, Any]:
        (card,) = self.slack.workspace.seen()["incidents"]
        return card

    def said(self) -> str:
        return str(self.slack.workspace.seen()["incidents"])


@pytest.fixture
def stage(tmp_path: Path, slack: SlackServer) -> Stage:
    (tmp_path / "by-hand.yaml").write_text(MANUAL)
    return Stage(tmp_path, slack)


def wait_for(child: subprocess.Popen[str], word: str) -> str:
    said = ""
    for line in child.stdout or ():
        said += line
        if word in line:
            return re.search(r"execution ([0-9a-f]+)", said)[1] if "execution" in said else ""
    raise AssertionError(f"it never said {word!r}:\n{said}")


def eventually(holds: Callable[[], object], seconds: float = 20.0) -> object:
    until = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < until, "not so in time"
        time.sleep(0.02)
    return value


def test_a_run_is_told_while_it_goes_on_and_its_end_before_the_command_returns(stage: Stage) -> None:
    run = stage.start("run", "by-hand.yaml", "--drill", "--as", "ines")
    execution = wait_for(run, "GATE move")
    eventually(lambda: "failover approve" in stage.said())
    assert "DRILL" in stage.card()["text"]
    stage.failover("approve", execution, "move", "--as", "kim", "--reason", "cables moved")
    wait_for(run, "GATE look")
    stage.failover("approve", execution, "look", "--as", "kim")
    out, _ = run.communicate(timeout=20)
    assert run.returncode == 0, out
    assert "not everything is told" not in out
    assert "recovered" in stage.card()["text"]
    assert "cables moved" in str(stage.card()["replies"])
    (anchor,) = {str(one) for one in anchors_in(out)}
    assert anchor in str(stage.card()["blocks"])
    assert anchor in str(stage.card()["replies"][-1])
    assert "intact" in stage.failover("verify-journal", execution, "--anchor", anchor)
    assert Marks(stage.folder / "slack").left() == []
    times = [call.at for call in stage.slack.workspace.calls if call.method.startswith("chat.")]
    assert min(later - earlier for earlier, later in pairwise(times)) > 1.0


def test_down_for_the_whole_run_the_command_ends_and_another_one_tells_it_later_once(stage: Stage) -> None:
    stage.slack.suffer(Fault("down"))
    run = stage.start("run", "by-hand.yaml", "--live")
    execution = wait_for(run, "GATE move")
    begun = time.monotonic()
    stage.failover("deny", execution, "move", "--as", "kim", "--reason", "no cables")
    out, _ = run.communicate(timeout=20)
    assert time.monotonic() - begun < 8
    assert run.returncode == 1, out
    assert f"failover slack {execution}" in out
    assert Marks(stage.folder / "slack").left() == [execution]
    assert "does not have all of it yet" in stage.failover("slack", "--patience", "0.5", expect=1)
    stage.slack.suffer(Fault())
    assert "has all of it" in stage.failover("slack", execution)
    before = stage.slack.workspace.seen()
    assert "failed" in stage.card()["text"]
    (anchor,) = {str(one) for one in anchors_in(out)}
    assert [anchor in str(one["blocks"]) for one in (stage.card(), stage.card()["replies"][-1])] == [True, True]
    assert str([one["blocks"] for one in stage.card()["replies"]]).count("kim says deny: no cables") == 1
    assert Marks(stage.folder / "slack").left() == []
    stage.failover("slack", execution)
    assert stage.slack.workspace.seen() == before


def test_a_killed_engine_resumed_by_another_process_edits_the_same_card(stage: Stage) -> None:
    first = stage.start("run", "by-hand.yaml", "--live")
    execution = wait_for(first, "GATE move")
    eventually(lambda: stage.said().count("failover approve") > 1)
    ts, told = stage.card()["ts"], len(stage.card()["replies"])
    first.send_signal(signal.SIGKILL)
    first.communicate()
    again = stage.start("resume", execution)
    wait_for(again, "GATE move")
    stage.failover("approve", execution, "move", "--as", "kim")
    wait_for(again, "GATE look")
    stage.failover("approve", execution, "look", "--as", "kim")
    out, _ = again.communicate(timeout=20)
    assert again.returncode == 0, out
    assert stage.card()["ts"] == ts
    assert "recovered" in stage.card()["text"]
    assert len(stage.card()["replies"]) > told
    numbers = [one["metadata"]["event_payload"]["number"] for one in stage.card()["replies"]]
    assert numbers == sorted(set(numbers))


def test_what_a_dead_process_left_untold_is_told_by_a_process_that_serves(stage: Stage) -> None:
    stage.slack.suffer(Fault("down"))
    run = stage.start("run", "by-hand.yaml", "--live")
    execution = wait_for(run, "GATE move")
    marks, journal = Marks(stage.folder / "slack"), SqliteJournal(stage.folder / "journal.db")
    eventually(lambda: marks.left() == [execution])
    stage.slack.suffer(Fault())
    tell_left_over(journal, threading.Event())  # the run lives, and tells by itself
    eventually(stage.slack.workspace.seen)
    eventually(lambda: "Who may answer" in stage.said())
    stage.slack.suffer(Fault("down"))
    run.send_signal(signal.SIGKILL)
    run.communicate()
    before = stage.card()
    stage.slack.suffer(Fault())
    tell_left_over(journal, threading.Event())
    assert stage.card()["ts"] == before["ts"]
    assert "nobody carries it out" in stage.card()["text"]
    assert f"failover resume {execution}" in str(stage.card()["blocks"])
    assert stage.card()["replies"] == before["replies"]
    assert marks.left() == []
    journal.close()


def test_what_cannot_be_told_in_slack_is_exit_2(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.failover("run", "by-hand.yaml")
    assert "dry run" in stage.failover("slack", expect=2)
    assert stage.slack.workspace.calls == []


def test_the_token_of_the_environment_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-canary")
    assert "canary" not in repr(open_channel("#incidents"))
