"""A sample of the kills that `python -m tests.failover.kills` does often: whoever dies where, another finishes it once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployments.lab import Lab
from flows.events import Status, StepFinished
from tests.failover.effects import repeated
from tests.failover.kills import drawn, run_round

EVENTS = 30
"""A little less than a run of region-failover writes."""


def test_points_are_drawn_from_the_seed_and_spread_over_the_run() -> None:
    assert drawn(3, 20, 60) == drawn(3, 20, 60)
    assert drawn(3, 20, 60) != drawn(4, 20, 60)
    assert all(1 <= point < 60 for seed in range(50) for point in drawn(seed, 20, 60))
    assert len(set(drawn(3, 20, 60))) > 15


def test_effects_are_repeated_where_the_world_shows_one_twice_or_a_step_finished_again() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)

    def finished(step: str, status: Status = Status.done) -> StepFinished:
        return StepFinished(at=now, step=step, attempt=1, status=status, detail="")

    once = [finished("fence"), finished("promote", Status.failed), finished("promote")]
    assert repeated(once, {"promote": 1, "scale": 0}) == 0
    assert repeated(once, {"promote": 3, "scale": 2}) == 3
    assert repeated([*once, finished("fence", Status.already)], {"promote": 1}) == 1


@pytest.mark.lab
@pytest.mark.timeout(240)
@pytest.mark.parametrize("point", drawn(7, 4, EVENTS))
def test_a_runner_killed_anywhere_is_finished_elsewhere_and_nothing_happens_twice(lab: Lab, tmp_path: Path, point: int) -> None:
    assert run_round(lab, point, tmp_path).wrong == ()
