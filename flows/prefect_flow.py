"""A runbook as a Prefect flow: its form, and a body that lets the engine work and mirrors it.

The engine acts on a thread of its own and never waits for Prefect. The execution's id comes from the flow run's id, so
whatever enters the same flow run again (Retry, forced or not; a new process after a crash) resumes the same execution
from the journal and can neither repeat a step nor pass a gate that was not approved.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows import prefect_form as form
from flows import prefect_picture as picture
from flows.acquiring import TargetBusy
from flows.clock import SystemClock
from flows.engine import Engine
from flows.events import Verdict
from flows.history import learn_aside
from flows.journal import Halted, Journal, JournalError
from flows.prefect_mirror import Logger, Mirror, Subject
from flows.prefect_pages import publish_report
from flows.prefect_picture import Shown
from flows.runs import CannotResume, Request, replan, resume, start
from flows.state import ExecutionState, fold
from flows.stopping import heard
from runbooks.loader import Loaded
from runbooks.model import Mode
from runbooks.plan import Plan
from runbooks.planner import plan as make_plan
from runbooks.problems import RunbookError

CHANNEL = "prefect:"
"""Before the flow run's id, in the journal."""
_FOR_GOOD = {Verdict.recovered, Verdict.no_action, Verdict.would, Verdict.rolled_back}
"""An execution that ended so is not resumed."""
PATIENCE = 8.0
"""Seconds that the end of a run waits for Prefect to be up to date; what is missing then is the reconciler's work."""


@dataclass(frozen=True)
class Compiled:
    """A runbook with its form and its way to the journal."""

    loaded: Loaded
    form: tuple[form.Question, ...]
    open_journal: Callable[[], Journal]
    attend: Callable[[Engine, Journal], object]
    demand: Callable[[Journal, str], object]


@dataclass(frozen=True)
class Call:
    """One entry into a flow run."""

    compiled: Compiled
    parameters: Mapping[str, Any]
    flow_run: UUID

    @property
    def execution(self) -> str:
        return execution_of(self.flow_run)


class Ended(Exception):
    """The execution had ended for good before this entry: there is nothing to resume."""

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        super().__init__(shown.message)


def execution_of(flow_run: UUID) -> str:
    """The execution's id: the same for every entry into a flow run. Hashed: flow run ids may begin with the time."""
    return hashlib.sha256(flow_run.bytes).hexdigest()[:12]


def compile_flow(
    loaded: Loaded,
    open_journal: Callable[[], Journal],
    *,
    attend: Callable[[Engine, Journal], object] = lambda _engine, _journal: None,
    demand: Callable[[Journal, str], object] = lambda _journal, _execution: None,
    module: str = __name__,
) -> Flow[Any, Any]:
    """Make the flow of a runbook: named after it, its inputs as typed parameters.

    open_journal: called once in each process that carries it out. attend: called before the engine runs, to subscribe
    further observers. demand: called before an execution is resumed; raises CannotResume. module: where an entrypoint finds the flow under the runbook's name. Does not plan: that happens
    with the parameters of each run.
    """
    runbook = loaded.runbook
    compiled = Compiled(loaded, form.questions(runbook), open_journal, attend, demand)

    async def body(**parameters: Any) -> State[Any]:
        return await _enter(compiled, parameters)

    body.__name__ = body.__qualname__ = runbook.name
    body.__module__ = module
    body.__signature__ = form.signature(compiled.form)  # type: ignore[attr-defined]
    flow: Flow[Any, Any] = Flow(
        body, name=runbook.name, version=hashlib.sha256(loaded.text.encode()).hexdigest()[:12], flow_run_name=_run_name,
        description="\n\n".join(filter(None, (f"**{runbook.title}** ({runbook.service})", runbook.description))),
        retries=0, retry_delay_seconds=0, persist_result=False, log_prints=False,
    )  # fmt: skip
    form.describe(flow.parameters, compiled.form)
    return flow


def plan_of(state: ExecutionState) -> Plan | None:
    """The plan of an execution, when this version would make the same."""
    with suppress(CannotResume, RunbookError):  # written by another version: its steps cannot be told, its end can
        return replan(state)
    return None


def to_state(shown: Shown) -> State[Any]:
    """In Prefect's type."""
    return State(type=StateType(shown.type), name=shown.name, message=shown.message)


def _run_name() -> str:
    from prefect.runtime import flow_run

    return f"{flow_run.parameters[form.MODE]} {execution_of(UUID(flow_run.id))}"


