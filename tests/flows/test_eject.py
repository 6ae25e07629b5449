"""What a person needs when this program is what failed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from flows.eject import eject, write_copy
from flows.events import Acting, Answer, Choice, Event, RollbackStarted, Status, StepFinished, StepStarted, Undoing
from flows.journal import SaidAboutFailure, SaidAboutGate
from flows.state import ExecutionState, fold
from runbooks.loader import load
from runbooks.model import Mode
from runbooks.planner import plan as plan_file
from runbooks.shipped import find
from tasks.aws.autoscaling import Fleet
from tasks.aws.route53 import Record
from tests.flows.rehearsal import rehearse
from tests.flows.world import (
    START,
    Crash,
    FenceOff,
    MakeWriter,
    Set,
    Simulation,
    World,
    failure,
    make_plan,
    started,
    step,
)


@pytest.fixture
def plan():
    return plan_file(load(find("region-failover")), mode=Mode.live, inputs={})


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


# -- on the way back


def going_back(*more, world: World | None = None, letters=()) -> Simulation:
    """A plan whose last step fails and rolls back: over `a`, `b` and whatever stands between."""
    plan = make_plan(step("a", Set), step("b", Set, after=("a",)), *more, step("c", Set, after=("b",), on_failure="roll-back"))
    return Simulation(plan, world or World(fail_acts={"c": [failure()]}), letters=list(letters))


def ejected(sim: Simulation) -> str:
    return eject("e1", sim.plan, fold(sim.journal), {})


def stopped_before(sim: Simulation, what: str, times: int = 1) -> str:
    """What is told when the run dies right before the event, or the call, for the n-th time."""
    left = [times]

    def crash(said: str, _count: int) -> bool:
        left[0] -= said == what
        return left[0] == 0

    sim.crash = crash
    with pytest.raises(Crash):
        sim.run()
    return ejected(sim)


def test_on_the_way_back_what_is_done_is_to_be_undone_last_first() -> None:
    text = stopped_before(going_back(), "before undoing")
    rest = part(text, "To be undone, in this order")
    assert rest.index("# b:") < rest.index("# a:")
    assert "value: null -> 1" in rest
    assert "Still to do" not in text
    for title in ("Done", "Undone"):
        assert part(text, title).strip() == "# nothing"


def test_what_is_undone_already_is_neither_done_nor_to_be_done() -> None:
    text = stopped_before(going_back(), "before undoing", times=2)
    assert "# b:" in part(text, "Undone")
    assert "# a:" in part(text, "To be undone")
    assert text.count("\n# b:") == 1


def test_an_undo_that_was_announced_is_in_doubt() -> None:
    text = stopped_before(going_back(), "before undo b")
    assert "# b:" in part(text, "In doubt")
    assert "# a:" in part(text, "To be undone")


def test_an_undo_that_was_tried_in_vain_stays_in_doubt() -> None:
    sim = going_back()
    sim.hangs = frozenset({"undo b"})
    sim.run()
    text = ejected(sim)
    assert "# b:" in part(text, "In doubt")
    assert "# a:" in part(text, "Undone")
    assert part(text, "To be undone").strip().endswith("# nothing")


def test_after_the_way_back_nothing_is_left_to_undo() -> None:
    sim = going_back(step("later", Set, after=("c",)))
    assert sim.run().step("a").status is Status.rolled_back
    text = ejected(sim)
    assert part(text, "Undone").index("# a:") > part(text, "Undone").index("# b:")
    assert part(text, "To be undone").strip().endswith("# nothing")
    assert "# later: not begun" in part(text, "Left as it is")
    assert "# c:" in part(text, "In doubt")  # its call was refused, and may have landed


def test_what_lies_before_the_point_of_no_return_is_left_as_it_is() -> None:
    plan = make_plan(
        step("a", Set), step("fence", FenceOff, after=("a",)), step("promote", MakeWriter, after=("fence",), fenced_by=("fence",)),
        step("dns", Set, after=("promote",)), step("c", Set, after=("dns",), on_failure="roll-back"),
    )  # fmt: skip
    text = stopped_before(Simulation(plan, World(fail_acts={"c": [failure()]})), "before undoing")
    stays = part(text, "Left as it is")
    assert [name for name in ("a", "fence", "promote") if f"# {name}: done" in stays] == ["a", "fence", "promote"]
    assert "lies before promote" in stays
    assert "# dns:" in part(text, "To be undone")
    assert "# a:" not in part(text, "To be undone")


def test_an_act_in_doubt_that_goes_back_is_to_be_looked_at_first() -> None:
    sim = going_back(world=World())
    sim.plan = make_plan(step("a", Set), step("c", Set, after=("a",), on_failure="roll-back", with_={"takes": 60}))
    text = stopped_before(sim, "before undoing")
    rest = part(text, "To be undone")
    assert rest.index("# c:") < rest.index("# a:")
    assert "look first" in rest[: rest.index("# a:")]


def test_undoing_is_told_as_commands_from_what_was_before(plan) -> None:
    fleet = Fleet(group="checkout-west", desired=1, min_size=0, max_size=9, in_service=1, instances=(), launches=True)
    record = Record(zone_id="Z1", record="checkout.lab.test.", type="A", values=("127.77.1.1",), ttl=timedelta(seconds=5), simple=True)
    changed = (("scale", fleet), ("dns", record))
    events: list[Event] = [started(plan, START)]
    for name, before in changed:
        events += [
            StepStarted(at=START, step=name, attempt=1),
            Acting(at=START, step=name, attempt=1, describe="x", before=before.model_dump(mode="json"), target="x"),
            StepFinished(at=START, step=name, attempt=1, status=Status.done, detail="x"),
        ]
    events.append(RollbackStarted(at=START, steps=("dns", "scale"), left={}, by="kim"))
    rest = part(eject("e1", plan, fold(events), {}), "To be undone")
    assert "--hosted-zone-id Z1" in rest
    assert rest.index('"Action": "DELETE"') < rest.index('"Value": "127.77.2.1"') < rest.index('"Action": "CREATE"')
    assert rest.index('"Value": "127.77.1.1"') < rest.index("--auto-scaling-group-name checkout-west --desired-capacity 1")
    assert '"127.77.2.1"' not in rest.partition('"CREATE"')[2]
    in_doubt = part(eject("e1", plan, fold([*events, Undoing(at=START, step="dns")]), {}), "In doubt")
    assert '"Action": "CREATE"' in in_doubt


# -- acts that ended badly


@pytest.mark.parametrize(
    ("world", "takes"), [(World(), 60.0), (World(fail_acts={"a": [ZeroDivisionError()]}), 0.0), (World(fail_acts={"a": [failure()]}), 0.0)],
    ids=["timed out", "errored", "failed"],
)  # fmt: skip
def test_an_act_that_did_not_end_well_is_in_doubt(world: World, takes: float) -> None:
    sim = Simulation(make_plan(step("a", Set, with_={"takes": takes}), step("b", Set, after=("a",))), world)
    assert sim.run().step("a").status in {Status.timed_out, Status.errored, Status.failed}
    text = ejected(sim)
    assert "look first" in part(text, "In doubt")
    assert "# a:" in part(text, "In doubt")
    assert "# a:" not in part(text, "Still to do")
    assert "# b:" in part(text, "Still to do")


def test_a_look_that_failed_before_any_act_is_no_doubt() -> None:
    sim = Simulation(make_plan(step("a", Set)), World(fail_looks={"a": [failure()]}))
    sim.run()
    text = ejected(sim)
    assert part(text, "In doubt").strip().endswith("# nothing")
    assert "# a:" in part(text, "Still to do")


def test_a_step_that_was_passed_over_after_its_act_stays_in_doubt() -> None:
    skip = (START + timedelta(seconds=60), SaidAboutFailure(step="a", choice=Choice.skip, by="kim"))
    plan = make_plan(step("a", Set, on_failure="ask", with_={"takes": 600}), step("b", Set, after=("a",)))
    sim = Simulation(plan, World(), letters=[skip])
    assert sim.run().step("b").status is Status.done
    assert "# a:" in part(ejected(sim), "In doubt")
    assert "# a:" not in part(ejected(sim), "Done")
