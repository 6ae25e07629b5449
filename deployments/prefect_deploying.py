"""Runbooks as Prefect deployments, and the loop that serves them until somebody says stop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import closing
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings
from prefect.utilities.urls import url_for

from deployments import prefect_served
from deployments.journal_location import open_journal
from deployments.prefect_runner import Runner
from deployments.prefect_server import child_environment
from deployments.serve import ADDRESS, READY
from deployments.slack import sweep
from flows.prefect_flow import compile_flow
from runbooks.loader import Loaded

TAG = "failover"


async def serve_until_told(runbooks: Sequence[Loaded]) -> None:
    """Deploy the runbooks and start their runs until SIGTERM or Ctrl-C; raises ConnectionError when Prefect is not there."""
    stop, over = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    url = get_current_settings().api.url
    with closing(open_journal()) as journal, temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 2}):
        async with get_client() as client:
            await _demand_health(client, url)
            deployments = {runbook.runbook.name: await deploy(client, runbook) for runbook in runbooks}
            _tell(deployments, journal.place, get_current_settings().ui_url or url)
            sweep(open_journal, over)
            runner = Runner(client, journal, list(deployments.values()), child_environment(PREFECT_API_URL=url or ""))
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):  # the loops themselves try again
                await runner.run(stop)
            over.set()


async def _demand_health(client: PrefectClient, url: str | None) -> None:
    trouble = await client.api_healthcheck()
    if trouble is not None:
        raise ConnectionError(f"Prefect does not answer at {url} ({type(trouble).__name__}); `failover run` needs no Prefect")


async def deploy(client: PrefectClient, runbook: Loaded) -> UUID:
    """Create or update the deployment of a runbook: named as it is, with its form; give its id."""
    name = runbook.runbook.name
    flow = compile_flow(runbook, open_journal)
    flow_id = await client.create_flow(flow)
    return await client.create_deployment(
        flow_id=flow_id, name=name, version=flow.version, description=flow.description,
        tags=[TAG, runbook.runbook.service], path=os.environ[prefect_served.FOLDER],
        entrypoint=f"{prefect_served.__name__}.{name}",
        parameter_openapi_schema=flow.parameters.model_dump_for_openapi(), enforce_parameter_schema=True,
    )  # fmt: skip


def _tell(deployments: dict[str, UUID], journal: str, ui: str | None) -> None:
    print(f"{ADDRESS}{ui}")
    width = max(map(len, deployments))
    for name, deployment in deployments.items():
        print(f"  {name:<{width}}  {url_for('deployment', obj_id=deployment) or deployment}")
    print("  to run one: open its address and press Run; gates are answered under Runs, or with `failover approve`")
    print(f"{READY}{len(deployments)} runbook(s), journal {journal}; Ctrl-C ends it", flush=True)
