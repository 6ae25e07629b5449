"""A sample of the kills that `python -m tests.failover.kills` does often: whoever dies where, another finishes it once."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.lab import Lab
from tests.failover.kills import drawn, run_round

EVENTS = 30
"""A little less than a run of region-failover writes."""


def test_points_are_drawn_from_the_seed_and_spread_over_the_run() -> None:
    assert drawn(3, 20, 60) == drawn(3, 20, 60)
    assert drawn(3, 20, 60) != drawn(4, 20, 60)
    assert all(1 <= point < 60 for seed in range(50) for point in drawn(seed, 20, 60))
    assert len(set(drawn(3, 20, 60))) > 15


@pytest.mark.lab
@pytest.mark.timeout(240)
@pytest.mark.parametrize("point", drawn(7, 4, EVENTS))
def test_a_runner_killed_anywhere_is_finished_elsewhere_and_nothing_happens_twice(lab: Lab, tmp_path: Path, point: int) -> None:
    assert run_round(lab, point, tmp_path).wrong == ()
