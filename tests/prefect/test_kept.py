"""What `failover demo --keep` leaves running, and that `failover lab down` leaves nothing of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from deployments.cli import parser
from deployments.demo import _keep, demo_home, end_kept
from deployments.prefect_server import running
from runbooks.shipped import FOLDER

pytestmark = pytest.mark.prefect


def processes_of(journal: Path) -> set[str]:
    """Who was started with this journal."""
    found = set()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"FAILOVER_JOURNAL={journal}".encode() in environ.read_bytes().split(b"\0"):
                found.add(environ.parent.name)
        except OSError:  # ended, or somebody else's
            continue
    return found


def test_what_is_kept_serves_the_shipped_runbooks_and_ends_without_a_trace(
    new_home: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal.db"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("FAILOVER_JOURNAL", str(journal))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # the user's own, which it must not serve with
    demo_home().mkdir(parents=True)
    new_home(demo_home() / "prefect")
    try:
        _keep("freeze")
        said = capsys.readouterr().out
        address = re.search(r"Prefect UI: (\S+)", said)[1]
        server = running(demo_home() / "prefect")
        assert (server.ui, server.alive) == (address, True)
        assert str(server.pid) in processes_of(journal)
        served = httpx.post(f"{address}/api/deployments/filter", json={}, trust_env=False).json()
        assert {one["name"] for one in served} == {path.stem for path in FOLDER.glob("*.yaml")}
    finally:
        end_kept()
    assert processes_of(journal) == set()
    assert running(demo_home() / "prefect") is None
    assert not (demo_home() / "serve.pid").exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(address, trust_env=False)
    end_kept()  # and once more, when there is nothing


def test_what_keep_tells_to_type_can_be_typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("deployments.serve.serve_detached", lambda folder, home: "http://127.0.0.1:4200")
    _keep("disconnect")
    lines = [line.partition("#")[0].split() for line in capsys.readouterr().out.splitlines() if line.startswith("    failover ")]
    typed = [parser().parse_args(line[1:]) for line in lines]
    assert len(typed) == 2
    assert (typed[1].node, typed[1].how) == ("primary", "disconnect")
