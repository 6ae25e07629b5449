"""`failover serve` before it serves: folders, modules, an API that is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments import origins
from deployments.prefect_server import born, child_environment
from tests.prefect.conftest import RUNBOOKS, free_port


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deployments", *arguments], env=child_environment(**environment), capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


def test_a_folder_without_a_valid_runbook_is_invalid_input(tmp_path: Path) -> None:
    assert command("serve", str(tmp_path / "missing")).returncode == 2
    (tmp_path / "broken.yaml").write_text("nonsense: [")
    ended = command("serve", str(tmp_path))
    assert ended.returncode == 2
    assert "broken.yaml:2:1" in ended.stderr


@pytest.mark.prefect
def test_a_prefect_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text((RUNBOOKS / "slow.yaml").read_text())
    port, plugin = free_port(), str(Path(__file__).parent / "plugin")
    ended = command("serve", str(tmp_path), "--journal", str(tmp_path / "j.db"), PREFECT_API_URL=f"http://127.0.0.1:{port}/api",
                    PYTHONPATH=plugin)  # fmt: skip
    assert ended.returncode == 1
    assert "does not answer" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_module_of_somebody_else_in_the_place_of_ours_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    origins.check_origins()
    monkeypatch.setitem(sys.modules, "tasks", SimpleNamespace(__file__=str(tmp_path / "tasks.py")))
    with pytest.raises(origins.ForeignModule):
        origins.check_origins()


def test_a_process_is_told_from_a_later_one_of_the_same_number() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert born(child.pid)
    assert child.stdin is not None
    child.stdin.close()
    child.wait()
    assert born(child.pid) == ""
