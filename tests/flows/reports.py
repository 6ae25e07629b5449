"""Reports of rehearsed executions, for tests and for the pictures in docs/."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from flows.events import Acting, Answer, Event, GateOpened, HistoryLearned, Marked, Past, StepFinished
from flows.journal import SaidAboutGate
from flows.journal_sqlite import SqliteJournal
from flows.report import Source, build, facts_of, read_source
from flows.report_parts import Report, Seal
from runbooks.loader import load
from runbooks.model import Approval, Mode
from runbooks.plan import Plan
from runbooks.planner import plan as make_plan
from runbooks.shipped import find
from tasks.contract import Loss, Mark
from tests.flows.rehearsal import rehearse
from tests.flows.world import START, FenceOff, MakeWriter, Set, Simulation, Watch, World, started, step
from tests.flows.world import make_plan as small_plan

HOSTILE = "</title></style><script>alert(1)</script><img src=http://example.org/x onerror=alert(1)> & \"quoted\" " + "x" * 3000


def source(plan: Plan, events: list[Event], execution: str = "7f3a09c1") -> Source:
    """As if it had been read from a journal."""
    return Source(execution, plan, events, Seal(journal="/var/lib/failover/journal.db", events=len(events), hash="ab" * 32, anchor=f"{execution}#{len(events)}:{'cd' * 8}"))


def shipped(takes: dict[str, float] | None = None) -> tuple[Plan, Simulation]:
    """The shipped runbook, rehearsed: three earlier runs known, the gate answered after 26 s, scaling takes a minute."""
    plan = make_plan(load(find("region-failover")), mode=Mode.live, inputs={})
    plan = replace(rehearse(plan, takes or {"scale": 74.0, "fence": 2.1, "promote": 0.8, "dns": 12.0}), rto=timedelta(minutes=3))
    begun = START + timedelta(seconds=9)
    told = {"replication tells": Loss(at_most=1.42), "promote loses": Loss(at_most=0.61, grows=False)}
    world = World(now=begun, facts=told, later=[
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


TOLD: dict[str, tuple[str, dict[str, Any]]] = {
    "detect": ("down: service (refused), database (refused), entrance (refused), stream (gone); 4 of 4 agree, 2 are enough", {}),
    "assess": ("P1, evacuate: the region has lost its database", {"severity": "P1", "disposition": "evacuate"}),
    "replication": ("received 0/3A41F28 and replayed all of it; a promotion now loses between 0.00 s and 1.42 s of writes",
                    {"loss_at_least_seconds": 0.0, "loss_at_most_seconds": 1.42}),
    "fence": ("east is stopped by its provider and stays off: read back twice, 50 ms apart",
              {"method": "control", "state": "stopped", "stays_off": True, "reachable": False, "system_id": "7412209958811172",
               "held_since": "2026-01-02T03:00:42Z"}),
    "promote": ("127.59.2.5:15432 is the primary on timeline 2, a write was tried; at most 0.61 s of writes are lost",
                {"loss_seconds_at_most": 0.61}),
    "scale": ("3 of 3 instances in service", {}),
    "dns": ("checkout.lab.test A 127.59.2.1, in sync on 1 of 1 name servers", {}),
    "smoke": ("15 of 15 requests answered, p95 38 ms, 3 rounds in a row", {}),
}  # fmt: skip
CHANGES = {
    "scale": "scale checkout-west: 1 -> 3 instances", "fence": "fence east: running -> stopped for good, stop it through its provider",
    "promote": "promote 127.59.2.5:15432: standby on timeline 1 -> primary", "dns": "point checkout.lab.test A: 127.59.1.1 -> 127.59.2.1",
}  # fmt: skip


def in_words(events: list[Event]) -> list[Event]:
    """The same events, saying what real actions would have said."""
    return [_in_words(event) for event in events]


def _in_words(event: Event) -> Event:
    match event:
        case StepFinished() if event.step in TOLD:
            detail, output = TOLD[event.step]
            return event.model_copy(update={"detail": detail, "output": output})
        case Acting():
            return event.model_copy(update={"describe": CHANGES[event.step]})
        case GateOpened():
            seen = [f"{name}: {TOLD[name][0]}" for name in ("detect", "assess", "replication")]
            evidence = (f"now: {CHANGES['fence']}", event.evidence[1], *seen, event.evidence[-1])
            return event.model_copy(update={"evidence": evidence})
        case _:
            return event


def shipped_report() -> Report:
    plan, simulation = shipped()
    simulation.run()
    facts = facts_of({"orders acknowledged": "1733", "orders acknowledged and missing": "3", "two writers": "no"})
    return build(source(plan, in_words(simulation.journal)), facts)


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
