"""How long a run of 500 steps takes from its end to its report in all formats, and what reading the history costs."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import overhead
from deployments.reporting import FORMATS, render, write_all
from flows.clock import SystemClock
from flows.history import read
from flows.journal_sqlite import SqliteJournal
from flows.report import build, read_source
from flows.runs import Request, start
from runbooks.loader import load_text
from runbooks.model import Mode
from runbooks.planner import plan
from tasks import registry

STEPS = 500


@dataclass
class Times:
    """Seconds of each round."""

    whole: list[float] = field(default_factory=list)
    """read the journal, check its chain, build the report, write every format"""
    processor: list[float] = field(default_factory=list)
    """the same, without what other processes took of the machine"""
    formats: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in FORMATS})
    history: list[float] = field(default_factory=list)
    """what the next run of the same runbook learns, on its side thread"""


def run(rounds: int) -> Times:
    """Carry the steps out once, through a journal on disk, then report on them again and again."""
    registry.OURS.setdefault("bench.noop", "benchmarks.overhead:Noop")
    overhead.DONE.clear()
    planned = plan(load_text(overhead.runbook_text(STEPS), "noops.yaml"), mode=Mode.live, inputs={})
    times = Times()
    with tempfile.TemporaryDirectory() as folder:
        journal = SqliteJournal(Path(folder) / "journal.db")
        engine = start(journal, Request(planned, "bench", "bench"), SystemClock())
        engine.run()
        for _ in range(rounds):
            begun, used = time.perf_counter(), time.process_time()
            report = build(read_source(journal, engine.execution, planned))
            write_all(report, Path(folder) / "reports")
            times.whole.append(time.perf_counter() - begun)
            times.processor.append(time.process_time() - used)
            for name, known in times.formats.items():
                begun = time.perf_counter()
                render(report, name)
                known.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            read(journal, planned.runbook.name)
            times.history.append(time.perf_counter() - begun)
        journal.close()
    return times
