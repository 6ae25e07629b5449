"""The tables of the fault matrix, each from the lines that were measured for it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from statistics import median
from typing import Any

from tests.failover.delays import CHAIN, UNDISTURBED
from tests.failover.scenarios import SETS

Line = dict[str, Any]
Lines = Sequence[Line]
_FIRST = CHAIN[0]
"""The first change, which the preflight may hold up; every later one starts when the one before it is done."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """One table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def rounds_table(rounds: Lines) -> str:
    """Rounds of one kind of replication, a row for each kind of fault."""
    known = [row for kinds in SETS.values() for row in kinds.rows]
    kinds = sorted({one["scenario"]["kind"] for one in rounds}, key=known.index)
    rows = [_round_row(kind, [one for one in rounds if one["scenario"]["kind"] == kind]) for kind in kinds]
    head = (
        "fault", "rounds", "recovered", "refusals that were right", "effects repeated", "dual writers", "lost orders",
        "true loss, at most", "stated for it", "recovery, median",
    )  # fmt: skip
    return table(head, [*rows, _round_row("**all**", rounds)])


def _round_row(kind: str, rounds: Lines) -> list[object]:
    recovered = [one for one in rounds if one["outcome"] == "recovered"]
    unfenceable = [one for one in rounds if not one["fenceable"]]
    right = sum(one["outcome"] == "refused" for one in unfenceable)
    worst = max(recovered, key=lambda one: one["judgement"]["true_loss"], default=None)
    times = [one["recovery"] for one in recovered if one["recovery"] is not None]
    return [
        kind, len(rounds), len(recovered), f"{right} of {len(unfenceable)}" if unfenceable else "-",
        sum(one["repeated"] for one in rounds), sum(one["judgement"]["two_writers"] for one in rounds),
        sum(one["judgement"]["lost"] for one in recovered),
        "-" if worst is None else f"{worst['judgement']['true_loss']:.2f} s",
        "-" if worst is None or worst["stated_loss"] is None else f"{worst['stated_loss']:.2f} s",
        f"{median(times):.1f} s" if times else "-",
    ]  # fmt: skip


def kills_table(kills: Lines) -> str:
    """Rounds in which the runner was killed, a row for each moment of each step, in the order of a run."""
    first: dict[tuple[str, str], int] = {}
    for one in sorted(kills, key=lambda one: one["point"]):
        first.setdefault((one["step"], one["after"]), one["point"])
    rows = [_kill_row([step or "-", after], [one for one in kills if (one["step"], one["after"]) == (step, after)]) for step, after in first]
    head = (
        "step or gate", "killed right after", "rounds", "finished by another process", "effects repeated", "dual writers",
        "lost orders", "orders twice", "anything wrong", "longest",
    )  # fmt: skip
    return table(head, [*rows, _kill_row(["**all**", ""], kills)])


def _kill_row(what: list[str], kills: Lines) -> list[object]:
    return [
        *what, len(kills), sum(one["resumed"] for one in kills), sum(one["repeated"] for one in kills),
        *(sum(one[name] for one in kills) for name in ("dual_writers", "lost", "twice")),
        sum(bool(one["wrong"]) for one in kills), f"{max(one['seconds'] for one in kills):.1f} s",
    ]  # fmt: skip


def delays_table(runs: Lines) -> str:
    """Runs beside somebody who fails, a row for each way of failing, against the undisturbed runs of the same kind."""
    rows = []
    for what, of_it in groupby(sorted(runs, key=_order(runs)), key=lambda one: one["what"]):
        own = list(of_it)
        for how in dict.fromkeys(one["how"] for one in own if one["how"] != UNDISTURBED):
            rows.append(_delay_row(what, how, own))
    head = (
        "who fails", "how", "runs", "longest delay of a step", "of which step", "median of the runs", "longest of a later step",
        "undisturbed runs vary by", "the step that asks it", "bound",
    )  # fmt: skip
    return table(head, rows)


def _order(runs: Lines) -> Callable[[Line], tuple[int, str]]:
    """As they were measured, but what is said of one party stands together."""
    order = list(dict.fromkeys(one["what"].partition(",")[0] for one in runs))
    return lambda one: (order.index(one["what"].partition(",")[0]), one["what"])


def _delay_row(what: str, how: str, runs: Lines) -> list[object]:
    failing = [one for one in runs if one["how"] == how]
    usual = _usual(runs)
    late = [_delays(one, usual) for one in failing]
    worst, step = max((found[step], step) for found in late for step in found)
    hung = [one["hung"] for one in failing if one["hung"] is not None]
    return [
        what, how, len(failing), _seconds(worst), step if worst >= 0.005 else "-", _seconds(median(max(found.values()) for found in late)),
        _seconds(max(found[name] for found in late for name in found if name != _FIRST)), _seconds(varies(runs)),
        f"{max(hung):.1f} s, its timeout is {failing[0]['timeout']:g} s" if hung else "-", failing[0]["bound"],
    ]  # fmt: skip


def varies(runs: Lines) -> float:
    """By how much a step of an undisturbed run took longer than the median of its kind."""
    kinds = {what: [one for one in runs if one["what"] == what] for what in {one["what"] for one in runs}}
    usual = {what: _usual(own) for what, own in kinds.items()}
    return max(took for one in runs if one["how"] == UNDISTURBED for took in _delays(one, usual[one["what"]]).values())


def longest_delay(runs: Lines, party: str, *, later: bool = False) -> float:
    """The longest delay of any step in runs beside this party when it fails; later: of those after the first."""
    own = [one for one in runs if one["what"].partition(",")[0] == party]
    usual = {what: _usual([one for one in own if one["what"] == what]) for what in {one["what"] for one in own}}
    late = [_delays(one, usual[one["what"]]) for one in own if one["how"] != UNDISTURBED]
    return max(0.0, *(found[step] for found in late for step in found if not (later and step == _FIRST)))


def _usual(runs: Lines) -> dict[str, float]:
    """Each step's median of the undisturbed runs."""
    undisturbed = [one["spans"] for one in runs if one["how"] == UNDISTURBED]
    return {step: median(spans[step] for spans in undisturbed) for step in undisturbed[0]}


def _delays(run: Line, usual: dict[str, float]) -> dict[str, float]:
    return {step: took - usual[step] for step, took in run["spans"].items()}


def _seconds(value: float) -> str:
    return f"{max(0.0, value):.2f} s"
