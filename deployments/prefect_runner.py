"""Starts a process for each flow run that somebody asked for, and sees to it that Prefect learns how each one ended.

Not Prefect 3.8.8's own Runner: 7 s after its API died it stopped looking for cancelled runs, for good (measured), its
poll for work may end as well (critical_service_loop), and its runs begin seconds later, importing Prefect first. Here
each run sees for itself that somebody pressed Cancel, and the poll never gives up.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas import OrchestrationResult
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Pending

from flows.journal import Journal
from flows.prefect_asking import end_flow_run
from flows.prefect_picture import Shown
from flows.prefect_reconcile import reconcile

POLL = 0.4
"""Seconds between two questions to Prefect whether there is work."""
LONGEST_PAUSE = 5.0
"""Seconds between two tries while Prefect does not answer."""
RECONCILE = 5.0
RECHECK = 60.0
"""Seconds after which a run that was found right is looked at again."""
STALE = timedelta(minutes=5)
"""A run asked for longer ago, while nobody served, is not started: what it would do may be wrong by now."""
_PERHAPS_WRONG = [
    StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING, StateType.CRASHED, StateType.FAILED,
    StateType.CANCELLED,
]  # fmt: skip


class Runner:
    """Serves deployments from this process."""

    def __init__(self, client: PrefectClient, journal: Journal, deployments: Sequence[UUID], environment: Mapping[str, str]) -> None:
        self._client = client
        self._journal = journal
        self._deployments = list(deployments)
        self._environment = dict(environment)
        self._spare: asyncio.subprocess.Process | None = None
        self._children: dict[UUID, asyncio.subprocess.Process] = {}
        self._watches: set[asyncio.Task[None]] = set()
        self._gone: set[UUID] = set()
        """Runs whose process has ended and that Prefect does not show right yet."""
        self._found_right: dict[UUID, tuple[UUID | None, float]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then let every child finish recording and return when all have ended."""
        reconciling = asyncio.create_task(self._reconcile_always())
        pause = POLL
        try:
            while not stop.is_set():
                try:
                    await self._keep_spare()
                    await self._start_what_is_due()
                    pause = POLL
                except Exception as error:  # noqa: BLE001 - whatever ails Prefect, the runs that are under way go on
                    if pause == POLL:
                        say(f"Prefect does not answer ({type(error).__name__}); runs under way go on, new ones wait")
                    pause = min(LONGEST_PAUSE, pause * 2)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause)
        finally:
            reconciling.cancel()
            await self._end()

    async def _keep_spare(self) -> None:
        if self._spare is not None and self._spare.returncode is None:
            return
        self._spare = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "deployments.prefect_child", stdin=asyncio.subprocess.PIPE, env=self._environment,
            start_new_session=True,  # a Ctrl-C in our terminal is ours alone: it reaches the children in good order
        )  # fmt: skip

    async def _start_what_is_due(self) -> None:
        now = datetime.now(UTC)
        due = await self._client.get_scheduled_flow_runs_for_deployments(self._deployments, scheduled_before=now)
        for flow_run in due:
            asked = flow_run.next_scheduled_start_time or flow_run.expected_start_time or now
            if now - asked > STALE:
                said = f"asked for at {asked:%Y-%m-%d %H:%M:%S} UTC, when nobody served it; run it again if it is still wanted"
                await end_flow_run(self._client, flow_run.id, Shown("CANCELLED", "Stale", said))
            elif flow_run.id not in self._children and await self._claim(flow_run):
                await self._hand_over(flow_run)

    async def _claim(self, flow_run: FlowRun) -> bool:
        """Whether the run is ours: of several runners Prefect lets one set it to Pending."""
        result: OrchestrationResult[Any] = await self._client.set_flow_run_state(flow_run.id, Pending())
        return bool(result.status.value == "ACCEPT")

    async def _hand_over(self, flow_run: FlowRun) -> None:
        await self._keep_spare()
        child, self._spare = self._spare, None
        if child is None or child.stdin is None:
            raise RuntimeError("no process to hand the run to")
        child.stdin.write(f"{flow_run.id}\n".encode())
        child.stdin.close()
        self._children[flow_run.id] = child
        self._gone.discard(flow_run.id)
        say(f"started {flow_run.name} as process {child.pid}")
        watch = asyncio.create_task(self._watch(flow_run, child))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _watch(self, flow_run: FlowRun, child: asyncio.subprocess.Process) -> None:
        """Wait for the end of a run's process, and let Prefect show at once what it left behind."""
        code = await child.wait()
        del self._children[flow_run.id]
        self._gone.add(flow_run.id)
        say(f"process {child.pid} ended with code {code}")
        with suppress(Exception):  # else the next round of the reconciler does it
            await self._check(await self._client.read_flow_run(flow_run.id))

    async def _reconcile_always(self) -> None:
        while True:
            with suppress(Exception):  # Prefect is away, or the journal is: the next round may find both
                await self._reconcile_once()
            await asyncio.sleep(RECONCILE)

    async def _reconcile_once(self) -> None:
        runs = await self._client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=self._deployments),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_PERHAPS_WRONG)),
            ),
            sort=FlowRunSort.START_TIME_DESC,
            limit=100,
        )
        self._found_right = {run.id: self._found_right[run.id] for run in runs if run.id in self._found_right}
        for flow_run in runs:
            if flow_run.id not in self._children:
                await self._check(flow_run)

    async def _check(self, flow_run: FlowRun) -> None:
        state, gone = flow_run.state.id if flow_run.state else None, flow_run.id in self._gone
        known, at = self._found_right.get(flow_run.id, (None, 0.0))
        if not gone and known == state and time.monotonic() - at < RECHECK:
            return
        shown = await reconcile(self._client, self._journal, flow_run, gone=gone)
        self._gone.discard(flow_run.id)
        if shown is not None:
            say(f"{flow_run.name}: Prefect now shows {shown.name}: {shown.message}")
        elif flow_run.state is not None and flow_run.state.is_final():
            self._found_right[flow_run.id] = (state, time.monotonic())

    async def _end(self) -> None:
        """Tell every child to stop in good order and wait until each has recorded what it was at."""
        if self._spare is not None and self._spare.stdin is not None:
            self._spare.stdin.close()  # it was told nothing and ends by itself
            await self._spare.wait()
        if self._children:
            say(f"waiting for {len(self._children)} run(s) to finish recording")
        for child in self._children.values():
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
        while self._watches:
            await asyncio.wait(set(self._watches))


def say(text: str) -> None:
    """One line for whoever watches `failover serve`."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)
