"""Artifacts of a flow run: what is so now (rewritten while it runs); the timeline and the report at its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

from flows.journal import Journal
from flows.report import build, read_source
from flows.report_parts import Report
from flows.report_text import markdown, markdown_table, recovery_lines, timeline_rows, timeline_text
from flows.state import ExecutionState
from flows.watching import view
from runbooks.plan import Plan
from tasks.durations import show_time

STATUS, TIMELINE, REPORT = "failover-status", "failover-timeline", "failover-report"
"""The same for all runs: the UI shows every execution's page as one of the versions."""
REFRESH = 5.0
"""Seconds after which the page is written again though nothing happened: the RTO runs on."""


class StatusPage:
    """What is happening now, what is next, who must decide, and how much of the RTO is left."""

    def __init__(self, client: PrefectClient, flow_run: UUID, plan: Plan) -> None:
        self._client = client
        self._flow_run = flow_run
        self._plan = plan
        self._artifact: UUID | None = None
        self._shown: ExecutionState | None = None
        self._at = -REFRESH

    async def show(self, state: ExecutionState, last_seen: Mapping[str, str]) -> None:
        """Write the page when something happened since the last time, or a while ago."""
        if state is self._shown and time.monotonic() - self._at < REFRESH:
            return
        self._at = time.monotonic()
        text = status_page(self._plan, state, datetime.now(UTC), last_seen)
        if self._artifact is None:
            page = ArtifactCreate(key=STATUS, type="markdown", description=self._plan.runbook.title, data=text, flow_run_id=self._flow_run)
            self._artifact = (await self._client.create_artifact(page)).id
        else:
            await self._client.update_artifact(self._artifact, ArtifactUpdate(data=text))
        self._shown = state


def status_page(plan: Plan, state: ExecutionState, at: datetime, last_seen: Mapping[str, str]) -> str:
    """The page at a time, in Markdown."""
    now = view(plan, state, at, last_seen)
    asked = [f"{one.name} (until {show_time(one.deadline, at)})" for one in now.questions]
    lines = [
        f"## {plan.runbook.title}", "", f"**{now.clock.replace('|', '·')}**" + (" — LATE" if now.late else ""), "",
        f"- now: {', '.join(now.now) or 'nothing'}",
        f"- next: {', '.join(now.next) or 'nothing'}",
        f"- people must decide: {', '.join(asked) or 'nothing'}", "",
        "| step | status | budget | actual | last seen |", "|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {one.step} | {one.status} | {one.budget} | {one.actual} | {_cell(one.text)} |" for one in now.steps]
    return "\n".join([*lines, "", f"As of {at:%H:%M:%S} UTC."])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


async def publish_report(client: PrefectClient, flow_run: UUID, execution: str, plan: Plan, journal: Journal) -> None:
    """Put the timeline and the whole report on the flow run's page, in place of those of an earlier end."""
    report = await asyncio.to_thread(lambda: build(read_source(journal, execution, plan)))
    chosen = {"flow_run_id": {"any_": [str(flow_run)]}, "key": {"any_": [TIMELINE, REPORT]}}
    # not client.read_artifacts: it sends nulls that the server of 3.8.8 answers with 422
    found = await client.request("POST", "/artifacts/filter", json={"artifacts": chosen})
    there = {one["key"]: UUID(one["id"]) for one in found.json()}
    for key, text in ((TIMELINE, timeline_page(report)), (REPORT, markdown(report))):
        if key in there:
            await client.update_artifact(there[key], ArtifactUpdate(data=text))
        else:
            page = ArtifactCreate(key=key, type="markdown", description=report.title, data=text, flow_run_id=flow_run)
            await client.create_artifact(page)


def timeline_page(report: Report) -> str:
    """The timeline in Markdown: what was the recovery time, bars, and every step's times."""
    lines = ["## Timeline", "", *(f"    {line}" for line in recovery_lines(report)), "", "```text", *timeline_text(report), "```", ""]
    return "\n".join([*lines, *markdown_table(timeline_rows(report))])
