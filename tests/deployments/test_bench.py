"""`make bench` fails when what it measured breaks a promise, and keeps what it measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import failback, failovers, run

HOME = failback.Round(lost_out=3, lost=0, duplicated=0, given_up=0, two_writers=False, pause=0.4, took=12.0)
PARTS = dict.fromkeys(("detection", "decision", "automation", "verification"), 1.0)


def result(two_writers: int, script_two_writers: int = 0) -> dict[str, failovers.Result]:
    return {"kill": failovers.Result([3.0], [1.0], [PARTS], [2], two_writers, script_two_writers)}


def measured(monkeypatch: pytest.MonkeyPatch, folder: Path, out: dict[str, failovers.Result], home: list[failback.Round]) -> object:
    """What `main` exits with when the failovers and the ways home were these."""
    for name in ("_startup", "_overhead", "_far_journal", "_slack", "_reports"):
        monkeypatch.setattr(run, name, lambda rounds: [])
    rounds = []
    monkeypatch.setattr(failovers, "run", lambda number, say: rounds.append(number) or out)
    monkeypatch.setattr(failback, "run", lambda number, say: rounds.append(number) or home)
    monkeypatch.setattr(run, "RESULTS", folder / "RESULTS.md")
    monkeypatch.setattr("sys.argv", ["run"])
    code = None
    try:
        run.main()
    except SystemExit as ended:
        code = ended.code
    assert rounds == [10, 5]
    assert "## The way home" in (folder / "RESULTS.md").read_text()
    return code


def test_kept_promises_end_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not measured(monkeypatch, tmp_path, result(0, script_two_writers=1), [HOME, HOME])


@pytest.mark.parametrize("wrong", [{"lost": 1}, {"duplicated": 1}, {"two_writers": True}])
def test_a_way_home_that_lost_doubled_or_wrote_twice_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: dict[str, int]) -> None:
    assert measured(monkeypatch, tmp_path, result(0), [HOME, replace(HOME, **wrong)])


def test_two_writers_in_a_failover_of_ours_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert measured(monkeypatch, tmp_path, result(1), [HOME])
