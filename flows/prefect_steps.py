"""One task run per step, with the runbook's edges, told to Prefect as its own task engine tells: by task-run events.

A task run has a key of its own (flow run, step), so that a retried flow run, another process or the reconciler goes on
with the same node of the graph. Events carry the journal's times: what is told after an outage of Prefect still stands
where it happened. One request tells any number of changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid5

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun
from prefect.client.schemas.sorting import TaskRunSort
from prefect.events import Event, RelatedResource, Resource

from flows.prefect_picture import Shown, StateType, StepShown
from runbooks.plan import Plan

_PAGE = 200
_TICK = timedelta(microseconds=1)


class StepRuns:
    """The task runs of one flow run; remembers what Prefect was told."""

    def __init__(self, client: PrefectClient, flow_run: UUID, plan: Plan) -> None:
        self._client = client
        self.flow_run = flow_run
        self._plan = plan
        self._told: dict[str, StepShown | Shown] = {}
        self._stamps: dict[str, datetime] = {}

    def task_run(self, step: str) -> UUID:
        """The task run's id: the same in every process."""
        return uuid5(self.flow_run, f"step:{step}")

    async def load(self) -> None:
        """Learn what Prefect shows already, for a run that somebody else told about before."""
        ours = FlowRunFilter(id=FlowRunFilterId(any_=[self.flow_run]))
        found: list[TaskRun] = []
        while len(found) % _PAGE == 0:
            page = await self._client.read_task_runs(
                flow_run_filter=ours, sort=TaskRunSort.ID_DESC, limit=_PAGE, offset=len(found)
            )
            if not page:
                break
            found += page
        by_id = {run.id: run.state for run in found if run.state is not None}
        for step in self._plan.steps:
            state = by_id.get(self.task_run(step.id))
            if state is not None:
                self._told[step.id] = Shown(cast("StateType", state.type.value), state.name or "", state.message or "")
                self._stamps[step.id] = state.timestamp

    async def show(self, wanted: Mapping[str, StepShown]) -> list[str]:
        """Tell Prefect what changed; give the steps that were told. Raises what the client raises, and then knows nothing."""
        changed = {step: shown for step, shown in wanted.items() if not self._knows(step, shown)}
        if not changed:
            return []
        stamps = {step: max(shown.at, self._stamps.get(step, shown.at) + _TICK) for step, shown in changed.items()}
        events = [self._event(step, shown, stamps[step]).model_dump(mode="json") for step, shown in changed.items()]
        await self._client.request("POST", "/events", json=events)
        self._told.update(changed)
        self._stamps.update(stamps)
        return list(changed)

    def _knows(self, step: str, shown: StepShown) -> bool:
        told = self._told.get(step)
        return told in (shown, shown.state)

    def _event(self, step: str, shown: StepShown, at: datetime) -> Event:
        told = self._told.get(step)
        before = told.state if isinstance(told, StepShown) else told
        state = {"type": shown.state.type, "name": shown.state.name, "message": shown.state.message, "state_details": {}}
        return Event(
            id=uuid5(self.task_run(step), at.isoformat()),  # told twice it is one state; else the server's recorder chokes
            occurred=at,
            event=f"prefect.task-run.{shown.state.name}",
            resource=Resource(
                {
                    "prefect.resource.id": f"prefect.task-run.{self.task_run(step)}",
                    "prefect.resource.name": step,
                    "prefect.run-count": str(shown.attempt),
                    "prefect.state-message": shown.state.message,
                    "prefect.state-name": shown.state.name,
                    "prefect.state-timestamp": at.isoformat(),
                    "prefect.state-type": shown.state.type,
                    "prefect.orchestration": "client",  # only such events are recorded as task runs
                }
            ),
            related=[
                RelatedResource(
                    {"prefect.resource.id": f"prefect.flow-run.{self.flow_run}", "prefect.resource.role": "flow-run"}
                )
            ],
            payload={
                "intended": {"from": before.type if before else None, "to": shown.state.type},
                "initial_state": {"type": before.type, "name": before.name, "state_details": {}} if before else None,
                "validated_state": {**state, "data": None},
                "task_run": self._attributes(step, shown),
            },
        )

    def _attributes(self, step: str, shown: StepShown) -> dict[str, Any]:
        upstream = [{"input_type": "task_run", "id": str(self.task_run(name))} for name in self._plan.by_id[step].after]
        began, ended = shown.began, shown.ended
        spent = (ended - began).total_seconds() if began and ended else 0.0
        return {
            "name": step,
            "task_key": f"{self._plan.runbook.name}.{step}",
            "dynamic_key": step,
            "run_count": shown.attempt,
            "flow_run_run_count": 1,
            "expected_start_time": (began or shown.at).isoformat(),
            "start_time": began.isoformat() if began else None,
            "end_time": ended.isoformat() if ended else None,
            "total_run_time": max(0.0, spent),
            "task_inputs": {"wait_for": upstream},
            "empirical_policy": {"retries": 0},
            "tags": [],
        }
