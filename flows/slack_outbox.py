"""Tells an execution's story in Slack, on a thread of its own: the run never waits for it and never fails with it.

What is posted follows from the journal's events and from what Slack says it holds; there is no third record that could
differ. Each message carries the number of the last event it tells, so any process, after any crash, goes on behind it.

Must never happen, and where it is prevented:
- a message twice: a post whose answer was lost is looked for before anything else is posted (`_look`)
- out of order: the next detail is made from the last number that Slack is known to hold (`_do_next`)
- ending on less than the truth: it ends only when card and thread tell the last event (`_do_next`), and an edit
  whose answer was lost, which may still land late, is looked at again before that
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from flows.events import Progress
from flows.slack_card import card
from flows.slack_channel import CARD, DETAIL, Kind, Label, Posted, SlackTrouble
from flows.slack_limits import Message, problems
from flows.slack_story import Story, anchored
from flows.slack_thread import Detail, next_detail

PACE = 1.2
"""Seconds between two messages or edits: Slack allows one message a second in a channel, and about 50 edits a minute."""
REFRESH = 10.0
"""Seconds after which the card is edited though nothing happened, because time went on."""
SETTLE = 3.0
"""Seconds until what an unclear call did can be looked at: Slack may still be at it."""
LATE = 10.0
"""Seconds in which an edit whose answer was lost may still land over a later one; looked at once more after that."""
LONGEST = 20.0
"""Seconds between two tries, at most, unless Slack names a time itself."""

GONE = frozenset({"message_not_found", "thread_not_found"})
"""How Slack says that somebody deleted the card."""


class Channel(Protocol):
    """Where it is told; see flows.slack_channel.SlackChannel. All may raise SlackTrouble."""

    name: str

    def post(self, message: Message, label: Label, thread: str | None = None) -> str: ...
    def edit(self, ts: str, message: Message, label: Label) -> None: ...
    def find(self, execution: str, since: datetime) -> str | None: ...
    def read(self, ts: str, execution: str) -> Posted | None: ...


@dataclass(frozen=True)
class Timing:
    """The outbox's clocks and paces; seconds."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic
    pace: float = PACE
    refresh: float = REFRESH
    settle: float = SETTLE
    late: float = LATE
    longest: float = LONGEST