async def _enter(compiled: Compiled, parameters: Mapping[str, Any]) -> State[Any]:
    """The flow's body: open or resume the execution, carry it out, say honestly how it ended."""
    context = FlowRunContext.get()
    flow_run: FlowRun | None = context.flow_run if context is not None else None
    if flow_run is None:
        raise RuntimeError("a runbook's flow was called outside of a flow run")
    call = Call(compiled, parameters, flow_run.id)
    logger = get_run_logger()
    try:
        with closing(await asyncio.to_thread(compiled.open_journal)) as journal:
            engine, resumed = await asyncio.to_thread(_open_engine, call, journal)
            logger.info("execution %s, journal %s%s", call.execution, journal.place, ", resumed" if resumed else "")
            return to_state(await _carry_out(call, engine, journal, resumed=resumed))
    except Ended as ended:
        return to_state(ended.shown)
    except RunbookError as error:
        return to_state(Shown("FAILED", "Invalid", f"nothing was started:\n{error}"))
    except TargetBusy as busy:
        return to_state(Shown("FAILED", "Busy", str(busy)))
    except CannotResume as error:
        return to_state(Shown("FAILED", "CannotResume", str(error)))
    except Halted as error:
        return to_state(Shown("FAILED", "Halted", str(error)))
    except JournalError as error:
        said = f"{error}; so nothing more was done; Retry, or `failover resume {call.execution}`, goes on"
        return to_state(Shown("FAILED", "JournalError", said))


def _open_engine(call: Call, journal: Journal) -> tuple[Engine, bool]:
    """Start the execution, or take it over when the journal has it; True when it was there."""
    initiator, channel = str(call.parameters[form.INITIATOR]), f"{CHANNEL}{call.flow_run}"
    events = [event for _, event in journal.read(call.execution)]
    if events:
        state = fold(events)
        if state.started is None or state.started.channel != channel:
            raise CannotResume(f"execution {call.execution} in {journal.place} belongs to another run")
        shown = picture.ending(plan_of(state), state)
        if shown is not None and state.verdict in _FOR_GOOD:
            raise Ended(shown)
        call.compiled.demand(journal, call.execution)
        return resume(journal, call.execution, f"Prefect, for {initiator}", SystemClock()), True
    plan = make_plan(
        call.compiled.loaded, mode=Mode(call.parameters[form.MODE]), inputs=form.answers(call.compiled.form, call.parameters)
    )
    reason = str(call.parameters.get(form.REASON) or "")
    request = Request(plan, initiator, channel, reason, execution=call.execution)
    return start(journal, request, SystemClock()), False


async def _carry_out(call: Call, engine: Engine, journal: Journal, *, resumed: bool) -> Shown:
    """Run the engine on its thread beside the mirror; give the flow run's final state."""
    context = FlowRunContext.get()
    if context is None or not isinstance(context.client, PrefectClient):
        raise TypeError("a runbook's flow runs as an async flow, with Prefect's async client")
    plan: Plan = engine.plan
    subject = Subject(call.execution, call.flow_run, plan, journal, resumed)
    mirror = Mirror(context.client, subject, engine.state, engine.subscribe())
    call.compiled.attend(engine, journal)
    learn_aside(engine, call.compiled.open_journal)
    logger = get_run_logger()
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), heard(_on_stop(engine)):  # the mirror itself tries again
        watching = asyncio.create_task(mirror.run(lambda: engine.stop("prefect", "cancelled in Prefect"), logger))
        try:
            state = await _run(engine)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            mirror.drain(logger)
        publish = partial(publish_report, context.client, call.flow_run, call.execution, plan, journal)
        await _last_words(mirror, publish, logger)
    shown = picture.ending(plan, state)
    return shown or Shown("FAILED", "Unfinished", "the engine ended without a verdict")


async def _last_words(mirror: Mirror, publish: Callable[[], Awaitable[None]], logger: Logger) -> None:
    if await mirror.finish(PATIENCE):
        try:
            async with asyncio.timeout(PATIENCE):
                await publish()
        except Exception as error:  # noqa: BLE001 - the run has ended well or not without it
            logger.warning("Prefect does not take the report (%s: %s); `failover report` has it", type(error).__name__, error)
    else:
        logger.warning("Prefect does not answer; what it shows is completed from the journal when it does")


async def _run(engine: Engine) -> ExecutionState:
    """Run the engine on a daemon thread and wait for its end; raises what it raised."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[ExecutionState] = loop.create_future()

    def go() -> None:
        try:
            state = engine.run()
        except BaseException as error:  # noqa: BLE001 - carried to the waiting coroutine
            _later(loop, over.set_exception, error)
        else:
            _later(loop, over.set_result, state)

    threading.Thread(target=go, name="engine", daemon=True).start()
    return await over


def _later(loop: asyncio.AbstractEventLoop, call: Callable[[Any], None], value: Any) -> None:
    with suppress(RuntimeError):  # the loop is gone: nobody waits any more, and the journal knows
        loop.call_soon_threadsafe(call, value)


def _on_stop(engine: Engine) -> Callable[[signal.Signals], None]:
    """Stop in good order, instead of breaking the flow off."""
    return lambda number: engine.stop("signal", f"{number.name} received")
