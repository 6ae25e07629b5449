"""What the reconciler gives Prefect, for each thing that the journal may say."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest

from flows.events import Event, ExecutionFinished, ExecutionStarted, Status, StepFinished, StepStarted, Verdict
from flows.holders import me
from flows.journal_sqlite import SqliteJournal
from flows.runs import our_version
from runbooks.loader import load
from runbooks.model import Mode
from runbooks.planner import plan
from tests.prefect.conftest import RUNBOOKS, Prefect, Run, eventually

pytestmark = pytest.mark.prefect
Found = TypeVar("Found")
LONG_AGO = datetime.now(UTC) - timedelta(hours=1)
DEAD, ALIVE = me("").boot.rpartition("/")[0] + "/another-birth", ""
"""The boot of a holder that is certainly gone, and one of which nothing is known."""


class Case:
    """A flow run that nobody carries out, and a journal that says what became of it."""

    def __init__(self, prefect: Prefect, journal: SqliteJournal, world: Path) -> None:
        flow = prefect.http.post("/flows/", json={"name": "slow"}).json()["id"]
        state = {"type": "RUNNING", "name": "Running"}
        found = prefect.http.post("/flow_runs/", json={"flow_id": flow, "state": state}).json()
        self.run = Run(prefect.http, found["id"], journal, world)
        self.plan = plan(load(RUNBOOKS / "slow.yaml"), mode=Mode.live, inputs={"world": str(world)})

    def write(self, *events: Event) -> None:
        number = len(self.run.events())
        self.run.journal.append(self.run.execution, number, events)

    def started(self, boot: str, channel: str = "") -> ExecutionStarted:
        return ExecutionStarted(
            at=LONG_AGO, version=our_version(), runbook="slow", title="Slow", service="shop", file=self.plan.file,
            text=self.plan.text, plan_hash=self.plan.hash, mode=Mode.live, inputs=dict(self.plan.inputs), rto=300.0, rpo=None,
            initiator="ines", channel=channel or f"prefect:{self.run.id}", host=platform.node(), pid=1, boot=boot,
        )  # fmt: skip

    def reconcile(self, server: str, **more: Any) -> tuple[str, str] | None:
        from flows.prefect_reconcile import reconcile

        async def go(client: Any) -> Any:
            flow_run = await client.read_flow_run(UUID(self.run.id))
            return await reconcile(client, self.run.journal, flow_run, **more)

        shown = with_client(server, go)
        return (shown.type, shown.name) if shown is not None else None

    def tell_twice(self, server: str) -> None:
        from flows.prefect_picture import steps
        from flows.prefect_steps import StepRuns

        async def go(client: Any) -> None:
            wanted = steps(self.plan, self.run.journaled())
            tellers = [StepRuns(client, UUID(self.run.id), self.plan) for _ in range(3)]
            await asyncio.gather(*(teller.show(wanted) for teller in tellers))

        with_client(server, go)


def with_client(server: str, go: Callable[[Any], Awaitable[Found]]) -> Found:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    async def inside() -> Found:
        with temporary_settings({PREFECT_API_URL: server}):
            async with get_client() as client:
                return await go(client)

    return asyncio.run(inside())


@pytest.fixture
def case(prefect: Prefect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import sys

    from tasks import registry

    monkeypatch.syspath_prepend(str(Path(__file__).parent / "plugin"))
    registry._others.cache_clear()
    registry.action_type.cache_clear()
    journal = SqliteJournal(tmp_path / "journal.db")
    yield Case(prefect, journal, tmp_path)
    journal.close()
    registry._others.cache_clear()
    registry.action_type.cache_clear()
    sys.modules.pop("failover_sim", None)


@pytest.fixture
def long_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow run has been so for long enough to be looked at."""
    import flows.prefect_reconcile as module

    monkeypatch.setattr(module, "GRACE", timedelta(0))
    monkeypatch.setattr(module, "NEVER_STARTED", timedelta(0))