class Outbox:
    """Tells one execution. `step` does at most one thing and says when to come again; `run` does so until all is told."""

    def __init__(
        self, story: Story, channel: Channel, *, fresh: bool, say: Callable[[str], None] = lambda _: None, timing: Timing | None = None,
        head: Callable[[], str] = lambda: "",
    ) -> None:  # fmt: skip
        """fresh: nobody can have told anything of it yet, so nothing needs to be looked for.

        head: the anchor of the journal's last event, '' when it cannot be had; never raises.
        """
        self.story = anchored(story, head)
        self._head = head
        self.told = threading.Event()
        """Set once the story is over and told."""
        self._channel = channel
        self._say = say
        self._time = timing or Timing()
        self._ts: str | None = None
        self._posted = Posted(0, 0)
        self._known = fresh
        self._plain = False
        self._detail_next = False
        self._edited_at = float("-inf")
        self._as_attended: bool | None = None
        self._due = float("-inf")
        self._verify_at: float | None = None
        self._pause = 0.0
        self._said = ""

    def hear(self, notice: object) -> None:
        """Take one of the engine's notices in; None says that the engine is gone."""
        if notice is None:
            self.story = replace(self.story, attended=self.story.over)
        elif not isinstance(notice, Progress):
            self.story = anchored(self.story.heard(notice), self._head)  # type: ignore[arg-type]

    def run(self, notices: queue.SimpleQueue[object] | None) -> None:
        """Tell until the story is over and told. Without notices the story is told as it is."""
        ended = notices is None
        while True:
            wait = self.step()
            if wait is None:
                self.told.set()
                if ended:
                    return
            if (pause := self._due - self._time.monotonic()) > 0:
                time.sleep(pause)  # nothing may leave before: not to wake for each event leaves the engine undisturbed
                wait = 0.0
            if notices is None or ended:
                time.sleep(wait or 0.0)
            else:
                ended = self._listen(notices, wait)

    def _listen(self, notices: queue.SimpleQueue[object], wait: float | None) -> bool:
        """Hear everything that is there, waiting for the first; True when there will be no more."""
        try:
            notice = notices.get(timeout=wait) if wait != 0 else notices.get_nowait()
            while notice is not None:
                self.hear(notice)
                notice = notices.get_nowait()
        except queue.Empty:
            return False
        self.hear(None)
        return True

    def step(self) -> float | None:
        """Do the next thing if it is due; give the seconds until something is due, None when all is told for good."""
        if (left := self._due - self._time.monotonic()) > 0:
            return left
        try:
            done = self._do_next()
        except SlackTrouble as trouble:
            self._suffer(trouble)
            return max(0.0, self._due - self._time.monotonic())
        except Exception as error:  # noqa: BLE001 - a defect of ours here is no reason to leave people without a word
            self._suffer(SlackTrouble(f"cannot be told ({type(error).__name__}), a defect of this program", wait=self._time.longest))
            return self._time.longest
        now = self._time.monotonic()
        if done:
            self._pause, self._said, self._due = 0.0, "", now + self._time.pace
            return self._time.pace
        if self._verify_at is not None:
            return max(0.001, self._verify_at - now)
        return max(0.001, self._edited_at + self._time.refresh - now) if self._goes_on else None

    # -- one thing after the other

    @property
    def _goes_on(self) -> bool:
        return self.story.attended and not self.story.over

    def _do_next(self) -> bool:
        """Post or edit one thing; False when nothing is due: card and thread tell the last event."""
        now, at, story = self._time.monotonic(), self._time.now(), self.story
        if not self._known or (self._verify_at is not None and now >= self._verify_at):
            self._look(now)
        if self._ts is None:
            self._ts = self._send(card(story, at), lambda said: self._channel.post(said, self._label(CARD, story.number)))
            self._shown(story)
            return True
        detail = next_detail(story, self._posted.thread, at)
        if detail is not None and (self._detail_next or not self._stale(now)):
            self._post_detail(detail)
            return True
        if self._stale(now):
            self._edit(story, at, self._ts)
            self._detail_next = detail is not None
            return True
        return False

    def _stale(self, now: float) -> bool:
        """Whether the card tells less than is known, or an older time than it should."""
        if self._posted.card < self.story.number:
            return True
        told_otherwise = self._as_attended != self.story.attended and not self.story.over  # also by another process
        return told_otherwise or (self._goes_on and now - self._edited_at >= self._time.refresh)

    def _post_detail(self, detail: Detail) -> None:
        try:
            self._send(detail.message, lambda said: self._channel.post(said, self._label(DETAIL, detail.last), self._ts))
        except SlackTrouble as trouble:
            if trouble.code in GONE:
                self._lose_card()
            raise
        self._posted, self._detail_next = replace(self._posted, thread=detail.last), False

    def _edit(self, story: Story, at: datetime, ts: str) -> None:
        try:
            self._send(card(story, at), lambda said: self._channel.edit(ts, said, self._label(CARD, story.number)))
        except SlackTrouble as trouble:
            if trouble.code in GONE:
                self._lose_card()
            raise
        self._shown(story)

    def _shown(self, story: Story) -> None:
        self._edited_at, self._as_attended = self._time.monotonic(), story.attended
        self._posted = replace(self._posted, card=story.number)

    def _send(self, message: Message, send: Callable[[Message], object]) -> str:
        """Send a message that keeps Slack's limits; its text alone when Slack does not take its blocks."""
        if self._plain or problems(message.text, message.blocks):
            message = Message(message.text)
        answer = send(message)
        self._plain = False
        return str(answer)

    def _label(self, kind: Kind, number: int) -> Label:
        return Label(kind, self.story.execution, number)

    def _look(self, now: float) -> None:
        """Ask Slack what it holds: after an answer that was lost, and where another process has told before."""
        begun = self.story.state.started
        if self._ts is None and begun is not None:
            self._ts = self._channel.find(self.story.execution, begun.at)
        if self._ts is not None:
            posted = self._channel.read(self._ts, self.story.execution)
            if posted is None:
                self._lose_card()
            else:
                self._posted = posted
        self._known = True
        if self._verify_at is not None and now >= self._verify_at:
            self._verify_at = None

    def _lose_card(self) -> None:
        """Somebody deleted it: there will be a new one; what the thread told is not told again."""
        self._ts, self._posted = None, replace(self._posted, card=0)

    def _suffer(self, trouble: SlackTrouble) -> None:
        """Wait before the next try, and look before it where the call may have worked; say once what is wrong."""
        now = self._time.monotonic()
        self._plain, self._detail_next = trouble.too_much, False  # a detail that cannot be posted does not keep the card back
        self._pause = max(trouble.wait, min(self._pause * 2, self._time.longest))
        self._due = now + (trouble.wait if trouble.code == "ratelimited" else self._pause)
        if trouble.unclear:
            self._known, self._verify_at = False, now + self._time.late
            self._due = max(self._due, now + self._time.settle)
        if str(trouble) != self._said:
            self._said = str(trouble)
            self._say(f"slack: {self._channel.name}: {trouble}; the run goes on, and what is not told yet is told later")
