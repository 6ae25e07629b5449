"""Fault to first order acknowledged by the new primary, in the lab: the shipped runbook beside a good hand script.

Ours is already detecting and its gate is preapproved; the script is already watching. Both stop the old primary, scale
the standby's fleet, promote and re-point DNS; customers are the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from deployments.lab import Lab
from runbooks.shipped import find

NUMBER = 95
HOW = ("kill", "freeze", "disconnect")


@dataclass
class Result:
    """One kind of fault: seconds from the fault to the first order by the new primary, and what else was seen."""

    ours: list[float] = field(default_factory=list)
    script: list[float] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    two_writers: int = 0
    script_two_writers: int = 0


def run(rounds: int, say: Callable[[str], None]) -> dict[str, Result]:
    """All faults, ours and the script in turn."""
    results = {how: Result() for how in HOW}
    lab = Lab(NUMBER)
    lab.down()
    with lab, tempfile.TemporaryDirectory() as folder:
        runbook = Path(folder) / "region-failover.yaml"
        runbook.write_text(find("region-failover").read_text().replace("127.77.", f"127.{NUMBER}."))
        for number in range(rounds):
            for how in HOW:
                _ours(lab, how, runbook, Path(folder), results[how])
                _script(lab, how, results[how])
                say(f"round {number + 1}, {how}: ours {results[how].ours[-1]:.2f} s, script {results[how].script[-1]:.2f} s")
    return results


@contextmanager
def _child(lab: Lab, *command: str, journal: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, **lab.environment()}
    environ |= {"FAILOVER_JOURNAL": str(journal)} if journal else {}
    with subprocess.Popen(
        [sys.executable, "-m", *command], env=environ, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as child:  # fmt: skip
        try:
            yield child
        finally:
            child.kill()


def _until(lines: IO[str] | None, word: str) -> None:
    for line in lines or ():
        if word in line:
            return
    raise RuntimeError(f"it ended before it said '{word}'")


def _first_order(lab: Lab, fault: object) -> tuple[float, bool, int]:
    end = time.monotonic() + 120
    while (report := lab.traffic_report(fault)).fault_to_new_primary is None:  # type: ignore[arg-type]
        if time.monotonic() > end:
            raise RuntimeError("no order was acknowledged by the new primary within 120 s")
        time.sleep(0.2)
    return report.fault_to_new_primary.total_seconds(), report.two_writers, len(report.missing)


def _ours(lab: Lab, how: str, runbook: Path, folder: Path, result: Result) -> None:
    lab.reset()
    time.sleep(1)
    journal = folder / "journal.db"
    command = ("deployments", "run", str(runbook), "--live", "--approve", "go", "--plain")
    with _child(lab, *command, journal=journal) as child:
        _until(child.stdout, "detect: starts")
        time.sleep(1.5)
        fault = lab.break_node("primary", how)  # type: ignore[arg-type]
        child.communicate(timeout=180)
        if child.returncode != 0:
            raise RuntimeError(f"exit {child.returncode} after {how}")
    seconds, two_writers, lost = _first_order(lab, fault)
    result.ours.append(seconds)
    result.lost.append(lost)
    result.two_writers += two_writers
    newest = max((folder / "reports").glob("*.json"), key=lambda path: path.stat().st_mtime)
    result.parts.append(json.loads(newest.read_text())["rta"])


def _script(lab: Lab, how: str, result: Result) -> None:
    lab.reset()
    time.sleep(1)
    with _child(lab, "benchmarks.hand_failover", str(NUMBER)) as child:
        _until(child.stdout, "watching")
        time.sleep(1.5)
        fault = lab.break_node("primary", how)  # type: ignore[arg-type]
        child.communicate(timeout=180)
    seconds, two_writers, _ = _first_order(lab, fault)
    result.script.append(seconds)
    result.script_two_writers += two_writers
