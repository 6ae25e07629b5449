"""Two runners of one execution on one thread: the real engine, the real journal, and a scheduler that says who goes on.

Each simulated process has the engine's own threads (main, lease, workers) as greenlets. One gives way before every
journal operation, while a call is out, and wherever a thread waits; nothing else can come between two lines. The
scheduler then lets any other go on, lets time pass, or stops, continues or kills a process. All of it follows from a seed.

The world here has no defence of its own: an effect that is asked for twice happens twice. What keeps it from that is
the journal and the lease alone. A stall between the guard and the call (no line lies between them) is not in this
model: docs/how-a-step-runs.md says what covers it.
"""

from __future__ import annotations

import queue
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from greenlet import getcurrent, greenlet

from flows import acquiring, holders, lease_keeper, listener, runs
from flows import engine as engines
from flows.events import Acting, Event, Verdict
from flows.journal import Held, Holder, JournalError
from flows.journal_sqlite import SqliteJournal
from flows.lease_keeper import CALL, LEASE
from runbooks.plan import Plan
from tasks.clients import Clients
from tasks.contract import Change
from tasks.errors import ActionFailed
from tests.flows.world import START, Fact, make_plan, step

POLL = timedelta(seconds=1)
"""Ten times the engine's, so that waiting for a lease takes fewer turns."""
TARGET = "sim:one"


class Killed(BaseException):
    """The process is gone: no line of it runs any more."""


class Broken(BaseException):
    """One of the promises does not hold. No Exception, because flows/step.py takes those for the world's word."""


@dataclass(eq=False)
class Process:
    """A runner, and what the machine knows of it."""

    number: int
    host: str
    clock: float = 0.0
    """How far its wall clock is off, in seconds; fixed at its start, as SystemClock's is."""
    alive: bool = True
    stopped: bool = False
    stops: int = 0
    """How often it was stopped; tells whether it was between two points."""
    outcome: str = ""

    @property
    def born(self) -> str:
        return str(1000 + self.number) if self.alive else ""

    def holder(self, execution: str) -> Holder:
        return Holder(execution, f"{execution}/{self.number}", self.host, self.number, f"m-{self.host}/ns/boot/{1000 + self.number}")


@dataclass(eq=False)
class Thread:
    """A thread of a process: what it waits for, if anything."""

    process: Process
    line: greenlet
    until: float | None = None
    ready: Callable[[], bool] | None = None

    def due(self, now: float) -> bool:
        waits = self.until is not None or self.ready is not None
        return not waits or (self.until is not None and self.until <= now) or (self.ready is not None and self.ready())


@dataclass(eq=False)
class Call:
    """A call that left: it lands at `end`, whatever becomes of who sent it."""

    process: Process
    fact: str
    start: float
    end: float
    landed: bool = False


@dataclass(frozen=True)
class Draw:
    """What a schedule is drawn from."""

    stalls: Sequence[float] = (0.05, 0.5, 2.0, 4.5)
    stops: Sequence[float] = (1.0, 5.0, 14.0, 16.0, 25.0)
    calls: Sequence[float] = (0.0, 0.3, 2.0, 4.0)
    settles: Sequence[float] = (0.0, 0.0, 0.0, 0.0, 0.0, 6.0)
    """How long a change is under way after its call landed; it is looked at meanwhile."""
    late: Sequence[float] = (0.0, 0.5, 3.0, 9.0, 16.0)
    clocks: Sequence[float] = (0.0, 0.0, 3600.0, -20.0)
    """How far a process's clock on the wall is off."""
    troubles: int = 3
    """Stops and kills of one schedule, at most."""


