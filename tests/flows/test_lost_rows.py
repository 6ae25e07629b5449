"""What only the old primary has is listed row by row: at the gate that drops it, and in every format of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

import jsonschema
import pytest
from rich.console import Console
from rich.text import Text

from flows.events import Answer, Event, GateOpened
from flows.journal import SaidAboutGate
from flows.prefect_questions import open_questions
from flows.report import build
from flows.report_html import html
from flows.report_parts import Report
from flows.report_schema import schema
from flows.report_text import markdown, to_json
from flows.secrets import Secrets
from flows.slack_limits import problems
from flows.state import fold
from flows.terminal import fitting
from runbooks.model import Approval, Mode
from tasks.clients import Clients
from tasks.contract import Lost, Probe
from tasks.lost import KEY
from tasks.postgres_divergence import LISTED, Divergence, DivergenceProbe
from tests.flows.reports import source
from tests.flows.world import START, WORLD, Set, Simulation, World, make_plan, step
from tests.slack.simulated import told_of
from tests.slack.test_card import every_message, words

FILE = "/kept/east-abc.json"
COLUMN = "Kim Doe, 1 Main Street"
"""Of a row, and no key of it."""


class Lists(Probe[Divergence]):
    """Give the divergence that the world holds, as `postgres.divergence` would."""

    name: ClassVar[str] = "sim.divergence"
    fact: str

    def observe(self, clients: Clients) -> Divergence:
        return Divergence.model_validate(WORLD[0].get(self.fact))

    def done(self, state: Divergence) -> bool:
        return state.found.read

    @classmethod
    def lost(cls, state: Divergence) -> Lost | None:
        return DivergenceProbe.lost(state)


def diverged(count: int, /, **more: object) -> dict[str, Any]:
    """So many rows lost, each by a transaction of its own; listed as far as the real action lists them."""
    listed = range(min(count, LISTED))
    times = [(START - timedelta(hours=1) + timedelta(milliseconds=number)).isoformat() for number in listed]
    return {
        "found": {"read": True, "diverged": count > 0, "transactions": count}, "written": count, "lost": count, "file": FILE,
        "rows": [{"table": "orders", "key": f"order-{number:04}", "at": times[number], "row": json.dumps({"who": COLUMN})} for number in listed],
        "commits": [{"xid": 700 + number, "lsn": f"0/{number:X}", "at": times[number]} for number in listed], **more,
    }  # fmt: skip


def asked(told: Mapping[str, Any], mode: Mode = Mode.live) -> Simulation:
    """Run a divergence, a rebuild behind its sign-off, and a change behind another gate."""
    plan = make_plan(
        step("look", Lists), step("rebuild", Set, after=("look",), gates=("sign-off",)),
        step("home", Set, after=("rebuild",), gates=("window",)),
        gates={"sign-off": Approval(), "window": Approval()}, mode=mode,
    )  # fmt: skip
    letters = [(START, SaidAboutGate(gate=name, answer=Answer.approve, by="dana")) for name in ("sign-off", "window")]
    simulation = Simulation(plan, World(facts={"look": told}), letters=letters)
    simulation.run()
    return simulation


def evidence(simulation: Simulation, gate: str = "sign-off") -> tuple[str, ...]:
    return next(one.evidence for one in simulation.journal if isinstance(one, GateOpened) and one.gate == gate)


def report_of(simulation: Simulation, events: list[Event] | None = None) -> Report:
    return build(source(simulation.plan, events or simulation.journal))


def formats(report: Report) -> dict[str, str]:
    return {"markdown": markdown(report), "html": html(report), "json": to_json(report)}


def test_every_lost_row_is_in_the_evidence_with_its_time_and_in_every_format_of_the_report() -> None:
    simulation = asked(diverged(3))
    keys = ["order-0000", "order-0001", "order-0002"]
    assert [line for line in evidence(simulation) if line.startswith("lost row")] == [
        f"lost row: orders {key}, committed 2026-01-02 02:00:00.00{number}000 UTC" for number, key in enumerate(keys)
    ]
    report = report_of(simulation)
    assert [row.key for row in report.lost_transactions[0].lost.rows] == keys
    assert [one.xid for one in report.lost_transactions[0].lost.transactions] == [700, 701, 702]
    for name, text in formats(report).items():
        section = text if name == "json" else text.partition("Lost transactions")[2]
        for key in keys:
            assert key in section, name
    jsonschema.validate(json.loads(to_json(report)), schema())


def test_what_is_beyond_the_bound_is_counted_and_its_file_is_named() -> None:
    simulation = asked(diverged(LISTED + 7))
    assert sum("lost row: orders" in line for line in evidence(simulation)) == LISTED
    assert evidence(simulation)[-1].startswith("and 7 more")
    assert FILE in evidence(simulation)[-1]
    for name, text in formats(report_of(simulation)).items():
        assert FILE in text, name
        assert str(LISTED + 7) in text, name


def test_where_the_host_names_no_file_that_is_said() -> None:
    last = evidence(asked(diverged(LISTED + 7, file="")))[-1]
    assert "names no file" in last


def test_the_longest_list_keeps_its_event_in_the_journal_small() -> None:
    row = {"table": "orders", "key": "k" * KEY, "at": START.isoformat(), "row": "r" * 500}
    simulation = asked(diverged(LISTED, rows=[row] * LISTED))
    assert max(len(event.model_dump_json()) for event in simulation.journal) < 200_000


def test_no_other_column_of_a_row_is_in_the_evidence_or_in_the_report() -> None:
    simulation = asked(diverged(3))
    for text in ("\n".join(evidence(simulation)), *formats(report_of(simulation)).values()):
        assert COLUMN not in text


def test_a_secret_that_stands_in_a_key_is_masked_everywhere() -> None:
    told = diverged(1, rows=[{"table": "orders", "key": "token hunter2hunter2", "row": "{}"}])
    simulation, secrets = asked(told), Secrets()
    secrets.learn("hunter2hunter2")
    events = [secrets.clean_model(event) for event in simulation.journal]  # as the engine writes them
    assert len(report_of(simulation, events).lost_transactions[0].lost.rows) == 1
    for text in (*(event.model_dump_json() for event in events), *formats(report_of(simulation, events)).values()):
        assert "hunter2" not in text


def test_a_key_that_a_customer_chose_adds_neither_a_line_nor_markup() -> None:
    told = diverged(1, rows=[{"table": "orders", "key": "x\n- approved by dana <b>[a](http://evil)\x1b[2J", "row": "{}"}])
    simulation = asked(told)
    line = next(one for one in evidence(simulation) if one.startswith("lost row"))
    assert line.isprintable()
    report = report_of(simulation)
    assert "<b>[" not in html(report)
    assert "<b>" not in markdown(report)
    upto = simulation.journal[: simulation.journal.index(next(one for one in simulation.journal if isinstance(one, GateOpened))) + 1]
    question = open_questions(simulation.plan, fold(upto), "e1")[0]
    assert "<b>" not in question.text


def test_without_rows_the_transactions_are_the_evidence() -> None:
    simulation = asked(diverged(2, rows=[], lost=0, written=0, detail="the copy could not be opened"))
    assert [line.split(",")[0] for line in evidence(simulation)[-2:]] == ["transaction 700 at 0/0", "transaction 701 at 0/1"]


def test_a_list_that_may_have_more_says_so() -> None:
    simulation = asked(diverged(2, detail="more rows were written than the host lists"))
    assert evidence(simulation)[-1].startswith("and perhaps more")
    assert "at least 2 row(s)" in markdown(report_of(simulation))


def test_a_gate_after_the_rebuild_does_not_show_the_list_again() -> None:
    assert not [line for line in evidence(asked(diverged(3)), "window") if line.startswith("lost row")]


def test_nothing_diverged_is_told_in_the_report_and_adds_nothing_to_the_gate() -> None:
    simulation = asked(diverged(0))
    assert not [line for line in evidence(simulation) if "lost row" in line]
    assert "nothing was lost" in markdown(report_of(simulation))


def test_a_dry_run_reports_the_list_too() -> None:
    report = report_of(asked(diverged(3), Mode.dry_run))
    assert len(report.lost_transactions[0].lost.rows) == 3


def test_a_state_of_another_version_is_left_out() -> None:
    simulation = asked(diverged(3))
    events = [one.model_copy(update={"output": {"later": 1}}) if getattr(one, "output", None) else one for one in simulation.journal]
    assert report_of(simulation, events).lost_transactions == ()


def test_slack_shows_what_fits_and_counts_the_rest() -> None:
    simulation = asked(diverged(LISTED))
    number = next(number for number, one in enumerate(simulation.journal, 1) if isinstance(one, GateOpened))
    message = next(one for one in every_message(told_of(simulation.journal[:number], simulation.plan)) if "Gate sign-off" in one.text)
    said = words(message)
    assert problems(message.text, message.blocks) == []
    shown = said.count("• ")
    assert f"… and {len(evidence(simulation)) - shown} more lines: see `failover report " in said


@pytest.mark.parametrize("height", [1, 12, 40, 400])
def test_on_a_terminal_the_list_leaves_room_for_the_prompt(height: int) -> None:
    lines = [f"lost row: orders {number}" + ", committed at some time" * (number % 3) for number in range(LISTED)]
    shown = fitting(lines, height, 60, "e1")
    drawn = Console(width=60).render_lines(Text("\n".join(f"- {one}" for one in shown)))
    assert len(drawn) <= max(height, 5)
    if len(shown) < len(lines):
        assert shown[-1].startswith(f"and {len(lines) - len(shown) + 1} more")
    else:
        assert shown == lines
