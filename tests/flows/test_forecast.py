"""The forecast goes by what steps took before, where enough is known, and says where it has it from."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from flows.clock import SystemClock
from flows.events import ExecutionStarted, HistoryLearned, Past, StepStarted, Verdict
from flows.forecast import CAREFUL, EXPECTED, forecast, quantile, source, time_for
from flows.history import SAMPLES, learn_aside, read, thinned
from flows.journal import JournalError
from flows.journal_sqlite import SqliteJournal
from flows.runs import Request, start
from flows.state import ExecutionState, fold
from runbooks.model import Mode
from tests.flows.reports import gated
from tests.flows.world import START, WORLD, Simulation, Watch, World, make_plan, started, step


def known(**steps: tuple[float, ...]) -> HistoryLearned:
    return HistoryLearned(at=START, executions=3, steps={name: Past(runs=len(times), seconds=times) for name, times in steps.items()})


def seconds(plan, state: ExecutionState, share: float = EXPECTED, after: float = 0) -> float:
    now = START + timedelta(seconds=after)
    recovery = forecast(plan, state, now, share).recovery
    assert recovery is not None
    return (recovery - START).total_seconds()


CHAIN = make_plan(step("a"), step("b", after=("a",)))  # 10 s of budget each


def test_three_earlier_runs_count_more_than_the_budget_and_two_do_not() -> None:
    first = started(CHAIN, START)
    assert seconds(CHAIN, fold([first])) == 20
    assert seconds(CHAIN, fold([first, known(a=(1.0, 2.0))])) == 20
    assert seconds(CHAIN, fold([first, known(a=(1.0, 2.0, 9.0))])) == 12
    assert source(CHAIN.by_id["a"], known(a=(1.0, 2.0, 9.0))) == "from 3 runs"
    assert source(CHAIN.by_id["b"], known(a=(1.0, 2.0, 9.0))) == "budget"


def test_what_is_expected_is_the_median_and_what_is_careful_is_the_slow_run() -> None:
    state = fold([started(CHAIN, START), known(a=(1.0, 2.0, 9.0), b=(1.0, 1.0, 4.0))])
    assert seconds(CHAIN, state) == 3
    assert seconds(CHAIN, state, CAREFUL) == 13
    assert quantile((1.0,), CAREFUL) == 1.0
    assert quantile(tuple(float(one) for one in range(1, 11)), CAREFUL) == 9.0


def test_a_step_that_takes_longer_than_it_ever_did_is_forecast_by_its_budget() -> None:
    state = fold([started(CHAIN, START), known(a=(1.0, 2.0, 3.0)), StepStarted(at=START, step="a", attempt=1)])
    assert seconds(CHAIN, state, after=2.5) == 3 + 10
    assert seconds(CHAIN, state, after=5) == 10 + 10
    assert seconds(CHAIN, state, after=15) == 15 + 10


def test_a_manual_step_is_peoples_time_and_goes_by_its_budget() -> None:
    by_hand = step("a", None)
    assert time_for(by_hand, known(a=(1.0, 1.0, 1.0))) == by_hand.budget


def test_at_risk_is_said_once_when_one_run_in_ten_would_be_late_and_not_when_history_is_quick() -> None:
    plan = make_plan(step("a"), step("b", after=("a",)), rto=timedelta(seconds=15))

    def warnings(*events: HistoryLearned) -> list[str]:
        simulation = Simulation(plan, World(), journal=[started(plan, START), *events])
        return [one.verdict for one in simulation.run().forecasts]

    assert warnings() == ["at-risk"]  # budgets of 20 s
    assert warnings(known(a=(1.0, 2.0, 3.0), b=(1.0, 2.0, 3.0))) == []
    assert warnings(known(a=(1.0, 2.0, 9.0), b=(1.0, 2.0, 9.0))) == ["at-risk"]


# -- what is learned from a journal


def kept(journal: SqliteJournal, name: str, simulation: Simulation, runbook: str = "test") -> None:
    events = [event.model_copy(update={"runbook": runbook}) if isinstance(event, ExecutionStarted) else event for event in simulation.journal]
    journal.append(name, 0, events)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(tmp_path / "journal.db")
    yield journal
    journal.close()


def answered_after(wait: float, **more) -> Simulation:
    from flows.events import Answer
    from flows.journal import SaidAboutGate

    simulation = gated(**more)
    simulation.letters.append((START + timedelta(seconds=wait), SaidAboutGate(gate="go", answer=Answer.approve, by="kim")))
    simulation.run()
    return simulation


def test_peoples_time_at_gates_is_no_machine_time(journal: SqliteJournal) -> None:
    kept(journal, "one", answered_after(300))
    kept(journal, "two", answered_after(5))
    learned = read(journal, "test")
    assert learned.executions == 2
    assert learned.steps["fence"].runs == 2
    assert max(learned.steps["fence"].seconds) < 1
    assert set(learned.steps) == {"fence", "promote", "look"}


def test_only_work_that_was_done_tells_how_long_it_takes(journal: SqliteJournal) -> None:
    plan = make_plan(step("already"), step("fails", after=("already",), with_={"to": 2}), step("after", Watch, after=("fails",)))
    from tests.flows.world import failure

    simulation = Simulation(plan, World(facts={"already": 1}, fail_acts={"fails": [failure()]}))
    simulation.run()
    kept(journal, "one", simulation)
    assert read(journal, "test").steps == {}


def test_a_dry_run_another_runbook_and_the_run_itself_do_not_count(journal: SqliteJournal) -> None:
    dry = Simulation(make_plan(step("fence", Watch), mode=Mode.dry_run), World(facts={"fence": 1}))
    dry.run()
    kept(journal, "dry", dry)
    kept(journal, "other", answered_after(1), runbook="another")
    kept(journal, "self", answered_after(1))
    assert read(journal, "test", besides="self").executions == 0


def test_many_times_are_thinned_and_keep_their_quantiles() -> None:
    times = thinned(float(one) for one in range(1, 1001))
    assert len(times) == SAMPLES
    assert quantile(times, EXPECTED) == pytest.approx(500, abs=50)
    assert quantile(times, CAREFUL) == pytest.approx(900, abs=50)


# -- and handed to a run


def carried_out(journal: SqliteJournal, open_journal) -> tuple[ExecutionState, float]:
    WORLD[0] = World(facts={"a": 1}, real=True)
    plan = make_plan(step("a", Watch))
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    begun = time.monotonic()
    learning = learn_aside(engine, open_journal)
    state = engine.run()
    took = time.monotonic() - begun
    assert learning is not None
    return state, took


def test_a_history_that_nobody_can_read_costs_the_run_nothing(journal: SqliteJournal) -> None:
    def broken() -> SqliteJournal:
        raise JournalError("no such server")

    state, _ = carried_out(journal, broken)
    assert state.verdict is Verdict.recovered
    assert state.history is None


def test_a_history_that_takes_for_ever_delays_no_run(journal: SqliteJournal) -> None:
    let_go = threading.Event()

    def slow() -> SqliteJournal:
        let_go.wait(60)
        raise JournalError("too late")

    state, took = carried_out(journal, slow)
    assert not let_go.is_set()
    assert took < 30
    let_go.set()
    assert state.verdict is Verdict.recovered


def test_a_run_learns_from_the_runs_before_it_and_the_journal_keeps_what_it_learned(journal: SqliteJournal, tmp_path: Path) -> None:
    for number in range(3):
        kept(journal, f"old-{number}", answered_after(number))
    WORLD[0] = World(real=True)
    plan = make_plan(step("fence", Watch), step("look", Watch, after=("fence",)))
    engine = start(journal, Request(plan, "ines", "test"), SystemClock())
    learning = learn_aside(engine, lambda: SqliteJournal(tmp_path / "journal.db"))
    assert learning is not None
    learning.join(20)
    WORLD[0].facts.update(fence=1, look=1)
    engine.run()
    state = fold(event for _, event in journal.read(engine.execution))
    assert state.history is not None
    assert state.history.steps["fence"].runs == 3
    assert source(plan.by_id["fence"], state.history) == "from 3 runs"