@dataclass
class Machine:
    """Time, the processes, the world, and who goes on."""

    rng: random.Random
    draw: Draw
    journals: tuple[SqliteJournal, SqliteJournal]
    execution: str
    plans: tuple[Plan, ...]
    now: float = 0.0
    threads: list[Thread] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    facts: dict[str, int] = field(default_factory=dict)
    effects: list[str] = field(default_factory=list)
    tokens: dict[str, tuple[int, str]] = field(default_factory=dict)
    trace: list[tuple[int, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    troubles: int = 0
    finished: bool = False
    current: Thread | None = None
    order: int = 0

    @classmethod
    def plans_of(cls) -> tuple[Plan, ...]:
        """What its runners carry out, for each mode."""
        return (two_steps(),)

    # -- for the code under test

    @property
    def process(self) -> Process:
        assert self.current is not None
        return self.current.process

    def wait(self, what: str, until: float | None = None, ready: Callable[[], bool] | None = None) -> None:
        """Give way to the scheduler; come back when it says so and what is waited for is there."""
        me = self.current
        assert me is not None
        if not me.process.alive:
            raise Killed
        me.until, me.ready = until, ready
        me.line.parent.switch()
        self.trace.append((me.process.number, what))
        me.until = me.ready = None

    def spawn(self, process: Process, call: Callable[[], None]) -> None:
        def body() -> None:
            with suppress(Killed):
                call()

        self.threads.append(Thread(process, greenlet(body, parent=HUB[0])))

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # -- the schedule

    def run(self, limit: int = 20_000) -> None:
        """Let it all happen; raises Broken where a promise does not hold, or when it does not end."""
        HUB[0] = getcurrent()
        self._slot(0, first=True)
        self.at(self.rng.choice(self.draw.late), lambda: self._slot(1, first=self.rng.random() < 0.2))
        for _ in range(limit):
            if self.finished and not any(process.alive for process in self.processes):
                return
            self._go_on()
        raise Broken(f"it does not end: {[process.outcome for process in self.processes[-8:]]}")

    def at(self, time: float, what: Callable[[], None]) -> None:
        self.order += 1
        self.events.append((time, self.order, what))

    def _go_on(self) -> None:
        chance = self.rng.random()
        living = [process for process in self.processes if process.alive]
        if chance < 0.03 and self.troubles < self.draw.troubles and living:
            self._trouble(self.rng.choice(living))
        elif chance < 0.10:
            self._pass(self.rng.choice(self.draw.stalls))
        else:
            due = [one for one in self.threads if not one.process.stopped and one.due(self.now)]
            if due:
                self._switch(self.rng.choice(due))
            else:
                self._pass(self._next() - self.now)

    def _next(self) -> float:
        times = [one.until for one in self.threads if not one.process.stopped and one.until is not None]
        times += [time for time, _, _ in self.events]
        if not times:
            raise Broken("nobody can go on")
        return min(times)

    def _switch(self, thread: Thread) -> None:
        self.current = thread
        thread.line.switch()
        self.current = None
        if thread.line.dead:
            self.threads = [one for one in self.threads if one is not thread]
        if thread.process.outcome and thread.process.alive:
            self.end(thread.process, thread.process.outcome)

    def _pass(self, seconds: float) -> None:
        """Let time pass, with everything that happens meanwhile at its own time."""
        end = self.now + max(0.0, seconds)
        while due := [one for one in self.events if one[0] <= end]:
            first = min(due, key=lambda one: one[:2])
            self.events.remove(first)
            self.now = max(self.now, first[0])
            first[2]()
        self.now = end

    def _trouble(self, process: Process) -> None:
        self.troubles += 1
        if self.rng.random() < 0.6 and not process.stopped:
            self._stop(process, self.rng.choice(self.draw.stops))
        else:
            self.trace.append((process.number, "SIGKILL"))
            self.count("killed")
            self.end(process, "killed")

    def _stop(self, process: Process, seconds: float) -> None:
        self.trace.append((process.number, f"SIGSTOP {seconds}"))
        self.count("stopped beyond the TTL" if seconds > LEASE.total_seconds() else "stopped")
        process.stopped, process.stops = True, process.stops + 1

        def go_on() -> None:
            process.stopped = False

        self.at(self.now + seconds, go_on)

    def end(self, process: Process, outcome: str) -> None:
        """The process is gone, with all its threads; a call of it that is out still lands when it lands, or never."""
        process.alive, process.outcome = False, outcome
        for call in self.calls:
            if call.process is process and not call.landed and self.rng.random() < 0.3:
                call.landed, call.end = True, self.now
        mine = [one for one in self.threads if one.process is process]
        self.threads = [one for one in self.threads if one.process is not process]
        for thread in mine:
            self.current = thread
            while thread.line:  # begun, and not at its end
                thread.line.throw(Killed)
        self.current = None
        self.finished = self.finished or self._recovered()
        if not self.finished:
            self.go_on_after(process)

    def go_on_after(self, process: Process) -> None:
        """Somebody resumes it a moment later."""
        slot = process.number % 2
        self.at(self.now + self.rng.choice((0.2, 3.0)), lambda: self._slot(slot, first=slot == 0 and not self._begun()))

    def noticed(self, operation: str, *given: Any) -> None:
        """A journal operation was done by the process that goes on now."""

    def judge(self) -> None:
        """It has ended: raise Broken where that is not as it should be."""
        if sorted(self.effects) != ["fence", "promote"]:
            raise Broken(f"not once each: {self.effects}")

    def _slot(self, slot: int, *, first: bool) -> None:
        """Start another process of one of the two runners."""
        if self.finished:
            return
        rounds = sum(process.number % 2 == slot for process in self.processes)
        if rounds > 300:
            raise Broken("it never ends: 300 processes came and went")
        process = Process(2 * rounds + slot, self.rng.choice(("east", "west")), self.rng.choice(self.draw.clocks))
        self.processes.append(process)
        self.spawn(process, lambda: self._main(process, first=first))

    def _begun(self) -> bool:
        return bool(self.journals[0].read(self.execution))

    def _recovered(self) -> bool:
        last = self.journals[0].head(self.execution)
        return last is not None and last.kind == "execution-finished" and f'"{Verdict.recovered}"' in last.body

    def _main(self, process: Process, *, first: bool) -> None:
        journal: Any = Watched(self.journals[process.number % 2], self)
        outcome = ""
        try:
            if first:
                name = self.execution if process.number % 2 == 0 else f"{self.execution}-b"
                engine = runs.start(journal, runs.Request(self.plans[0], "ines", "test", execution=name), Wall(self, process), {})
            else:
                engine = runs.resume(journal, self.execution, "bo", Wall(self, process), {})
            state = engine.run()
            outcome = state.verdict.value if state.verdict else "interrupted"
        except (JournalError, acquiring.TargetBusy, runs.CannotResume) as error:
            outcome = type(error).__name__
        self.count(outcome)
        self.wait("report", self.now + self.rng.choice((0.0, 3.0)))  # its daemon threads are not gone yet
        process.outcome = outcome

    # -- the world, and what must hold whenever a call leaves

    def look(self, fact: str) -> int | None:
        self._demand_lease("look")
        return self.facts.get(fact)

    def act(self, fact: str) -> None:
        """A call leaves now, and lands within CALL."""
        self._demand_lease("act")
        takes = min(self.rng.choice(self.draw.calls), CALL.total_seconds())
        call = Call(self.process, fact, self.now, self.now + takes)
        for other in self.calls:
            if other.process is not call.process and other.start < call.end and call.start < other.end:
                raise Broken(f"two calls at once: {other} and {call}")
        self.calls.append(call)
        self.at(call.end, lambda: self._land(call))
        self.wait(f"call {fact}", ready=lambda: call.landed)
        if self.rng.random() < 0.1:
            raise ActionFailed("the answer was lost", retry=True)

    def _land(self, call: Call) -> None:
        if not call.landed:
            call.landed = True
            settles = self.rng.choice(self.draw.settles)
            self.facts[call.fact] = -1 if settles else 1
            if settles:
                self.at(self.now + settles, lambda: self.facts.update({call.fact: 1}))
            self.effects.append(call.fact)
            if len(set(self.effects)) != len(self.effects):
                raise Broken(f"twice: {self.effects}")

    def _demand_lease(self, what: str) -> None:
        """Who calls holds the target by the journal's own rows, for at least as long as the longest call takes."""
        row = self.lease(TARGET)
        left = row[1] - self.now if row else 0.0
        if row is None or row[0].rpartition("/")[2] != str(self.process.number):
            raise Broken(f"a {what} of {self.process.number} at {self.now}, and the lease is {row}")
        if left < CALL.total_seconds() - 1e-3:
            raise Broken(f"a {what} of {self.process.number} leaves with {left} s of the lease left")

    def lease(self, target: str) -> tuple[str, float, int] | None:
        """Holder, end and token, past the code under test."""
        rows = self.journals[0]._rows("SELECT holder, uptime, token FROM leases WHERE target = ?", target)
        return rows[0] if rows else None


HUB: list[greenlet] = [getcurrent()]
MACHINE: list[Machine] = []
"""The machine of the schedule that runs; actions and patched libraries have no other way to it."""


def machine() -> Machine:
    return MACHINE[0]


class Watched:
    """The journal as one process has it: gives way before every operation, and checks what was done after it."""

    def __init__(self, journal: SqliteJournal, machine: Machine) -> None:
        self._journal, self._machine = journal, machine

    copy_of = None

    def reading(self) -> AbstractContextManager[Watched]:
        return nullcontext(self)

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._journal, name)

        def watched(*given: Any) -> Any:
            self._machine.wait(name)
            done = operation(*given)
            if name == "append":
                self._appended(*given)
            elif name == "acquire" and isinstance(done, Held):
                self._acquired(given[1], done)
            self._machine.noticed(name, *given)
            return done

        return watched

    def _appended(self, execution: str, after: int, events: Sequence[Event], lease: Holder | None = None) -> None:
        if not any(isinstance(event, Acting) for event in events):
            return
        row = self._machine.lease(TARGET)
        me = self._machine.process
        if lease is None or row is None or row[0] != lease.name or lease != me.holder(execution):
            raise Broken(f"{me.number} announced an act, and the lease is {row}")
        late = row[1] <= self._machine.now  # stopped on its way into the journal: nobody took it over, and the guard is next
        self._machine.count("announced late" if late else "announced")

    def _acquired(self, holder: Holder, held: Held) -> None:
        for target, token in held.tokens.items():
            before, who = self._machine.tokens.get(target, (0, ""))
            if token < before or (who != holder.name and token == before):
                raise Broken(f"{target}: token {token} for {holder.name} after {before} of {who}")
            if who and who != holder.name:
                self._machine.count("taken over")
            self._machine.tokens[target] = (token, holder.name)


class Move(Change[Fact]):
    """Set a fact; all of them are on one target."""

    name: ClassVar[str] = "sim.move"
    interval: ClassVar[timedelta] = timedelta(seconds=2)
    fact: str

    @property
    def target(self) -> str:
        return TARGET

    def observe(self, clients: Clients) -> Fact:
        clients.check()
        return Fact(value=machine().look(self.fact))

    def done(self, state: Fact) -> bool:
        return state.value == 1

    def underway(self, state: Fact) -> bool:
        return state.value == -1

    def describe(self, before: Fact) -> str:
        return f"set {self.fact}"

    def act(self, before: Fact, clients: Clients) -> None:
        clients.check()
        machine().act(self.fact)


@dataclass
class Wall:
    """A process's clock."""

    machine: Machine
    process: Process

    def now(self) -> datetime:
        return START + timedelta(seconds=self.machine.now + self.process.clock)


class Mailbox:
    """queue.SimpleQueue, as far as the engine uses it."""

    def __init__(self) -> None:
        self._items: list[Any] = []

    def put(self, item: Any) -> None:
        self._items.append(item)

    def empty(self) -> bool:
        return not self._items

    def get(self, timeout: float) -> Any:
        if not self._items:
            machine().wait("mailbox", machine().now + timeout, lambda: bool(self._items))
        if not self._items:
            raise queue.Empty
        return self._items.pop(0)


class Flag:
    """threading.Event, as far as the engine uses it."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float) -> bool:
        machine().wait("timer", machine().now + timeout, lambda: self._set)
        return self._set


class Started:
    """threading.Thread, as far as the engine uses it."""

    def __init__(self, target: Callable[[], None], name: str, daemon: bool) -> None:
        self._target = target

    def start(self) -> None:
        machine().spawn(machine().process, self._target)


class Crew:
    """flows.workers.Workers: a thread for each call."""

    def submit(self, call: Callable[[], None]) -> None:
        machine().spawn(machine().process, call)

    def close(self) -> None:
        pass


def two_steps() -> Plan:
    """Two changes of one target, one after the other; neither may happen twice."""
    patient = timedelta(minutes=10)
    return make_plan(
        step("fence", Move, timeout=patient),
        step("promote", Move, timeout=patient, after=("fence",)),
    )


@contextmanager
def ports(patch: pytest.MonkeyPatch, plans: Sequence[Plan]) -> Iterator[None]:
    """Put the machine in the place of time, threads and process table; engine, core, runs and journal stay as they are.

    plans: one for each mode.
    """
    time = SimpleNamespace(
        sleep=lambda seconds: machine().wait("sleep", machine().now + max(seconds, POLL.total_seconds())),
    )
    with patch.context() as inside:
        for module in (lease_keeper, listener):
            inside.setattr(module, "uptime", lambda: machine().now)
            inside.setattr(module, "threading", SimpleNamespace(Thread=Started, Event=Flag))
        for module in (acquiring, engines, holders):
            inside.setattr(module, "uptime", lambda: machine().now)
        inside.setattr(engines, "queue", SimpleNamespace(SimpleQueue=Mailbox, Empty=queue.Empty))
        inside.setattr(engines, "Workers", Crew)
        inside.setattr(engines, "PULSE", POLL)
        inside.setattr(listener, "POLL", 4 * POLL)  # nobody says anything here
        inside.setattr(engines, "look_ahead", lambda _plan, _world, *_: ())
        inside.setattr(acquiring, "time", time)
        inside.setattr(runs, "me", lambda execution: machine().process.holder(execution))  # noqa: PLW0108 - another process each time
        inside.setattr(holders, "me", lambda execution: machine().process.holder(execution))  # noqa: PLW0108 - the same
        inside.setattr(holders, "_born", born)
        inside.setattr(runs, "replan", lambda state: next(plan for plan in plans if plan.mode is state.started.mode))
        inside.setattr(runs, "our_version", lambda: "0")
        yield


def born(pid: int) -> str:
    return next((process.born for process in machine().processes if process.number == pid), "")


@dataclass
class Seen:
    """What many schedules were like."""

    schedules: set[int] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)

    def take(self, machine: Machine) -> None:
        self.schedules.add(hash(tuple(machine.trace)))
        for what, count in machine.counts.items():
            self.counts[what] = self.counts.get(what, 0) + count


def explore(
    patch: pytest.MonkeyPatch, folder: Path, seeds: range, draw: Draw = Draw(), kind: type[Machine] = Machine
) -> Seen:
    """Run a schedule for each seed, on one journal file; raises Broken with the seed that shows it."""
    plans, seen = kind.plans_of(), Seen()
    first, second = (SqliteJournal(folder / "journal.db", uptime=lambda: machine().now) for _ in range(2))
    journals = (first, second)
    for journal in journals:
        journal._db.execute("PRAGMA synchronous=OFF")  # no power is cut here
    try:
        with ports(patch, plans):
            for seed in seeds:
                seen.take(_one(kind(random.Random(seed), draw, journals, f"e{seed}", plans), seed))
    finally:
        for journal in journals:
            journal.close()
    return seen


def _one(one: Machine, seed: int) -> Machine:
    one.journals[0]._db.execute("DELETE FROM leases")
    MACHINE[:] = [one]
    try:
        one.run()
        one.judge()
    except Broken as error:
        raise Broken(f"seed {seed}: {error}; the last turns: {one.trace[-30:]}") from None
    return one
