"""The mirror: keeps Prefect's task runs and forms equal to what the engine tells, and never holds the engine up.

    engine → queue of events → fold → wanted picture → what differs goes to Prefect's API

It works on levels, not on events: whatever was missed while Prefect was away is told when it answers again. It only
reads from the engine's queue and writes to the inbox, so a slow, dead or wrong Prefect costs the failover nothing.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.logging.loggers import LoggingAdapter

from flows import prefect_picture as picture
from flows.engine import Notice
from flows.events import Progress
from flows.journal import InboxEntry, Journal
from flows.prefect_asking import Asking
from flows.prefect_pages import StatusPage
from flows.prefect_questions import open_questions
from flows.prefect_steps import StepRuns
from flows.state import ExecutionState, apply
from flows.watching import line
from runbooks.plan import Plan

TICK = 0.1
"""Seconds between two looks at the engine's queue."""
POLL = 0.5
"""Seconds between two looks at the forms and at whether somebody pressed Cancel."""
CALL = 5.0
"""Seconds that one round of requests may take."""
PROGRESS = 2.0
"""Seconds between two lines about what one step was last seen doing."""
LONGEST_PAUSE = 5.0
"""Seconds between two tries while Prefect does not answer."""

Logger = logging.Logger | LoggingAdapter


@dataclass(frozen=True)
class Subject:
    """What is mirrored: an execution, its flow run, and whether somebody mirrored it before."""

    execution: str
    flow_run: UUID
    plan: Plan
    journal: Journal
    resumed: bool


class Mirror:
    """Mirrors one running execution; call `run` as a task and `finish` at the end."""

    def __init__(self, client: PrefectClient, subject: Subject, state: ExecutionState, feed: queue.SimpleQueue[Notice | None]) -> None:
        self.state = state
        self._client = client
        self._subject = subject
        self._feed = feed
        self._steps = StepRuns(client, subject.flow_run, subject.plan)
        self._asking = Asking(client, self._steps, subject.execution, self._put)
        self._prepared = not subject.resumed
        self._polled = 0.0
        self._shown: ExecutionState | None = None
        self._silent = False
        self._progress: dict[str, float] = {}
        self._last_seen: dict[str, str] = {}
        self._page = StatusPage(client, subject.flow_run, subject.plan)

    async def run(self, cancelled: Callable[[], None], logger: Logger) -> None:
        """Mirror until cancelled. `cancelled` is called when somebody presses Cancel, once or more often."""
        pause = TICK
        while True:
            self.drain(logger)
            try:
                async with asyncio.timeout(CALL):
                    await self._sync()
                    await self._poll(cancelled)
                    await self._write_page()
                pause, self._silent = TICK, False
            except Exception as error:  # noqa: BLE001 - an observer may be broken in any way, and costs nothing
                self._prepared = False  # what was told may be lost: look first
                if not self._silent:
                    logger.warning("Prefect does not answer (%s: %s); the failover goes on", type(error).__name__, error)
                pause, self._silent = min(LONGEST_PAUSE, pause * 2), True
            await asyncio.sleep(pause)

    def drain(self, logger: Logger) -> None:
        """Take in what the engine told since the last time, and log it."""
        with suppress(queue.Empty):
            while (notice := self._feed.get_nowait()) is not None:
                if isinstance(notice, Progress):
                    self._last_seen[notice.step] = notice.text
                    if time.monotonic() - self._progress.get(notice.step, -PROGRESS) >= PROGRESS:
                        self._progress[notice.step] = time.monotonic()
                        self._log(logger, f"{notice.step}: {notice.text}", notice.step)
                    continue
                self.state = apply(self.state, notice)
                said = line(notice)
                if said is not None:
                    self._log(logger, said, getattr(notice, "step", None))

    async def finish(self, patience: float) -> bool:
        """Bring Prefect up to date for the last time; False when it did not answer within `patience` seconds."""
        give_up = time.monotonic() + patience
        while (left := give_up - time.monotonic()) > 0:
            with suppress(Exception):
                async with asyncio.timeout(left):
                    await self._sync()
                    await self._asking.end_strays()
                    await self._write_page()
                    return True
            await asyncio.sleep(min(1.0, max(0.0, give_up - time.monotonic())))
        return False

    async def _sync(self) -> None:
        if not self._prepared:
            await self._steps.load()
            await self._asking.end_strays()
            self._prepared = True
        state = self.state
        if state is self._shown:
            return
        # forms first: people wait for them, and Prefect's SQLite is busy for a while after many steps were told
        await self._asking.show(open_questions(self._subject.plan, state, self._subject.execution), state)
        await self._steps.show(picture.steps(self._subject.plan, state))
        self._shown = state

    async def _write_page(self) -> None:
        await self._page.show(self.state, self._last_seen)

    async def _poll(self, cancelled: Callable[[], None]) -> None:
        if time.monotonic() - self._polled < POLL:
            return
        self._polled = time.monotonic()
        await self._asking.poll()
        self._shown = None  # an answer may have to be asked for again
        run = await self._client.read_flow_run(self._subject.flow_run)
        if run.state is not None and (run.state.is_cancelling() or run.state.is_cancelled()):
            cancelled()

    async def _put(self, said: InboxEntry) -> int:
        return await asyncio.to_thread(self._subject.journal.put, self._subject.execution, said, datetime.now(UTC))

    def _log(self, logger: Logger, text: str, step: str | None) -> None:
        extra = {"task_run_id": self._steps.task_run(step)} if step in self._subject.plan.by_id and step else None
        logger.info("%s", text, extra=extra)
