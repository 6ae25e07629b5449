"""A sample of the fault matrix, with its judge tested against histories that are wrong, and the override for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.exits import Exit
from deployments.lab import Lab
from flows.events import Acting
from runbooks.loader import load
from runbooks.model import Mode
from runbooks.planner import plan
from tests.failover.conftest import NUMBER, Scene
from tests.failover.pinned import Ack
from tests.failover.provider import Provider
from tests.failover.rounds import clients, prepared, run_round
from tests.failover.scenarios import KINDS, SETS, draw, draw_kind
from tests.failover.verdict import Rows, judge

SEED = 7
OTHERWISE = [(of, kind) for of, kinds in SETS.items() if kinds.declares for kind in kinds.rows]
"""Every way to fence without the provider."""


def old(ref: str, at: float) -> Ack:
    return Ack("east", 1, ref, at - 0.01, at)


def new(ref: str, at: float) -> Ack:
    return Ack("west", 2, ref, at - 0.01, at)


def rows(east: dict[str, float], west: dict[str, float] | None = None) -> Rows:
    west = west or {}
    return Rows({**east, **west}, {**dict.fromkeys(east, "east"), **dict.fromkeys(west, "west")})


def test_a_clean_failover_with_a_loss_is_judged_so() -> None:
    found = judge([old("a", 1), old("b", 2)], [new("c", 3)], rows({"a": 1, "b": 2}), rows({"a": 1}, {"c": 3}))
    assert (found.two_writers, found.content, found.lost, found.true_loss, found.margin) == (0, (), 1, 0, 1)


def test_a_write_acknowledged_by_the_old_primary_after_the_new_ones_first_is_found() -> None:
    assert judge([old("a", 1), old("b", 4)], [new("c", 3)], None, rows({"a": 1}, {"c": 3})).two_writers == 1


@pytest.mark.parametrize(
    ("old_rows", "new_rows"),
    [
        (rows({"a": 1, "late": 3.5}), rows({"a": 1}, {"c": 3})),
        (rows({"a": 1}, {"c": 3}), rows({"a": 1}, {"c": 3})),
        (rows({}), rows({"a": 1}, {"c": 3})),
        (rows({"a": 1}), rows({"a": 1})),
        (rows({"a": 1}), replace(rows({"a": 1}, {"c": 3}), duplicated=1)),
    ],
    ids=["late row", "in both histories", "not in its own", "new one lost", "twice"],
)
def test_what_only_the_content_tells_is_found(old_rows: Rows, new_rows: Rows) -> None:
    assert judge([old("a", 1)], [new("c", 3)], old_rows, new_rows).content


def test_one_timeline_of_two_writers_is_found() -> None:
    told = replace(new("c", 3), timeline=1)
    assert judge([old("a", 1)], [told], None, rows({"a": 1}, {"c": 3})).content


def test_behind_a_closed_way_a_row_that_nobody_heard_of_is_counted_and_an_acknowledged_one_is_found() -> None:
    late, first = rows({"a": 1, "late": 3.5}), rows({"a": 1}, {"c": 3})
    unheard = judge([old("a", 1)], [new("c", 3)], late, first, lives_on=True)
    assert (unheard.content, unheard.unheard) == ((), 1)
    heard = judge([old("a", 1), old("late", 3.6)], [new("c", 3)], late, first, lives_on=True)
    assert (heard.two_writers, len(heard.content), heard.unheard) == (1, 1, 0)


def test_a_late_answer_for_a_row_that_the_new_primary_holds_is_counted_where_the_old_one_lives_on() -> None:
    acks, histories = ([old("a", 1), old("b", 4)], [new("c", 3)]), (rows({"a": 1, "b": 2}), rows({"a": 1, "b": 2}, {"c": 3}))
    living = judge(*acks, *histories, lives_on=True)
    assert (living.two_writers, living.late, living.margin) == (0, 1, 2)
    assert judge(*acks, *histories).two_writers == 1
    assert judge(*acks, rows({"a": 1, "b": 2}), rows({"a": 1}, {"c": 3}), lives_on=True).two_writers == 1  # it does not hold it


@pytest.mark.parametrize("of", SETS)
def test_rounds_are_drawn_from_the_seed_and_take_turns_through_all_kinds(of: str) -> None:
    rows = SETS[of].rows
    assert draw(3, 5, of) == draw(3, 5, of)
    assert {draw(3, number, of).kind for number in range(len(rows))} == set(rows)
    assert len({str(draw(seed, number, of)) for seed in range(40) for number in range(len(rows))}) > len(rows)


@pytest.mark.parametrize("of", SETS)
def test_the_fence_of_a_round_declares_what_its_set_says_and_plans(of: str, tmp_path: Path) -> None:
    for number, row in enumerate(SETS[of].rows):
        scenario = draw(SEED, number, of)
        assert scenario.fenceable is not row.startswith("unfenceable")
        prepared(Lab(1), tmp_path, scenario, Provider(Lab(1), scenario.provider))
        planned = plan(load(tmp_path / "rounds.yaml"), mode=Mode.live, inputs={})
        fence = next(step for step in planned.steps if step.id == "fence")
        declared = f"if_unreachable: {fence.arguments.get('if_unreachable')}" in SETS[of].declares
        assert declared is bool(SETS[of].declares)


@pytest.mark.lab
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", KINDS)
def test_a_round_has_one_writer_or_is_refused(lab: Lab, tmp_path: Path, kind: str) -> None:
    assert run_round(lab, draw_kind(SEED, kind), tmp_path).wrong == ()


LabWith = Callable[[tuple[str, ...]], Lab]


@pytest.fixture(scope="module")
def lab_with(lab: Lab) -> Iterator[LabWith]:
    """Give a lab with these options, one after the other; without any, the one that all tests of this folder share."""
    second, up = Lab(NUMBER + 1), [()]

    def bring(options: tuple[str, ...]) -> Lab:
        if options and up[0] != options:
            second.down()
            second.up(traffic=False, **dict.fromkeys(options, True))
            up[0] = options
        return second if options else lab

    yield bring
    second.down()


@pytest.mark.lab
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", KINDS)
def test_a_synchronous_round_loses_nothing(lab_with: LabWith, tmp_path: Path, kind: str) -> None:
    done = run_round(lab_with(("sync",)), draw_kind(SEED, kind), tmp_path)
    assert (done.wrong, done.judgement.lost) == ((), 0)


@pytest.mark.lab
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("of", "kind"), OTHERWISE)
def test_a_round_with_the_provider_away_has_one_writer_or_is_refused(lab_with: LabWith, tmp_path: Path, of: str, kind: str) -> None:
    scenario = draw_kind(SEED, kind, of)
    done = run_round(lab_with(SETS[of].lab), scenario, tmp_path)
    assert (done.wrong, done.outcome) == ((), "recovered" if scenario.fenceable else "refused")


@pytest.mark.lab
@pytest.mark.timeout(240)
def test_an_unfenceable_primary_is_passed_by_two_people_only_and_the_report_says_so(lab: Lab, tmp_path: Path) -> None:
    scenario = draw_kind(SEED, "unfenceable: unreachable")
    lab.reset()
    with Provider(lab, scenario.provider) as provider:
        scene = prepared(lab, tmp_path, scenario, provider)
        with clients(lab, scenario):
            lab.break_node("east", "kill")
            scene.failover("run", str(tmp_path / "rounds.yaml"), "--live", "--approve", "go", "--as", "kim", expect=Exit.not_met)
            execution = scene.execution()
            word = ("override", execution, "fence", "--reason", "the hall burnt down", "--as")
            assert f"override {execution} fence" in scene.failover("status")
            scene.failover(*word, "ana")
            scene.failover(*word, "Ana ")
            scene.failover("resume", execution, "--as", "ana", expect=Exit.not_met)
            assert lab.status().nodes["west"].role == "standby"
            scene.failover(*word, "bo")
            scene.failover("resume", execution, "--as", "ana")
    assert lab.status().nodes["west"].role == "primary"
    report = scene.report()
    assert "ana and bo" in report["overridden"][0].casefold()
    assert "OVERRIDDEN" in scene.failover("report")
    assert "OVERRIDDEN" in scene.failover("status")
    assert "OVERRIDDEN" in scene.failover("eject")
    promotion = next(one for one in scene.events() if isinstance(one, Acting) and one.step == "promote")
    assert "OVERRIDDEN" in promotion.describe


def test_nobody_overrides_in_advance_or_what_is_no_fence(tmp_path: Path) -> None:
    """Without a lab: the command says so and puts nothing into the inbox."""
    scene = Bare(tmp_path)
    scene.failover("run", str(scene.runbook()), expect=Exit.not_met)
    for step in ("fence", "promote", "nothing"):
        out = scene.failover("override", scene.execution(), step, "--as", "ana", "--reason", "why", expect=Exit.invalid)
        assert "override" in out or "no fence" in out


class Bare(Scene):
    """The command on targets that do not exist."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Lab(1), folder)

    @property
    def environ(self) -> dict[str, str]:
        import os

        return {**os.environ, "FAILOVER_LAB_PASSWORD": "x", "FAILOVER_JOURNAL": str(self.journal), "PYTHONSAFEPATH": "1"}
