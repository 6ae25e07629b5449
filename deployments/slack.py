"""Slack beside a run: who tells it, from where to where, and what is still to be told when the run is over.

The token comes from SLACK_BOT_TOKEN and the channel from the runbook (`comms: {slack: "#incidents"}`). What is to be told
is in the journal, and what was told is in Slack; `slack_marks` only remembers that something is left, and excludes two
processes that would tell at once.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from deployments.exits import Exit
from deployments.slack_marks import Marks

if TYPE_CHECKING:
    from flows.engine import Engine
    from flows.events import Event
    from flows.journal import Journal
    from flows.slack_channel import SlackChannel
    from flows.slack_outbox import Outbox
    from flows.slack_story import Story
    from runbooks.plan import Plan

TOKEN, URL = "SLACK_BOT_TOKEN", "SLACK_API_URL"
LAST_WORDS = 4.0
"""Seconds for which a run that is over waits for Slack, at most."""
SWEEP = 10.0
"""Seconds between two looks at what other runs left untold."""
YIELD = 0.0005
"""Seconds for which a busy thread may keep the interpreter while another one waits (Python: 5 ms, benchmarks/slack.py).

Importing slack_sdk is 0.1 s of work; the engine's threads, which work for microseconds, must not queue behind it."""
PATIENCE = 60.0
"""Seconds that bringing one execution up to date may take before another one gets its turn."""


class Telling:
    """A run's word to Slack, under way on a thread of its own."""

    def __init__(self, execution: str, outbox: Outbox) -> None:
        self.execution = execution
        self._outbox = outbox

    def last_words(self, seconds: float = LAST_WORDS) -> None:
        """Wait a little for the final card; say on stderr how it gets there when it is not there by then."""
        if not self._outbox.told.wait(seconds):
            _say(
                f"slack: not everything is told yet; `failover slack {self.execution}` tells the rest, and so does a running "
                "`failover serve` or the next run"
            )


def tell_slack(engine: Engine, journal: Journal) -> Telling | None:
    """Begin to tell a run that is about to begin; None where the runbook or the environment names no Slack.

    Costs the run one read of the journal; slack_sdk is imported on the outbox's thread. What other runs left untold is
    told as well, from a connection of its own. Never raises.
    """
    plan: Plan = engine.plan
    channel = channel_of(plan)
    if channel is None:
        return None
    if not os.environ.get(TOKEN):
        _say(f"slack: {TOKEN} is unset, so {channel} is told nothing; the run goes on")
        return None
    from flows.journal import JournalError
    from flows.slack_outbox import Outbox
    from flows.slack_story import story_of

    notices: queue.SimpleQueue[Any] = engine.subscribe()
    try:
        events = [event for _, event in journal.read(engine.execution)]
    except JournalError as error:
        _say(f"slack: {error}; so {channel} is told nothing; the run goes on")
        return None
    story = story_of(engine.execution, plan, events, page=_page(events))
    fresh = not any(event.kind == "resumed" for event in events)
    outbox = Outbox(story, open_channel(channel), fresh=fresh, say=_say, head=lambda: _head(journal, engine.execution))
    marks = marks_of(journal)

    def tell() -> None:
        with marks.hold(engine.execution, wait=True) as hold:
            outbox.run(notices)
            if hold is not None:
                hold.done()

    left = marks.left()
    sys.setswitchinterval(YIELD)
    threading.Thread(target=tell, name="slack", daemon=True).start()
    if left:
        sweep(lambda: _reopen(journal), threading.Event())
    return Telling(engine.execution, outbox)


def channel_of(plan: Plan) -> str | None:
    """The channel that a run is told to: a dry run changes nothing and is told to nobody."""
    return plan.runbook.comms.slack if plan.mode.value != "dry-run" else None


def open_channel(name: str) -> SlackChannel:
    """The channel as the environment's token sees it."""
    from flows.slack_channel import SlackChannel

    return SlackChannel(name, os.environ[TOKEN], os.environ.get(URL))


def marks_of(journal: Journal) -> Marks:
    """What is not told yet of the executions in this journal."""
    from deployments.journal_location import beside

    return Marks(beside(journal) / "slack")


def tell_story(story: Story, patience: float = PATIENCE) -> bool:
    """Tell a story that the journal holds; give whether all of it is told by then. The caller is its only teller."""
    from flows.slack_outbox import Outbox

    channel = channel_of(story.plan)
    if channel is None:
        return True
    outbox = Outbox(story, open_channel(channel), fresh=False)
    give_up = time.monotonic() + patience
    while (wait := outbox.step()) is not None:
        if time.monotonic() + wait > give_up:
            return False
        time.sleep(wait)
    return True


