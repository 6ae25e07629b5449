"""The same 100 steps as a Prefect flow of ours, beside a plain Prefect flow of 100 tasks, on the same server."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from benchmarks.overhead import DONE, STEPS, runbook_text


def run(rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds a step: ours, and the plain flow. Starts and stops a Prefect server of its own."""
    from deployments.prefect_server import start

    with tempfile.TemporaryDirectory() as folder:
        server = start(Path(folder) / "prefect")
        os.environ["PREFECT_API_URL"] = server.api
        os.environ["FAILOVER_JOURNAL"] = str(Path(folder) / "journal.db")
        try:
            return _rounds(rounds, Path(folder))
        finally:
            server.stop()


def _rounds(rounds: int, folder: Path) -> tuple[list[float], list[float]]:
    from prefect import flow, task

    from deployments.journal_location import open_journal
    from flows.prefect_flow import compile_flow
    from runbooks.loader import load
    from tasks import registry

    registry.OURS.setdefault("bench.noop", "benchmarks.overhead:Noop")
    path = folder / "noops.yaml"
    path.write_text(runbook_text())
    ours = compile_flow(load(path), open_journal)

    @task
    def nothing(_before: object) -> None:
        return None

    @flow(name="plain")
    async def plain() -> None:
        before = None
        futures = []
        for _ in range(STEPS):
            before = nothing.submit(None, wait_for=[before] if before is not None else None)
            futures.append(before)
        for future in futures:
            future.wait()

    return _timed(rounds, ours), _timed(rounds, plain)


def _timed(rounds: int, flow_to_run: object) -> list[float]:
    import asyncio

    results = []
    for number in range(rounds + 1):
        DONE.clear()
        arguments = {} if getattr(flow_to_run, "name", "") == "plain" else {"mode": "live", "your_name": "bench"}
        begun = time.perf_counter()
        asyncio.run(flow_to_run(**arguments))  # type: ignore[operator]
        if number:
            results.append((time.perf_counter() - begun) / STEPS * 1000)
    return results
