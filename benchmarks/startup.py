"""How long the command takes: help, check, and `run --live` until its first probe is out."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNBOOK = """schema: failover/v1
name: probe
title: One probe
service: bench
owner: bench
objectives: {rto: 5m}
recovered_when: look
steps:
  - id: look
    uses: detect.outage
    with:
      signals: {port: {tcp: {host: 127.0.0.1, port: 9}}}
      agree: 1
    on_failure: halt
"""


def command(*arguments: str) -> list[str]:
    """The command as it is run."""
    return [sys.executable, "-m", "deployments", *arguments]


def whole(rounds: int, *arguments: str) -> list[float]:
    """Seconds of the whole process."""
    results = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        subprocess.run(command(*arguments), check=True, stdout=subprocess.DEVNULL)
        results.append(time.perf_counter() - begun)
    return results[1:]


def first_probe(rounds: int) -> list[float]:
    """Seconds from the command's start until its first step has started (it looks at once)."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.yaml"
        path.write_text(RUNBOOK)
        environ = {**os.environ, "FAILOVER_JOURNAL": str(Path(folder) / "journal.db")}
        for _ in range(rounds + 1):
            begun = time.perf_counter()
            with subprocess.Popen(
                command("run", str(path), "--live", "--plain"), stdout=subprocess.PIPE, text=True, env=environ
            ) as child:
                for line in child.stdout or ():
                    if "look: starts" in line:
                        results.append(time.perf_counter() - begun)
                        break
                child.terminate()
                child.communicate()
    return results[1:]
