"""Numbers with their spread, and the facts of the machine they were taken on."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path


def spread(values: Sequence[float], unit: str = "s") -> str:
    """Median and range: '0.42 s (0.38 to 0.61, n=10)'."""
    if not values:
        return "not measured"
    return f"{statistics.median(values):.2f} {unit} ({min(values):.2f} to {max(values):.2f}, n={len(values)})"


def machine() -> list[str]:
    """What the numbers were measured on."""
    model = next((line.partition(":")[2].strip() for line in _read("/proc/cpuinfo").splitlines() if "model name" in line), "?")
    memory = next((line.split()[1] for line in _read("/proc/meminfo").splitlines() if line.startswith("MemTotal")), "0")
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    size = f"{os.cpu_count()} cores of {model}, {int(memory) // 1024 // 1024} GiB"
    software = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return [
        f"{size}, {software}; load when the run began: {load}.",
        f"Measured {datetime.now(UTC):%Y-%m-%d}.",
    ]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
