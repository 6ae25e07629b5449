"""Where entrypoints lead: `deployments.prefect_served.region-failover` is the flow of the runbook of that name.

The folder comes from FAILOVER_RUNBOOKS, the journal from FAILOVER_JOURNAL. A flow is compiled when it is asked for, so
that any Prefect worker in which both are set can carry a runbook out, not only `failover serve`.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployments.copies import demand_no_more_here, keep_copies
from deployments.journal_location import open_journal
from deployments.origins import check_origins
from deployments.reporting import leave_at_end
from deployments.slack import tell_slack
from flows.engine import Engine
from flows.journal import Journal
from runbooks.loader import Loaded, load
from runbooks.problems import RunbookError

FOLDER = "FAILOVER_RUNBOOKS"


def __getattr__(name: str) -> Any:
    """Compile the runbook called `name`."""
    if name.startswith("_") or FOLDER not in os.environ:
        raise AttributeError(f"{__name__} has no {name}; {FOLDER} names the folder of the runbooks")
    check_origins()
    from flows.prefect_flow import compile_flow

    return compile_flow(find(Path(os.environ[FOLDER]), name), open_journal, attend=attend, demand=demand_no_more_here, module=__name__)


def attend(engine: Engine, journal: Journal) -> None:
    """Keep the copies that `failover run` keeps, leave the report beside the journal at the end, and tell Slack, as it does."""
    leave_at_end(engine, open_journal)
    keep_copies(engine, journal)
    telling = tell_slack(engine, journal)
    if telling is not None:
        atexit.register(telling.last_words)  # the run's process ends with the run


def files(folder: Path) -> list[Path]:
    """The runbooks of a folder, by file name."""
    return sorted(path for path in folder.iterdir() if path.suffix in {".yaml", ".yml"} and path.is_file())


def find(folder: Path, name: str) -> Loaded:
    """The first runbook of that name; the file may be called otherwise. Raises AttributeError, or RunbookError."""
    for path in _likely_first(folder, name):
        try:
            loaded = load(path)
        except RunbookError:
            if path.stem == name:
                raise
            continue
        if loaded.runbook.name == name:
            return loaded
    raise AttributeError(f"no runbook in {folder} is named '{name}'")


def _likely_first(folder: Path, name: str) -> Iterator[Path]:
    yield from sorted(files(folder), key=lambda path: path.stem != name)
