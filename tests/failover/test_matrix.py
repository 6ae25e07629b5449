"""The page of the fault matrix, made from lines of every table."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from tests.failover import kills
from tests.failover.delays import CHAIN, UNDISTURBED
from tests.failover.delays import Line as Delay
from tests.failover.matrix import page
from tests.failover.matrix_tables import delays_table, kills_table, longest_delay, rounds_table
from tests.failover.rounds import Round
from tests.failover.scenarios import SETS, draw_kind
from tests.failover.verdict import Judgement

KINDS = [(of, kind) for of, kinds in SETS.items() for kind in kinds.rows]
COLUMNS = 10


def a_round(of: str, kind: str, *, sync: bool = False, **more: Any) -> dict[str, Any]:
    """As it would be, went it well."""
    scenario = draw_kind(1, kind, of)
    done = Round(scenario, sync, False, "recovered", 0, Judgement(0, (), 2, 0.125, 0.5), 100, 40, 0, 0.75, 1.5, ())
    if not scenario.fenceable:
        done = replace(done, outcome="refused", exit=1, judgement=Judgement(0, (), 0, 0.0, None), acks_new=0, stated_loss=None, recovery=None)
    return json.loads(replace(done, **more).line())


def a_kill(point: int, after: str, step: str, **more: Any) -> dict[str, Any]:
    return json.loads(replace(kills.Round(point, after, step, True, 21.5, 0, 0, 1, 0, ()), **more).line())


def a_run(what: str, how: str, late: float = 0.0, hung: float | None = None) -> dict[str, Any]:
    spans = {**dict.fromkeys(CHAIN, 0.25), "three": 0.25 + late}
    return json.loads(json.dumps(asdict(Delay(what, how, "nothing waits", spans, hung))))


def cells(text: str, *of_row: str) -> list[str]:
    """The row that begins so."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return next(row for row in rows if row[: len(of_row)] == list(of_row))


@pytest.mark.parametrize(("of", "kind"), KINDS)
def test_a_round_of_every_kind_has_its_row(of: str, kind: str) -> None:
    one = a_round(of, kind)
    row = cells(rounds_table([one, a_round("method", "kill", repeated=3)]), kind)
    if one["fenceable"]:
        assert row[-3:] == ["0.12 s", "0.75 s", "1.5 s"]
        assert row[3] == "-"
    else:
        assert row[1:] == ["1", "0", "1 of 1", "0", "0", "0", "-", "-", "-"]


def test_what_went_wrong_is_in_the_row_and_in_the_sum_and_not_called_right() -> None:
    bad = a_round("method", "unfenceable: silent", outcome="recovered", judgement=Judgement(7, (), 0, 0.0, 0.1), wrong=("bad",))
    twice = a_round("isolate-path", "isolate-path: freeze", repeated=1, wrong=("twice",))
    text = rounds_table([bad, twice])
    assert cells(text, "unfenceable: silent")[2:6] == ["1", "0 of 1", "0", "7"]
    assert cells(text, "isolate-path: freeze")[4] == "1"
    assert cells(text, "**all**")[4:6] == ["1", "7"]
    whole = page([bad, twice])
    assert "**7 acknowledged by two nodes**, 1 effects repeated" in whole
    assert "0 of 1 unfenceable rounds refused; 2 rounds with anything wrong" in whole


def test_kills_are_told_by_step_and_moment_in_the_order_of_a_run() -> None:
    told = [
        a_kill(30, "acting", "promote", repeated=1, wrong=("twice",)), a_kill(4, "step-started", "detect"),
        a_kill(31, "acting", "promote", resumed=False, seconds=9.0), a_kill(60, "execution-finished", ""),
    ]  # fmt: skip
    text = kills_table(told)
    assert [line.split(" | ")[0] for line in text.splitlines()[2:]] == ["| detect", "| promote", "| -", "| **all**"]
    assert cells(text, "promote", "acting") == ["promote", "acting", "2", "1", "1", "0", "2", "0", "1", "21.5 s"]


def test_a_delay_is_what_a_step_took_beyond_the_same_step_in_undisturbed_runs() -> None:
    runs = [
        a_run("Slack", UNDISTURBED), a_run("Slack", UNDISTURBED), a_run("Slack", UNDISTURBED, late=0.125),
        a_run("Slack", "is down", late=1.5), a_run("Slack", "is down", late=0.5),
        a_run("AWS", UNDISTURBED), a_run("AWS", "never answers", hung=3.25),
    ]  # fmt: skip
    text = delays_table(runs)
    assert cells(text, "Slack")[2:9] == ["2", "1.50 s", "three", "1.00 s", "1.50 s", "0.12 s", "-"]
    assert cells(text, "AWS")[3:] == ["0.00 s", "-", "0.00 s", "0.00 s", "0.00 s", "3.2 s, its timeout is 3 s", "nothing waits"]
    assert longest_delay(runs, "Slack") == 1.5


def test_no_table_is_wider_than_people_read() -> None:
    lines = [a_round("method", "kill"), a_round("method", "cut", sync=True), a_kill(1, "acting", "dns"), a_run("AWS", UNDISTURBED), a_run("AWS", "is silent")]
    rows = [line for line in page(lines).splitlines() if line.startswith("|")]
    assert {row.count("|") - 1 for row in rows} <= set(range(COLUMNS + 1))


@pytest.mark.parametrize("without", ["rounds", "kills", "delays"])
def test_a_table_that_was_not_measured_is_left_out(without: str) -> None:
    lines = [a_round("method", "kill"), a_kill(1, "acting", "dns"), a_run("AWS", UNDISTURBED), a_run("AWS", "is silent")]
    titles = {"rounds": "## Asynchronous", "kills": "## The runner killed", "delays": "## Delay caused by others"}
    text = page([one for one in lines if one["table"] != without])
    assert {name: title in text for name, title in titles.items()} == {name: name != without for name in titles}
