"""Out and home again, five times in a row, in one lab under load: what the way home cost the customers.

Usage: python -m benchmarks.failback [--rounds 5] [--sync] [--lab 94]

Each round kills the primary after it has written for a moment what its standby never got, fails over, and returns with
the shipped runbook. Counted from the start of the way home: orders lost, orders written twice, and the longest time
without an acknowledged order.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deployments.lab import Lab
from runbooks.shipped import find

NUMBER = 94
_UNREPLICATED = 0.5  # seconds


@dataclass(frozen=True)
class Round:
    """One way out and home. lost_out: orders lost by the failover; the rest counts the way home alone."""

    lost_out: int
    lost: int
    duplicated: int
    given_up: int
    two_writers: bool
    pause: float
    took: float


def run(rounds: int, say: Callable[[str], None], *, number: int = NUMBER, sync: bool = False) -> list[Round]:
    """Go out and come home so many times, without a reset in between."""
    lab, results = Lab(number), list[Round]()
    lab.down()
    lab.up(sync=sync)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for one in range(1, rounds + 1):
                results.append(_round(lab, Path(folder), sync=sync))
                say(f"round {one}: {results[-1]}")
    finally:
        lab.down()
    return results


def _round(lab: Lab, folder: Path, *, sync: bool) -> Round:
    time.sleep(1)
    if not sync:
        lab.cut("east", "replication", "blackhole")
        time.sleep(_UNREPLICATED)
    earlier = len(lab.traffic_report().missing)
    fault = lab.break_node("primary", "kill")
    _carry_out(lab, folder, "region-failover", "--approve", "go")
    lab.cut("east", "replication", "open")
    _settled(lab, fault)
    before = lab.traffic_report(fault)
    since = datetime.now(UTC)
    gates = ("--approve", "sign-off", "--approve", "window")
    took = _carry_out(lab, folder, "region-failback", *gates, "-i", "soak=1s", "-i", "hold=2s", sync=sync)
    _settled(lab, since)
    after = lab.traffic_report(since)
    pause = after.downtime.total_seconds() if after.downtime else 0.0
    return Round(
        len(before.missing) - earlier, len(set(after.missing) - set(before.missing)), len(after.duplicated),
        after.given_up - before.given_up, after.two_writers, pause, took,
    )  # fmt: skip


def _carry_out(lab: Lab, folder: Path, name: str, *more: str, sync: bool = False) -> float:
    text = find(name).read_text().replace("127.77.", f"127.{lab.number}.")
    if sync:
        text = text.replace('away_synchronous: ""', "away_synchronous: east").replace('home_synchronous: ""', "home_synchronous: west")
    path = folder / f"{name}.yaml"
    path.write_text(text)
    environ = {**os.environ, **lab.environment(), "FAILOVER_JOURNAL": str(folder / "journal.db")}
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "deployments", "run", str(path), "--live", "--plain", "--as", "bench", *more], env=environ,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300,
    )  # fmt: skip
    if ended.returncode != 0:
        raise RuntimeError(f"{name} ended with exit {ended.returncode}:\n{ended.stdout[-3000:]}")
    return time.monotonic() - began


def _settled(lab: Lab, since: datetime) -> None:
    """Wait for the new primary's first order, and for the answers to those that were being retried."""
    end = time.monotonic() + 30
    while lab.traffic_report(since).first_ack_by_new_primary is None:
        if time.monotonic() > end:
            raise RuntimeError("no order was acknowledged by the new primary within 30 s")
        time.sleep(0.2)
    time.sleep(2.5)


def main() -> None:
    """Print each round; exit 1 when any lost or doubled an order."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failback")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sync", action="store_true")
    parser.add_argument("--lab", type=int, default=NUMBER)
    given = parser.parse_args()
    results = run(given.rounds, lambda text: print(text, flush=True), number=given.lab, sync=given.sync)
    sys.exit(any(one.lost or one.duplicated or one.given_up or one.two_writers for one in results))


if __name__ == "__main__":
    main()