def tell_left_over(journal: Journal, stop: threading.Event) -> None:
    """Tell what other runs of this machine left untold, one after the other; what somebody tells now is left to them."""
    marks = marks_of(journal)
    for execution in marks.left():
        if stop.is_set() or not os.environ.get(TOKEN):
            return
        with marks.hold(execution, wait=False) as hold:
            story = read_story(journal, execution) if hold is not None else None
            if hold is None or story is None:
                continue
            if not tell_story(story):
                return  # Slack is not there: the others can wait as well
            hold.done()


def sweep(open_journal: Callable[[], Journal], stop: threading.Event) -> None:
    """Keep telling what is left, on a thread of its own, until told to stop or the process ends."""
    from flows.journal import JournalError

    def go() -> None:
        while not stop.wait(SWEEP):
            with suppress(JournalError, OSError), closing(open_journal()) as journal:
                tell_left_over(journal, stop)

    threading.Thread(target=go, name="slack-left", daemon=True).start()


# -- the command


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add slack."""
    parser = commands.add_parser("slack", help="tell Slack what it was not told yet, as after it was down for a whole run")
    parser.add_argument("execution", nargs="?", help="id or its beginning; the newest when missing")
    parser.add_argument("--patience", type=float, default=60.0, metavar="SECONDS", help="how long to try (default 60)")
    parser.add_argument("--journal", help="the journal: a file or postgresql://… (default: FAILOVER_JOURNAL)")
    parser.set_defaults(run=run_slack)


def run_slack(options: argparse.Namespace) -> int:
    """Bring Slack up to date with one execution: nothing is told twice."""
    from deployments.journal_location import open_journal
    from deployments.people import find_execution

    journal = open_journal(options.journal)
    execution = find_execution(journal, options.execution)
    story = read_story(journal, execution)
    trouble = _trouble(story)
    if story is None or trouble:
        print(f"{execution}: cannot be told in Slack: {trouble}", file=sys.stderr)
        return Exit.invalid
    channel = channel_of(story.plan)
    with marks_of(journal).hold(execution, wait=False) as hold:
        if hold is None:
            print(f"{execution}: a running process tells it to {channel}")
            return Exit.met
        if tell_story(story, options.patience):
            hold.done()
            print(f"{execution}: {channel} has all of it")
            return Exit.met
    print(f"{execution}: {channel} does not have all of it yet; `failover slack {execution}` goes on", file=sys.stderr)
    return Exit.not_met


# -- parts


def _reopen(journal: Journal) -> Journal:
    """The same journal once more; raises JournalError where only its password-free address is known."""
    from deployments.journal_location import is_database, open_journal
    from flows.journal import JournalError

    again = open_journal(None if is_database(journal.place) else journal.place)
    if again.place != journal.place:
        again.close()
        raise JournalError(f"journal {journal.place}: is not the one that FAILOVER_JOURNAL names")
    return again


def _trouble(story: Story | None) -> str:
    if story is None:
        return "it was planned by another version of this program; tell it with that one"
    if channel_of(story.plan) is None:
        return "it was a dry run, or its runbook names no channel; add `comms: {slack: …}`"
    return "" if os.environ.get(TOKEN) else f"{TOKEN} is unset"


def read_story(journal: Journal, execution: str) -> Story | None:
    """The story as the journal has it; None when this version would plan another."""
    from flows.runs import CannotResume, replan
    from flows.slack_story import anchored, story_of
    from flows.state import fold
    from runbooks.problems import RunbookError

    events = [event for _, event in journal.read(execution)]
    try:
        plan = replan(fold(events))
    except (CannotResume, RunbookError):
        return None
    return anchored(story_of(execution, plan, events, attended=False, page=_page(events)), lambda: _head(journal, execution))


def _head(journal: Journal, execution: str) -> str:
    """The anchor of the last event; '' where the journal cannot be read now: the end of the run is told without it.

    Slack may be behind the run, and the run's connection closed by then: it is read over another one.
    """
    from flows.anchors import anchor
    from flows.journal import JournalError

    with suppress(JournalError):
        return anchor(journal, execution)
    with suppress(JournalError, OSError), closing(_reopen(journal)) as again:
        return anchor(again, execution)
    return ""


def _page(events: Sequence[Event]) -> str | None:
    """The run's page in the Prefect UI, when it was started there and the environment tells where that is."""
    first = events[0] if events else None
    channel = getattr(first, "channel", "")
    base = os.environ.get("PREFECT_UI_URL") or os.environ.get("PREFECT_API_URL", "").removesuffix("/").removesuffix("/api")
    if not channel.startswith("prefect:") or not re.fullmatch(r"https?://[\w.:/-]+", base):
        return None
    return f"{base.rstrip('/')}/runs/flow-run/{channel.removeprefix('prefect:')}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