def test_an_execution_that_ended_is_completed_with_every_step(case: Case, prefect: Prefect, long_since: None) -> None:
    steps = ["one", "two", "three", "four", "five"]
    events: list[Event] = []
    for number, name in enumerate(steps, start=1):
        start, end = LONG_AGO + timedelta(seconds=number), LONG_AGO + timedelta(seconds=number + 1)
        events += [StepStarted(at=start, step=name, attempt=1),
                   StepFinished(at=end, step=name, attempt=1, status=Status.done, detail="fine")]  # fmt: skip
    case.write(case.started(ALIVE), *events, ExecutionFinished(at=LONG_AGO + timedelta(seconds=9), verdict=Verdict.recovered, detail="ok"))
    assert case.reconcile(prefect.server.api) == ("COMPLETED", "Recovered")
    assert case.run.state() == ("COMPLETED", "Recovered")
    eventually(lambda: case.run.steps() == dict.fromkeys(steps, ("COMPLETED", "Done")))
    assert case.run.edges()["three"] == {"two"}
    pages = prefect.http.post("/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [case.run.id]}}}).json()
    assert {page["key"] for page in pages} == {"failover-timeline", "failover-report"}
    assert case.reconcile(prefect.server.api) is None


def test_a_refusal_is_not_completed(case: Case, prefect: Prefect, long_since: None) -> None:
    case.write(case.started(ALIVE), ExecutionFinished(at=LONG_AGO, verdict=Verdict.refused, detail="ada said no"))
    assert case.reconcile(prefect.server.api) == ("FAILED", "Refused")


def test_one_whose_process_is_dead_has_crashed_and_says_how_to_go_on(case: Case, prefect: Prefect, long_since: None) -> None:
    case.write(case.started(DEAD), StepStarted(at=LONG_AGO, step="one", attempt=1))
    assert case.reconcile(prefect.server.api) == ("CRASHED", "Crashed")
    assert case.run.execution in case.run.message()


def test_one_whose_process_may_live_is_left_alone(case: Case, prefect: Prefect, long_since: None) -> None:
    case.write(case.started(ALIVE), StepStarted(at=LONG_AGO, step="one", attempt=1))
    assert case.reconcile(prefect.server.api) is None
    assert case.run.state() == ("RUNNING", "Running")


def test_one_that_just_ended_is_left_to_its_own_process(case: Case, prefect: Prefect) -> None:
    case.write(case.started(ALIVE), ExecutionFinished(at=LONG_AGO, verdict=Verdict.recovered, detail="ok"))
    assert case.reconcile(prefect.server.api) is None
    assert case.reconcile(prefect.server.api, gone=True) == ("COMPLETED", "Recovered")


def test_somebody_elses_execution_is_left_alone(case: Case, prefect: Prefect, long_since: None) -> None:
    case.write(case.started(DEAD, channel="prefect:another"), ExecutionFinished(at=LONG_AGO, verdict=Verdict.recovered, detail=""))
    assert case.reconcile(prefect.server.api) is None


def test_one_that_was_asked_for_again_is_left_alone(case: Case, prefect: Prefect, long_since: None) -> None:
    case.write(case.started(DEAD), ExecutionFinished(at=LONG_AGO, verdict=Verdict.failed, detail=""))
    case.run.retry(force=True)  # it has no deployment
    assert case.reconcile(prefect.server.api, gone=True) is None


def test_one_whose_process_ended_before_its_first_event_has_crashed(case: Case, prefect: Prefect) -> None:
    assert case.reconcile(prefect.server.api) is None
    assert case.reconcile(prefect.server.api, gone=True) == ("CRASHED", "Crashed")


def test_the_same_truth_told_twice_at_the_same_time_is_recorded_once(case: Case, prefect: Prefect) -> None:
    """Else Prefect's recorder retries the second for ever and everything after it is late."""
    case.write(case.started(ALIVE), StepStarted(at=LONG_AGO, step="one", attempt=1))
    case.tell_twice(prefect.server.api)
    eventually(lambda: case.run.steps().get("five") == ("PENDING", "Pending"))
    assert "IntegrityError" not in (Path(prefect.server.home) / "server.log").read_text()
