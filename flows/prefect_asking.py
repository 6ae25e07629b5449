"""Each open question as a small child flow run that pauses with a form: the UI's Resume is one more channel.

The child flow runs are driven through the API, no thread waits inside them, so any number can be open at once, a dead
API delays nobody, and ending one from outside is a single call. Each pause has a fresh key, and what the children of a
dead attempt are answered is read by nobody.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from prefect import Flow, Task
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRunResult
from prefect.client.schemas.sorting import FlowRunSort
from prefect.input.run_input import Keyset, keyset_from_paused_state
from prefect.states import Paused, Pending, Running

from flows.journal import InboxEntry
from flows.prefect_picture import Shown
from flows.prefect_questions import Question, closing
from flows.prefect_steps import StepRuns
from flows.state import ExecutionState

_OPEN = [StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.SCHEDULED, StateType.CANCELLING]
_GRACE = timedelta(minutes=1)
"""The form outlives the deadline by this: it is the engine that says what silence means."""

Put = Callable[[InboxEntry], Awaitable[int]]


@dataclass
class Asked:
    """A question that has been put to Prefect, as far as that has come."""

    question: Question
    child: UUID | None = None
    keyset: Keyset | None = None
    """Of the pause that is open; None when none is."""
    remark: str = ""
    """Why the last answer did not count."""
    entry: int = 0
    """The last answer's number in the inbox."""


class Asking:
    """The questions of one flow run."""

    def __init__(self, client: PrefectClient, steps: StepRuns, label: str, put: Put) -> None:
        """label: names the children's runs. put: puts an answer into the inbox and gives its number."""
        self._client = client
        self._steps = steps
        self._flow_run = steps.flow_run
        self._label = label
        self._put = put
        self._asked: dict[tuple[str, str, datetime], Asked] = {}

    async def show(self, questions: Iterable[Question], state: ExecutionState) -> None:
        """End the children of questions that are settled and ask those that are new, or open again after an answer."""
        wanted = {question.key: question for question in questions}
        for key, asked in list(self._asked.items()):
            if key not in wanted:
                if asked.child is not None:
                    await self.end(asked.child, closing(asked.question, state))
                del self._asked[key]
        for key, question in wanted.items():
            asked = self._asked.setdefault(key, Asked(question))
            asked.question = question
            if asked.keyset is None and asked.entry <= state.adopted:
                await self._ask(asked)

    async def poll(self) -> None:
        """Read the answers that were given since the last time."""
        waiting = {asked.child: asked for asked in self._asked.values() if asked.child and asked.keyset}
        if not waiting:
            return
        runs = await self._client.read_flow_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(waiting))), sort=FlowRunSort.ID_DESC, limit=len(waiting)
        )
        states = {run.id: run.state for run in runs}
        for child, asked in waiting.items():
            state = states.get(child)
            if state is not None and state.is_paused():
                continue
            if state is not None and state.is_running():
                await self._take(asked)
            else:  # somebody cancelled or removed the form: that is no answer, so a new one is opened
                if state is not None and not state.is_final():
                    await self.end(child, Shown("CANCELLED", "Withdrawn", "the form was taken away"))
                asked.child = asked.keyset = None

    async def end_strays(self) -> None:
        """End every open child that is not ours: of an attempt that died, or whose creation was not answered."""
        ours = {asked.child for asked in self._asked.values()}
        for run in await open_children(self._client, self._flow_run):
            if run.id not in ours:
                await self.end(run.id, Shown("CANCELLED", "Superseded", "asked anew; an answer here is read by nobody"))

    async def end(self, child: UUID, shown: Shown) -> None:
        """Give a child its final state."""
        await end_flow_run(self._client, child, shown)

    async def _ask(self, asked: Asked) -> None:
        """Open a form; what was reached when the API fails is kept and not done again."""
        question = asked.question
        if asked.child is None:
            asked.child = await self._child(question)
        key = uuid4().hex  # a fired key lets a retried run pass its pause: never one twice
        left = question.deadline - datetime.now(UTC) + _GRACE
        pause: State[Any] = Paused(timeout_seconds=max(60, int(left.total_seconds())), pause_key=key)
        keyset = keyset_from_paused_state(pause)
        pause.state_details.run_input_keyset = {str(name): value for name, value in keyset.items()}
        text = f"_{asked.remark}_\n\n{question.text}" if asked.remark else question.text
        schema = question.form().model_json_schema()
        await self._client.create_flow_run_input(asked.child, keyset["schema"], json.dumps(schema))
        await self._client.create_flow_run_input(asked.child, keyset["description"], json.dumps(text))
        result = await self._client.set_flow_run_state(asked.child, pause)
        if result.status.value != "ACCEPT":
            asked.child = None  # it is not running any more: somebody ended it
            return
        asked.keyset = keyset

    async def _child(self, question: Question) -> UUID:
        def ask() -> None:
            """Drawn by hand below."""

        upstream: list[Any] = [TaskRunResult(id=self._steps.task_run(step)) for step in question.after]
        run = await self._client.create_task_run(
            Task(ask, name=question.name), self._flow_run, dynamic_key=uuid4().hex, name=question.name, state=Pending(),
            task_inputs={"wait_for": upstream},
        )  # fmt: skip
        flow = Flow(ask, name=question.name, retries=0)
        created: FlowRun = await self._client.create_flow_run(
            flow, name=f"{self._label} {question.subject}", parent_task_run_id=run.id, state=Running()
        )
        await self._client.create_artifact(ArtifactCreate(type="markdown", data=question.text, flow_run_id=created.id))
        return created.id

    async def _take(self, asked: Asked) -> None:
        """Read one sent form; what says nothing is said so in the form that opens next."""
        if asked.child is None or asked.keyset is None:
            return
        values = json.loads(await self._client.read_flow_run_input(asked.child, asked.keyset["response"]))
        said = asked.question.said(values if isinstance(values, dict) else {})
        if isinstance(said, str):
            asked.remark = said
        else:
            asked.remark = f"recorded: {said.by} said {values['decision']}"
            asked.entry = await self._put(said)
        asked.keyset = None


async def open_children(client: PrefectClient, flow_run: UUID) -> list[FlowRun]:
    """Child flow runs that have not ended."""
    return await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_OPEN)),
        ),
        sort=FlowRunSort.ID_DESC,
        limit=200,
    )


async def end_flow_run(client: PrefectClient, flow_run: UUID, shown: Shown) -> None:
    """Give a flow run a state, whatever it is in."""
    state: State[Any] = State(type=StateType(shown.type), name=shown.name, message=shown.message)
    await client.set_flow_run_state(flow_run, state, force=True)
