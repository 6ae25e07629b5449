"""What the Makefile starts is found from where it starts it: tests/ and benchmarks/ are not installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", ["bench", "fault-matrix", "docs"])
def test_every_module_that_a_target_runs_can_be_imported(target: str) -> None:
    made = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = set(re.findall(r"^(env .*/python) -m ([\w.]+)", made, re.MULTILINE))
    wanted = {(python, module) for python, module in found if module not in {"pip", "compileall", "pytest"}}
    assert wanted, made
    for python, module in wanted:
        done = subprocess.run([*python.split(), "-c", f"import {module}"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{module}: {done.stderr}"
