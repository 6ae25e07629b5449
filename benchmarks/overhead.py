"""What the engine costs a step: a plan of 100 changes that do nothing, direct and as a Prefect flow beside a plain one."""

from __future__ import annotations

import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from flows.clock import SystemClock
from flows.journal_sqlite import SqliteJournal
from flows.runs import Request, start
from runbooks.loader import load_text
from runbooks.model import Mode
from runbooks.planner import plan
from tasks import registry
from tasks.clients import Clients
from tasks.contract import Change

STEPS = 100
DONE: set[str] = set()


class Nothing(BaseModel):
    """Whether it was done."""

    done: bool


class Noop(Change[Nothing]):
    """Do nothing, and say so."""

    name: ClassVar[str] = "bench.noop"
    interval: ClassVar[timedelta] = timedelta(milliseconds=20)
    reversible: ClassVar[bool] = True
    key: str

    @property
    def target(self) -> str:
        return f"bench:{self.key}"

    def observe(self, clients: Clients) -> Nothing:
        return Nothing(done=self.key in DONE)

    def done(self, state: Nothing) -> bool:
        return state.done

    def describe(self, before: Nothing) -> str:
        return f"do {self.key}"

    def act(self, before: Nothing, clients: Clients) -> None:
        DONE.add(self.key)

    def undo(self, before: Nothing, clients: Clients) -> None:
        DONE.discard(self.key)


def runbook_text(steps: int = STEPS) -> str:
    """A chain of no-ops as a runbook."""
    lines = ["schema: failover/v1", "name: noops", "title: Nothing, many times", "service: bench", "owner: bench",
             "objectives: {rto: 1h}", f"recovered_when: s{steps - 1}", "steps:"]  # fmt: skip
    lines += [f"  - {{id: s{number}, uses: bench.noop, with: {{key: k{number}}}, budget: 1s}}" for number in range(steps)]
    return "\n".join(lines) + "\n"


def direct(rounds: int) -> list[float]:
    """Milliseconds a step, engine and journal on disk, one after the other."""
    registry.OURS.setdefault("bench.noop", "benchmarks.overhead:Noop")
    results = []
    for _ in range(rounds):
        DONE.clear()
        with tempfile.TemporaryDirectory() as folder:
            journal = SqliteJournal(Path(folder) / "journal.db")
            planned = plan(load_text(runbook_text(), "noops.yaml"), mode=Mode.live, inputs={})
            engine = start(journal, Request(planned, "bench", "bench"), SystemClock())
            begun = time.perf_counter()
            state = engine.run()
            results.append((time.perf_counter() - begun) / STEPS * 1000)
            if state.verdict is None or state.verdict.value != "recovered":
                raise RuntimeError(f"the no-ops ended {state.verdict}")
            journal.close()
    return results
