"""Reports of rehearsed executions, for tests and for the pictures in docs/."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from flows.events import Answer, Event, HistoryLearned, Marked, Past
from flows.journal import SaidAboutGate
from flows.journal_sqlite import SqliteJournal
from flows.report import Source, build, read_source
from flows.report_parts import Report, Seal
from runbooks.loader import load
from runbooks.model import Approval, Mode
from runbooks.plan import Plan
from runbooks.planner import plan as make_plan
from runbooks.shipped import find
from tasks.contract import Mark
from tests.flows.rehearsal import rehearse
from tests.flows.world import START, FenceOff, MakeWriter, Set, Simulation, Watch, World, started, step
from tests.flows.world import make_plan as small_plan

HOSTILE = "</title></style><script>alert(1)</script><img src=http://example.org/x onerror=alert(1)> & \"quoted\" " + "x" * 3000


def source(plan: Plan, events: list[Event], execution: str = "7f3a09c1") -> Source:
    """As if it had been read from a journal."""
    return Source(execution, plan, events, Seal(journal="/var/lib/failover/journal.db", events=len(events), hash="ab" * 32))


def shipped(takes: dict[str, float] | None = None) -> tuple[Plan, Simulation]:
    """The shipped runbook, rehearsed: three earlier runs known, the gate answered after 26 s, scaling takes a minute."""
    plan = make_plan(load(find("region-failover")), mode=Mode.live, inputs={})
    plan = replace(rehearse(plan, takes or {"scale": 74.0, "fence": 2.1, "promote": 0.8, "dns": 12.0}), rto=timedelta(minutes=3))
    begun = START + timedelta(seconds=9)
    world = World(now=begun, later=[
        (begun + timedelta(seconds=4.2), "detect", 1), (begun + timedelta(seconds=4.4), "assess", 1),
        (begun + timedelta(seconds=5), "replication", 1), (begun + timedelta(seconds=97), "smoke", 1),
    ])  # fmt: skip
    first = started(plan, begun).model_copy(update={
        "runbook": "region-failover", "title": plan.runbook.title, "service": plan.runbook.service, "version": "0.1.0",
        "plan_hash": "5c" * 32, "reason": "the east region does not answer", "initiator": "ines",
    })  # fmt: skip
    past = {"detect": (3.9, 4.4, 5.1), "scale": (41.0, 44.2, 52.5), "promote": (0.6, 0.7, 1.1), "dns": (11.2, 12.4, 14.0)}
    learned = HistoryLearned(at=begun, executions=3, steps={name: Past(runs=3, seconds=known) for name, known in past.items()})
    marks = [Marked(at=begun, mark=Mark.impact, when=START), Marked(at=begun, mark=Mark.detected, when=begun + timedelta(seconds=4.2))]
    said = SaidAboutGate(gate="go", answer=Answer.approve, by="kim", how="slack-signature", reason="the primary is dead, the standby is fit")
    letters = [(begun + timedelta(seconds=31), said)]
    return plan, Simulation(plan, world, letters=letters, journal=[first, learned, *marks])


def shipped_report() -> Report:
    plan, simulation = shipped()
    simulation.run()
    return build(source(plan, simulation.journal))


def small(*steps: Any, letters: Any = (), **more: Any) -> Simulation:
    """A simulation of a plan that the test writes down."""
    return Simulation(small_plan(*steps, **more), World(), letters=list(letters))


def gated(**more: Any) -> Simulation:
    """A fence and a promotion behind one gate, then a look."""
    return Simulation(
        small_plan(
            step("fence", FenceOff, gates=("go",)), step("promote", MakeWriter, after=("fence",), gates=("go",), fenced_by=("fence",)),
            step("look", Watch, after=("promote",)), gates={"go": Approval(timeout=timedelta(minutes=15), budget=timedelta(minutes=2))},
        ),
        World(facts={"look": 1}), **more,
    )  # fmt: skip


def many(count: int = 500) -> Simulation:
    """A run of so many steps, ten beside each other."""
    steps = [step(f"step-{number:03}", Set, after=(f"step-{number - 10:03}",) if number >= 10 else ()) for number in range(count)]
    return small(*steps)


def journaled(simulation: Simulation, folder: Path, execution: str = "7f3a09c1") -> Source:
    """The same through a real journal in a file."""
    journal = SqliteJournal(folder / "journal.db")
    journal.append(execution, 0, simulation.journal)
    found = read_source(journal, execution, simulation.plan)
    journal.close()
    return found
