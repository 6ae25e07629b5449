"""The process that carries out one flow run. It imports everything first, and only then waits to be told which one.

One is kept waiting by `failover serve`: from the click to the first look at the world it takes a fraction of a second
instead of the seconds that importing Prefect takes. Each run still has a process of its own.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from uuid import UUID


def main() -> None:
    """Import, wait for a flow run's id on standard input, carry it out; end quietly when nobody asks."""
    from deployments.origins import check_origins

    check_origins()
    from prefect.engine import handle_engine_signals
    from prefect.flow_engine import load_flow, load_flow_run, run_flow
    from prefect.logging.configuration import setup_logging

    import flows.prefect_flow  # noqa: F401 - what every run needs

    setup_logging()
    told = sys.stdin.readline().strip()
    if not told:
        return
    flow_run_id = UUID(told)
    with handle_engine_signals(flow_run_id):
        flow_run = load_flow_run(flow_run_id)
        result = run_flow(load_flow(flow_run), flow_run=flow_run)
        if inspect.iscoroutine(result):
            asyncio.run(result)


if __name__ == "__main__":
    main()
