"""What a person needs when this program is what failed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from flows.eject import eject, write_copy
from flows.events import Answer
from flows.journal import SaidAboutGate
from flows.state import ExecutionState, fold
from runbooks.loader import load
from runbooks.model import Mode
from runbooks.planner import plan as make_plan
from runbooks.shipped import find
from tests.flows.rehearsal import rehearse
from tests.flows.world import START, Crash, Simulation, World


@pytest.fixture
def plan():
    return make_plan(load(find("region-failover")), mode=Mode.live, inputs={})


def state_when(plan, what: str) -> ExecutionState:
    """The state at which a simulated run of the plan crashed."""
    world = World(facts={"detect": 1, "assess": 1, "replication": 1, "smoke": 1})
    letters = [(START, SaidAboutGate(gate="go", answer=Answer.approve, by="kim"))]
    sim = Simulation(rehearse(plan), world, letters=letters, crash=lambda said, _count: said == what)
    with pytest.raises(Crash):
        sim.run()
    return fold(sim.journal)


def part(text: str, title: str) -> str:
    return text.partition(f"## {title}")[2].partition("\n## ")[0]


def test_what_is_left_is_told_as_commands_in_order(plan) -> None:
    text = eject("e1", plan, state_when(plan, "before act fence"), {})
    rest = part(text, "Still to do")
    for command in ("SELECT pg_promote(false)", "aws route53 change-resource-record-sets", '"Value": "127.77.2.1"',
                    "curl --fail --max-time 2 -X POST http://checkout.lab.test:18080/orders"):  # fmt: skip
        assert command in rest
    assert rest.index("pg_promote") < rest.index("route53") < rest.index("/orders")
    assert "never before fence holds" in rest
    assert "detect" in part(text, "Done")


def test_an_announced_step_is_in_doubt_and_comes_before_the_rest(plan) -> None:
    text = eject("e1", plan, state_when(plan, "after act fence"), {})
    doubt = part(text, "In doubt")
    assert "fence" in doubt
    assert "curl --fail -X POST http://127.77.0.1:17070/nodes/east/stop" in doubt
    assert text.index("## In doubt") < text.index("## Still to do")


def test_no_secret_is_in_it(plan) -> None:
    text = eject("e1", plan, state_when(plan, "before act fence"), {"FAILOVER_LAB_PASSWORD": "canary-secret"})
    assert "canary" not in text
    assert "hidden" not in text


def test_a_copy_replaces_the_one_before_in_one_move(tmp_path: Path) -> None:
    path = tmp_path / "eject" / "e1.txt"
    for text in ("one", "two"):
        write_copy(path, text)
        assert path.read_text() == text
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["e1.txt"]


def test_a_finished_run_leaves_nothing_to_do(plan) -> None:
    world = World(facts={"detect": 1, "assess": 1, "replication": 1, "smoke": 1})
    letters = [(START, SaidAboutGate(gate="go", answer=Answer.approve, by="kim"))]
    sim = Simulation(rehearse(plan), world, letters=letters)
    state = sim.run(timedelta(hours=1))
    assert "# nothing" in part(eject("e1", plan, state, {}), "Still to do")
