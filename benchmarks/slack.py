"""What Slack costs a run: the automation time of the same run without Slack and beside one that fails in each way.

Each run has a process of its own, as `failover run` does, and so imports slack_sdk while its steps go on. The Slack is
the lab's, in this process. Usage: python -m benchmarks.slack [--rounds 10]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from benchmarks.measure import spread
from deployments.lab.addresses import Endpoint
from deployments.lab.slack import TOKEN
from deployments.lab.slack_server import Fault, SlackServer
from tasks.clients import Clients
from tasks.contract import Change, Mark, Probe

STEPS = 20
TAKES = 0.15
"""Seconds that each change is under way: the world's time, which no Slack changes."""
DETECTION = 1.5
FAULTS: dict[str, Fault | None] = {
    "no Slack": None, "healthy": Fault(), "answers after 10 s": Fault("slow", seconds=10),
    "limits our rate": Fault("rate-limit", seconds=2), "drops after accepting": Fault("drop"), "down": Fault("down"),
}  # fmt: skip
BEGUN: dict[str, float] = {}


class Nothing(BaseModel):
    """Whether it was done, and whether it has begun."""

    begun: bool
    done: bool


class Detected(Probe[Nothing]):
    """Take as long as a clear outage takes to be detected; what comes after it is automation."""

    name: ClassVar[str] = "bench.detected"
    interval: ClassVar[timedelta] = timedelta(milliseconds=100)

    def observe(self, clients: Clients) -> Nothing:
        begun = BEGUN.setdefault("detected", time.monotonic())
        return Nothing(begun=True, done=time.monotonic() - begun >= DETECTION)

    def done(self, state: Nothing) -> bool:
        return state.done

    def marks(self, state: Nothing) -> dict[Mark, datetime | None]:
        return {Mark.detected: None}


class Takes(Change[Nothing]):
    """Take a while."""

    name: ClassVar[str] = "bench.takes"
    interval: ClassVar[timedelta] = timedelta(milliseconds=20)
    reversible: ClassVar[bool] = True
    key: str

    @property
    def target(self) -> str:
        return f"bench:{self.key}"

    def observe(self, clients: Clients) -> Nothing:
        begun = BEGUN.get(self.key)
        return Nothing(begun=begun is not None, done=begun is not None and time.monotonic() - begun >= TAKES)

    def done(self, state: Nothing) -> bool:
        return state.done

    def underway(self, state: Nothing) -> bool:
        return state.begun

    def describe(self, before: Nothing) -> str:
        return f"do {self.key}"

    def act(self, before: Nothing, clients: Clients) -> None:
        BEGUN[self.key] = time.monotonic()


def runbook_text() -> str:
    """A chain of changes, told to #incidents."""
    lines = ["schema: failover/v1", "name: told", "title: Told in Slack", "service: bench", "owner: bench", "objectives: {rto: 1h}",
             f"recovered_when: s{STEPS - 1}", 'comms: {slack: "#incidents"}', "steps:"]  # fmt: skip
    lines += ["  - {id: detect, uses: bench.detected, budget: 5s}"]
    lines += [f"  - {{id: s{number}, uses: bench.takes, with: {{key: k{number}}}, budget: 5s}}" for number in range(STEPS)]
    return "\n".join(lines) + "\n"


def run(rounds: int) -> dict[str, list[float]]:
    """Automation time in seconds for each fault, interleaved in a new order each round: what ails the machine ails all."""
    results: dict[str, list[float]] = {name: [] for name in FAULTS}
    slack = SlackServer(Endpoint("127.0.0.1", 0))
    slack.open()
    try:
        for _ in range(rounds):
            for name in random.sample(list(FAULTS), len(FAULTS)):
                fault = FAULTS[name]
                slack.workspace.clear()
                slack.suffer(fault or Fault())
                results[name].append(_one(slack.url if fault is not None else None))
    finally:
        slack.close()
    return results


def lines(rounds: int) -> list[str]:
    """The results as Markdown."""
    results = run(rounds)
    base = statistics.median(results["no Slack"])
    about = (
        f"After {DETECTION} s of detection {STEPS} changes, each under way for {TAKES * 1000:.0f} ms, told to #incidents as `failover run` tells it; every run in a "
        "process of its own, the kinds interleaved."
    )
    table = ["## What Slack costs a run", "", about, "", "| Slack | automation time | beside none |", "|---|---|---|"]
    table += [
        f"| {name} | {spread(values)} | {(statistics.median(values) / base - 1) * 100:+.1f} % |" for name, values in results.items()
    ]
    return [*table, ""]


def _one(url: str | None) -> float:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLACK_")}
    environ |= {"SLACK_API_URL": url, "SLACK_BOT_TOKEN": TOKEN} if url else {}
    done = subprocess.run([sys.executable, "-m", "benchmarks.slack", "--one"], env=environ, capture_output=True, text=True, check=True,
                          timeout=120)  # fmt: skip
    return float(json.loads(done.stdout)["automation"])


def _carry_out() -> None:
    """Carry one run out in this process and print its automation time; Slack may be behind by then."""
    from deployments.slack import tell_slack
    from flows.clock import SystemClock, recovery_time
    from flows.journal_sqlite import SqliteJournal
    from flows.runs import Request, start
    from runbooks.loader import load_text
    from runbooks.model import Mode
    from runbooks.planner import plan
    from tasks import registry

    registry.OURS.update({"bench.takes": "benchmarks.slack:Takes", "bench.detected": "benchmarks.slack:Detected"})
    with tempfile.TemporaryDirectory() as folder:
        journal = SqliteJournal(Path(folder) / "journal.db")
        planned = plan(load_text(runbook_text(), "told.yaml"), mode=Mode.live, inputs={})
        engine = start(journal, Request(planned, "bench", "bench"), SystemClock())
        tell_slack(engine, journal)
        took = recovery_time(engine.run(), planned)
        if took is None:
            raise RuntimeError("the run did not recover")
        print(json.dumps({"automation": took.automation.total_seconds()}), flush=True)
    os._exit(0)  # not what is measured: the last words


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _carry_out()
    print("\n".join(lines(options.rounds)))


if __name__ == "__main__":
    main()
