"""The report of an execution as an artifact of its flow run."""

from __future__ import annotations

import asyncio

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate

from flows.prefect_mirror import Subject
from flows.report import build, markdown

KEY = "failover-report"
"""The same for all: the UI shows every execution's report as one of its versions."""


async def publish(client: PrefectClient, subject: Subject) -> None:
    """Add the report, in Markdown, to the flow run."""
    rows = await asyncio.to_thread(subject.journal.read, subject.execution)
    report = build(subject.execution, subject.plan, [event for _, event in rows], subject.journal.place, ())
    await client.create_artifact(
        ArtifactCreate(key=KEY, type="markdown", description=report.title, data=markdown(report), flow_run_id=subject.flow_run)
    )
