"""Preflight: no change before the looks are in; problems wait for a person; what hangs costs 5 s and blocks nobody."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, NoReturn

import pytest

from flows.clock import SystemClock
from flows.core import Core
from flows.engine import Engine, Opened
from flows.events import Acting, Answer, Checked, GateOpened, Preflighted, Status, StepStarted, Verdict
from flows.journal import Held, Holder, JournalError, SaidAboutGate
from flows.journal_sqlite import SqliteJournal
from flows.lease_keeper import LEASE
from flows.preflight_looks import PATIENCE, World, look, recorded
from flows.state import fold
from runbooks.model import Approval, Mode
from runbooks.plan import PREFLIGHT
from tasks.clients import Clients
from tasks.contract import Need
from tasks.errors import ActionFailed
from tests.flows import world as simulated
from tests.flows.world import (
    START,
    WORLD,
    Crash,
    FenceOff,
    MakeWriter,
    Set,
    Simulation,
    Watch,
    make_plan,
    started,
    step,
)

FINE = Checked(step="fence", what="fence of east", result="ok", found="running")
WRONG = Checked(step="scale", what="max size", result="problem", found="2, wanted 3", advice="raise it")
SILENT = Checked(step="fence", what="what it needs", result="unknown", found="no answer")


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def says(answer: Answer, by: str = "kim") -> SaidAboutGate:
    return SaidAboutGate(gate=PREFLIGHT, answer=answer, by=by, reason="seen")


def plan_of(**more: object):  # noqa: ANN201
    return make_plan(
        step("detect", Watch),
        step("scale", Set, after=("detect",)),
        step("fence", FenceOff, after=("detect",), gates=("go",)),
        step("promote", MakeWriter, after=("fence",), gates=("go",), fenced_by=("fence",)),
        gates={"go": Approval(timeout=seconds(600))},
        **more,
    )


def simulate(checks: tuple[Checked, ...], *letters, detect: int = 1, **more) -> Simulation:  # noqa: ANN001
    yes = (START, SaidAboutGate(gate="go", answer=Answer.approve, by="kim"))
    return Simulation(
        plan_of(), simulated.World(facts={"detect": detect}), checks=checks, letters=[yes, *letters], **more
    )


def test_without_problems_the_changes_go_on_by_themselves() -> None:
    sim = simulate((FINE, SILENT))
    assert sim.run().verdict is Verdict.recovered
    assert sim.world.effects == ["scale", "fence", "promote"]


def test_no_change_acts_before_the_looks_are_in() -> None:
    sim = simulate((FINE,))
    sim.run()
    kinds = [type(event) for event in sim.journal]
    assert kinds.index(Preflighted) < kinds.index(Acting)
    assert sim.journal[kinds.index(Preflighted)].at > START  # the simulated steps would have acted within 40 ms


def test_probes_do_not_wait_for_the_preflight() -> None:
    sim = simulate((FINE,))
    sim.run()
    order = [event.kind if not isinstance(event, StepStarted) else event.step for event in sim.journal]
    assert order.index("detect") < order.index("preflighted")


def test_problems_hold_every_change_until_a_person_lets_them_go_on() -> None:
    sim = simulate((FINE, WRONG), (START + seconds(30), says(Answer.approve)))
    assert sim.run().verdict is Verdict.recovered
    assert all(event.at >= START + seconds(30) for event in sim.journal if isinstance(event, Acting))
    (asked,) = [event for event in sim.journal if isinstance(event, GateOpened) and event.gate == PREFLIGHT]
    assert asked.covers == ("scale", "fence", "promote")
    assert str(WRONG) in asked.evidence
    assert str(FINE) not in asked.evidence


@pytest.mark.parametrize("answer", [[], [(START + seconds(3), says(Answer.deny))]])
def test_a_no_or_silence_over_problems_changes_nothing(answer: list) -> None:
    sim = simulate((WRONG,), *answer)
    state = sim.run()
    assert state.verdict is Verdict.refused
    assert sim.world.effects == []
    assert {state.step(name).status for name in ("scale", "fence")} == {Status.refused}


def test_what_could_not_be_asked_is_shown_and_holds_nothing() -> None:
    sim = simulate((WRONG, SILENT), (START, says(Answer.approve)))
    assert sim.run().verdict is Verdict.recovered
    (asked,) = [event for event in sim.journal if isinstance(event, GateOpened) and event.gate == PREFLIGHT]
    assert f"not known: {SILENT}" in asked.evidence


def test_an_approval_given_in_advance_lets_the_problems_pass_at_once() -> None:
    sim = simulate((WRONG,), (START, says(Answer.approve)))
    assert sim.run().verdict is Verdict.recovered
    assert sim.world.now < START + seconds(5)


def test_another_gate_alone_does_not_let_a_change_pass_the_preflight() -> None:
    sim = simulate((WRONG,))
    sim.run()
    assert not any(isinstance(event, Acting) for event in sim.journal)


def test_a_resumed_run_looks_again_and_asks_again() -> None:
    first = simulate((WRONG,), (START, says(Answer.approve)), crash=lambda what, _: what == "before act scale")
    with pytest.raises(Crash):
        first.run()
    first.world.now += seconds(20)
    from flows.events import Resumed

    journal = [*first.journal, Resumed(at=first.world.now, version="0", by="kim", host="h", pid=2)]
    again = Simulation(plan_of(), first.world, checks=(WRONG,), journal=journal, letters=first.letters)
    assert again.run().verdict is Verdict.refused
    assert sum(isinstance(event, Preflighted) for event in again.journal) == 2


def test_a_crash_at_every_point_repeats_nothing_with_a_preflight() -> None:
    letters = [(START + seconds(2), says(Answer.approve))]
    reference = simulate((WRONG,), *letters)
    reference.run()
    for point in range(1, reference.points + 1):
        first = simulate((WRONG,), *letters, crash=lambda _what, count, at=point: count == at)
        with pytest.raises(Crash):
            first.run()
        first.world.now += seconds(20)
        again = Simulation(plan_of(), first.world, checks=(WRONG,), journal=first.journal, letters=first.letters)
        assert again.run().verdict is Verdict.recovered, point
        assert sorted(again.world.effects) == ["fence", "promote", "scale"], point


def test_a_dry_run_waits_for_what_the_preflight_finds() -> None:
    sim = Simulation(plan_of(mode=Mode.dry_run), simulated.World(), checks=(WRONG,))
    state = sim.run()
    assert state.preflight is not None
    assert state.verdict is Verdict.would
    assert sim.world.effects == []


# -- the looks themselves


class Needy(Set):
    """A change that says what it is told to say."""

    name: ClassVar[str] = "sim.needy"
    says: ClassVar[dict[str, object]] = {}

    def preflight(self, clients: Clients) -> tuple[Need, ...]:
        told = type(self).says[self.fact]
        if isinstance(told, Exception):
            raise told
        if callable(told):
            return told(clients)
        return (told,)


def looked(says: dict[str, object], earlier=None, own=tuple) -> dict[str, Checked]:  # noqa: ANN001
    Needy.says = says
    plan = make_plan(*(step(name, Needy) for name in says))
    world = World(
        build=lambda one: one.action_so_far(lambda ref: ref), clients=Clients, now=lambda: datetime.now(UTC),
        own=own, recall=lambda: earlier or {},
    )  # fmt: skip
    return {f"{one.step}/{one.what}": one for one in look(plan, world)}


def test_all_problems_are_told_at_once_and_no_answer_is_told_apart() -> None:
    found = looked({
        "a": Need(what="size", found="2, wanted 3", problem=True, advice="raise it"),
        "b": ActionFailed("AccessDenied"),
        "c": ActionFailed("connection refused", retry=True),
        "d": Need(what="role", found="a standby"),
    })  # fmt: skip
    assert {key: one.result for key, one in found.items()} == {
        "a/size": "problem", "b/what it needs": "problem", "c/what it needs": "unknown", "d/role": "ok",
    }  # fmt: skip


def test_sides_that_hang_cost_the_patience_once_and_may_call_nothing_afterwards() -> None:
    late: list[str] = []
    go = threading.Event()

    def hang(clients: Clients) -> tuple[Need, ...]:
        go.wait(20)
        try:
            clients.check()
            late.append("left")
        except Exception as error:  # noqa: BLE001
            late.append(type(error).__name__)
        return ()

    before = time.monotonic()
    found = looked({"a": hang, "b": hang, "c": Need(what="role", found="a standby")})
    took = time.monotonic() - before
    go.set()
    while len(late) < 2:
        time.sleep(0.01)
    assert late == ["Revoked", "Revoked"]
    assert {one.result for key, one in found.items() if key[0] in "ab"} == {"unknown"}
    assert found["c/role"].result == "ok"
    assert PATIENCE.total_seconds() <= took < 5


def test_what_hangs_is_taken_from_its_last_recorded_state_with_its_age() -> None:
    past = Checked(step="a", what="rights", result="problem", found="lacks EXECUTE")
    found = looked({"a": ActionFailed("refused", retry=True)}, {("a", "rights"): (START, past)})
    assert found["a/rights"].as_of == START
    assert found["a/rights"].result == "problem"
    assert "a/what it needs" not in found


def test_a_journal_that_does_not_answer_now_keeps_no_look_from_coming_in() -> None:
    """Must never happen: every change waits for looks that never come."""

    def away() -> NoReturn:
        raise JournalError("the journal cannot be read: gone")

    Needy.says = {"a": ActionFailed("refused", retry=True)}
    world = World(build=lambda one: one.action_so_far(lambda ref: ref), clients=Clients, now=lambda: datetime.now(UTC), own=away, recall=away)
    found = look(make_plan(step("a", Needy)), world)
    assert [(one.step, one.result) for one in found] == [("engine", "unknown"), ("a", "unknown"), ("engine", "unknown")]


def test_clocks_far_apart_are_a_problem() -> None:
    found = looked({
        "a": Need(what="clock of west", found="a standby", clock=datetime.now(UTC) - timedelta(seconds=90)),
        "b": Need(what="clock of east", found="a standby", clock=datetime.now(UTC)),
    })  # fmt: skip
    assert found["a/clock of west"].result == "problem"
    assert found["b/clock of east"].result == "ok"


def test_a_missing_secret_is_a_problem_and_not_a_defect() -> None:
    plan = make_plan(step("a", Needy))

    def build(_: object) -> None:
        raise LookupError("${env.PASSWORD}: the environment has no variable PASSWORD")

    world = World(build=build, clients=Clients, now=lambda: datetime.now(UTC), own=tuple, recall=dict)
    (found,) = look(plan, world)
    assert (found.result, "PASSWORD" in found.found) == ("problem", True)


def test_the_engine_looks_for_real_and_records_what_it_found(tmp_path: Path) -> None:
    Needy.says = {"scale": Need(what="size", found="3")}
    WORLD[0] = simulated.World(real=True)
    plan = make_plan(step("scale", Needy))
    with_journal = SqliteJournal(tmp_path / "journal.db")
    holder = Holder("e1", "e1/x", "h", 1, "")
    first = started(plan, datetime.now(UTC)).model_copy(update={"runbook": plan.runbook.name})
    number = with_journal.append("e1", 0, [first])
    got = with_journal.acquire(["execution:e1", "sim:scale"], holder, LEASE, datetime.now(UTC))
    assert isinstance(got, Held)
    opened = Opened("e1", Core(plan, fold([first]), checks=True), number, holder, got.tokens)
    state = Engine(opened, with_journal, SystemClock()).run()
    assert state.verdict is Verdict.recovered
    assert state.preflight is not None
    assert [(one.step, one.result) for one in state.preflight.checks] == [("engine", "ok"), ("scale", "ok")]
    assert recorded(with_journal, plan)["scale", "size"][1].found == "3"
    assert recorded(with_journal, plan, besides="e1") == {}
    with_journal.close()


def test_what_is_done_or_was_begun_before_a_crash_is_not_asked_for_what_it_needs(tmp_path: Path) -> None:
    """A standby that this run has promoted is no standby any more: that must not hold what is left to do."""
    Needy.says = {"promote": Need(what="role", found="out of recovery", problem=True), "dns": Need(what="record", found="fine")}
    WORLD[0] = simulated.World(real=True, facts={"promote": 1})
    plan = make_plan(step("promote", Needy), step("dns", Needy, after=("promote",)))
    journal = SqliteJournal(tmp_path / "journal.db")
    holder = Holder("e1", "e1/x", "h", 1, "")
    now = datetime.now(UTC)
    first = [
        started(plan, now), StepStarted(at=now, step="promote", attempt=1),
        Acting(at=now, step="promote", attempt=1, describe="", before={"value": None}, target="sim:promote"),
    ]  # fmt: skip
    number = journal.append("e1", 0, first)
    got = journal.acquire(["execution:e1", "sim:promote", "sim:dns"], holder, LEASE, now)
    assert isinstance(got, Held)
    opened = Opened("e1", Core(plan, fold(first), checks=True), number, holder, got.tokens)
    state = Engine(opened, journal, SystemClock()).run()
    assert state.verdict is Verdict.recovered
    assert [one.step for one in state.preflight.checks] == ["engine", "dns"]
    journal.close()
