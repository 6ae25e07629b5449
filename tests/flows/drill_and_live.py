"""A drill, and a live run that comes while it is under way: two executions of one target on the machine of two_runners.py.

Each has acts of its own, so none may happen twice; a live run that is refused is started again a moment later, and so is,
now and then, the drill that made way.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from flows import acquiring, runs
from flows.journal import Holder, JournalError, SaidMakeWay
from flows.lease_keeper import LEASE
from runbooks.model import Mode
from runbooks.plan import Plan
from tests.flows.two_runners import Broken, Draw, Machine, Process, Wall, Watched, two_steps
from tests.flows.world import make_plan

LATE = Draw(late=(0.0, 0.5, 3.0, 9.0, 16.0, 60.0), troubles=2)
"""The live run may come before the drill has written anything, and long after it has ended."""
DRILLS = 6
"""Processes of the drill in one schedule, at most."""


@dataclass
class DrillAndLive(Machine):
    """The first runner rehearses, the second one is needed."""

    asked: dict[str, set[int]] = field(default_factory=dict)
    """The holders that were asked to make way, each with the live run's processes that did."""

    @classmethod
    def plans_of(cls) -> tuple[Plan, ...]:
        live = two_steps()
        rehearsed = (replace(one, id=f"rehearse-{one.id}", after=tuple(f"rehearse-{name}" for name in one.after),
                             arguments={"fact": f"rehearse-{one.id}"}) for one in live.steps)  # fmt: skip
        return live, make_plan(*rehearsed, mode=Mode.drill)

    def execution_of(self, process: Process) -> str:
        """The live run's is the machine's own."""
        return self.execution if process.number % 2 else f"{self.execution}-drill"

    def go_on_after(self, process: Process) -> None:
        slot = process.number % 2
        drills = sum(one.number % 2 == 0 for one in self.processes)
        if slot or (process.outcome != "recovered" and drills < DRILLS and self.rng.random() < 0.7):
            self.at(self.now + self.rng.choice((0.2, 3.0)), lambda: self._slot(slot, first=False))

    def noticed(self, operation: str, *given: Any) -> None:
        if operation == "put" and isinstance(given[1], SaidMakeWay):
            if self.process.number % 2 == 0:
                raise Broken(f"a drill asks {given[1].holder} to make way")
            askers = self.asked.setdefault(given[1].holder, set())
            if self.process.number in askers:
                raise Broken(f"{given[1].holder} is asked twice by {self.process.number}")
            askers.add(self.process.number)
            self.count("asked")
        if operation == "break_lease":
            self._demand_dead(given[0])

    def judge(self) -> None:
        mine = sorted(one for one in self.effects if not one.startswith("rehearse-"))
        if mine != ["fence", "promote"]:
            raise Broken(f"not once each: {self.effects}")

    def _demand_dead(self, holder: Holder) -> None:
        if any(one.alive and one.number == holder.pid for one in self.processes):
            raise Broken(f"the lease of {holder.name} is taken, and its process lives")

    def _main(self, process: Process, *, first: bool) -> None:
        journal: Any = Watched(self.journals[process.number % 2], self)
        execution, began = self.execution_of(process), self.now
        plan = self.plans[0 if process.number % 2 else 1]
        outcome = ""
        try:
            if self.journals[0].read(execution):
                engine = runs.resume(journal, execution, "bo", Wall(self, process), {})
            else:
                engine = runs.start(journal, runs.Request(plan, "ines", "test", execution=execution), Wall(self, process), {})
            state = engine.run()
            outcome = state.verdict.value if state.verdict else "interrupted"
            if state.interrupted is not None:
                self._judge_interruption(process, state.interrupted.reason)
        except acquiring.TargetBusy as error:
            outcome = "TargetBusy"
            self._judge_refusal(process, error.busy.holder.name, self.now - began)
        except (JournalError, runs.CannotResume) as error:
            outcome = type(error).__name__
        self.count(outcome)
        self.wait("report", self.now + self.rng.choice((0.0, 3.0)))  # its daemon threads are not gone yet
        process.outcome = outcome

    def _judge_interruption(self, process: Process, reason: str) -> None:
        me = process.holder(self.execution_of(process)).name
        if reason.startswith("live execution"):
            if me not in self.asked:
                raise Broken(f"{me} ends for a live run, and nobody asked it to: {reason}")
            self.count("made way")
        elif "lease" not in reason:
            raise Broken(f"{me} ends for no reason that there is: {reason}")

    def _judge_refusal(self, process: Process, holder: str, waited: float) -> None:
        """A drill refuses a live run for no longer than its lease lasts; and waits for nobody itself."""
        if process.number % 2:
            self.count("live refused")
            if holder in self.asked and waited < LEASE.total_seconds():
                raise Broken(f"refused for {holder}, which was asked to make way, after {waited} s")
