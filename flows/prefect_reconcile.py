"""Complete what Prefect shows from the journal: after an outage of Prefect, and after a process that died.

What the journal says decides what Prefect is given:
- the execution has ended: every step's and form's state, and the flow run's honest final state
- not ended, and its process is dead: Crashed, and its forms are taken away, because nobody reads them
- not ended, and its process may live: nothing, it mirrors itself
- nothing at all, and the run waits for ever: Crashed, its process never came to the first event
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import cast

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from flows import prefect_picture as picture
from flows.events import Event, ExecutionStarted, Resumed
from flows.holders import is_dead
from flows.journal import Holder, Journal
from flows.prefect_asking import end_flow_run, open_children
from flows.prefect_flow import CHANNEL, execution_of, plan_of
from flows.prefect_pages import publish_report
from flows.prefect_picture import Shown, StateType
from flows.prefect_questions import WITHDRAWN, closing_of
from flows.prefect_steps import StepRuns
from flows.state import ExecutionState, fold

GRACE = timedelta(seconds=30)
"""A process that has just ended still tells Prefect by itself; one that has just begun may wait 16 s for a dead one's lease."""
NEVER_STARTED = timedelta(minutes=2)
PAGES = 5.0
"""Seconds that putting the report on the run's page may take."""


async def reconcile(client: PrefectClient, journal: Journal, flow_run: FlowRun, *, gone: bool = False) -> Shown | None:
    """Make one flow run of ours show what the journal says; give the state it was given, None when nothing was to do.

    gone: its process is known to have ended. Raises what the client raises, and JournalError.
    """
    if flow_run.state is None or flow_run.state.is_scheduled():  # somebody asked for it, again or the first time
        return None
    execution = execution_of(flow_run.id)
    rows = await asyncio.to_thread(journal.read, execution)
    events = [event for _, event in rows]
    state = fold(events)
    if state.started is None:
        return await _never_started(client, flow_run, gone=gone)
    if state.started.channel != f"{CHANNEL}{flow_run.id}":
        return None
    dead = gone or _dead(execution, events)
    fresh = datetime.now(UTC) - max(state.last or flow_run.state.timestamp, flow_run.state.timestamp) < GRACE
    if fresh and not gone:
        return None
    plan = plan_of(state)
    shown = picture.ending(plan, state)
    if shown is None and not dead:
        return None
    if shown is None and flow_run.state.is_final() and not flow_run.state.is_completed():
        shown = Shown(cast("StateType", flow_run.state.type.value), flow_run.state.name or "")  # says already why it is over
    elif shown is None:
        said = f"its process is gone; Retry, or `failover resume {execution}`, goes on with the same execution"
        shown = Shown("CRASHED", "Crashed", said)
    for child in await open_children(client, flow_run.id):
        await end_flow_run(client, child.id, await _answered(client, child, state))
    if plan is not None:
        steps = StepRuns(client, flow_run.id, plan)
        await steps.load()
        await steps.show(picture.steps(plan, state))
    if _shows(flow_run, shown):
        return None
    if plan is not None and state.finished is not None:
        with suppress(Exception):  # the states matter more than the pages; `failover report` has the same
            async with asyncio.timeout(PAGES):
                await publish_report(client, flow_run.id, execution, plan, journal)
    await end_flow_run(client, flow_run.id, shown)
    return shown


async def _answered(client: PrefectClient, child: FlowRun, state: ExecutionState) -> Shown:
    """How a form ended: by what was said elsewhere, or because nobody reads it any more."""
    if child.parent_task_run_id is None:
        return WITHDRAWN
    return closing_of((await client.read_task_run(child.parent_task_run_id)).name, state)


async def _never_started(client: PrefectClient, flow_run: FlowRun, *, gone: bool) -> Shown | None:
    state = flow_run.state
    if state is None or state.is_final():
        return None
    waits = datetime.now(UTC) - state.timestamp
    if not gone and waits < NEVER_STARTED:
        return None
    if not gone and not state.is_pending():
        return None  # it runs, and opens its journal right now; or it uses another journal than ours
    shown = Shown("CRASHED", "Crashed", "its process ended before anything was started; the log of `failover serve` says why")
    await end_flow_run(client, flow_run.id, shown)
    return shown


def _dead(execution: str, events: list[Event]) -> bool:
    """Whether the process that carried it out last is known to be gone."""
    last = next(event for event in reversed(events) if isinstance(event, ExecutionStarted | Resumed))
    return is_dead(Holder(execution, "", last.host, last.pid, last.boot))


def _shows(flow_run: FlowRun, shown: Shown) -> bool:
    state = flow_run.state
    return state is not None and (state.type.value, state.name) == (shown.type, shown.name)
