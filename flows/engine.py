"""The engine: one scheduler thread that owns state, time and journal, and workers that look and act.

    mailbox → react (pure) → journal (flushed) → workers, observers

What must never happen, and where it is prevented:
- acting without a durable announcement: `_turn` writes before it carries out; a failed write raises and nothing leaves
- a call after the lease ended: `LeaseKeeper.guard` runs right before every call and leaves room for the longest call
- an act although the kill switch is known to be on: `_permit` runs right before every act
- waiting for an observer: `_tell` puts into unbounded queues and never looks back
"""

from __future__ import annotations

import importlib
import math
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from flows.clock import Clock, uptime
from flows.core import Core, next_due, react
from flows.events import Acting, Event, HistoryLearned, LeaseTaken, Progress, Undoing
from flows.journal import Halt, Halted, Holder, Journal, JournalError, Received, SaidMakeWay, SaidNote
from flows.lease_keeper import CALL, LeaseKeeper
from flows.listener import Ears, Listener
from flows.messages import (
    UNDO,
    ActReturned,
    Command,
    DoAct,
    DoLook,
    DoPreflight,
    DoUndo,
    Failure,
    Learn,
    Letter,
    Look,
    Looked,
    Message,
    Revoke,
    Saw,
    Stop,
    Tick,
    UndoReturned,
    Write,
)
from flows.preflight_looks import PATIENCE, World, recorded, room
from flows.preflight_looks import look as look_ahead
from flows.preparing import Preparer, needs_lease
from flows.secrets import Secrets
from flows.state import ExecutionState, fold
from flows.step import Work, act, as_failure, look, undo
from flows.workers import Workers
from runbooks.model import Mode
from runbooks.plan import PlannedStep
from tasks.clients import Clients
from tasks.contract import Change
from tasks.errors import Revoked

PULSE = timedelta(milliseconds=100)
"""Longest time without a look at what is due."""
BREATH = 0.001
"""Seconds between two such looks at least."""
KILL_SWITCH = "kill switch"
"""Who stopped a run, where it was the switch."""
PROGRESS = timedelta(milliseconds=200)

Notice = Event | Progress


@dataclass(frozen=True)
class Opened:
    """What an engine starts with: an execution that is in the journal up to `number`, and its leases."""

    execution: str
    core: Core
    number: int
    holder: Holder
    held: Mapping[str, int]
    leased: float = field(default_factory=uptime)
    """Uptime right before the leases were asked for: a slow journal must not lengthen them."""


class Engine:
    """Carries one execution out in this process."""

    def __init__(self, opened: Opened, journal: Journal, clock: Clock, *, environ: Mapping[str, str] | None = None) -> None:
        self.execution = opened.execution
        self._core = opened.core
        self._journaled = opened.core.state
        self._number = opened.number
        self._journal = journal
        self._clock = clock
        self._mailbox: queue.SimpleQueue[Message | BaseException] = queue.SimpleQueue()
        self._observers: list[queue.SimpleQueue[Notice | None]] = []
        self._workers = Workers()
        self._work: dict[tuple[str, int], Work] = {}
        self._out: set[tuple[str, int]] = set()
        self._given_up = -math.inf
        self._secrets = Secrets()
        self._told: dict[str, tuple[str, datetime]] = {}
        self._warm = False
        self._halted: str | None = None
        self._leases = LeaseKeeper(
            journal, clock, opened.holder, opened.held, opened.leased,
            live=opened.core.plan.mode is Mode.live,
        )  # fmt: skip
        self._listener = Listener(
            journal, self.execution, lambda: self._leases.tokens, clock, Ears(self._hear, self._obey, self._mailbox.put)
        )
        self._deaf = False
        self._preparer = Preparer(
            self.execution, opened.core.plan, self._secrets, environ, self._leases.guard, self._permit
        )

    # -- for others

    @property
    def state(self) -> ExecutionState:
        """The execution as the journal has it, secrets taken out; safe to read from any thread."""
        return self._journaled

    @property
    def plan(self) -> Any:
        """The plan that is carried out."""
        return self._core.plan

    @property
    def leases(self) -> tuple[Holder, Mapping[str, int], float]:
        """Who holds which leases, by token, and the uptime at which they end; safe to read from any thread."""
        return self._leases.holder, self._leases.tokens, self._leases.ends

    def subscribe(self) -> queue.SimpleQueue[Notice | None]:
        """A queue of everything that happens from now on, ended by None. Slow readers delay nobody."""
        observer: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()
        self._observers.append(observer)
        return observer

    def stop(self, by: str, reason: str) -> None:
        """Ask it to stop in good order: no further change, what is under way is observed. Safe from a signal handler."""
        self._mailbox.put(Stop(self._clock.now(), by, reason))

    def learn(self, learned: HistoryLearned) -> None:
        """Hand over what earlier executions tell the forecast. Safe from any thread, at any time."""
        self._mailbox.put(Learn(self._clock.now(), learned))

    def run(self) -> ExecutionState:
        """Carry the execution out on the calling thread; give the state at its end (finished or interrupted).

        Raises JournalError when the journal could not be written: then nothing more was done, and it can be resumed.
        """
        self._leases.keep(lambda why: self._mailbox.put(Stop(self._clock.now(), "engine", why)))
        self._core = replace(self._core, heard=self._listener.start(self._core.state.adopted))
        try:
            self._react(Tick(self._clock.now()))
            while not self._core.ended:
                self._react(self._next())
            return self._journaled
        finally:
            self._listener.end()
            self._leases.end()
            for work in self._work.values():
                work.clients.revoke("the execution has ended")
            self._workers.close()
            self._leases.give_back(calls_out=bool(self._out) or uptime() - self._given_up < CALL.total_seconds())
            for observer in self._observers:
                observer.put(None)

    # -- the loop

    def _next(self) -> Message:
        now, heard = self._clock.now(), self._listener.heard
        due = next_due(self._core)
        until = min(due, now + PULSE) if due is not None else now + PULSE
        message: Message | BaseException = Tick(now)
        with suppress(queue.Empty):
            message = self._mailbox.get(timeout=max(BREATH, (until - now).total_seconds()))
        if isinstance(message, BaseException):
            raise message
        if self._deaf:
            return Tick(now) if isinstance(message, Letter) else message
        if self._mailbox.empty():  # every letter that was read by `heard` is taken, or is this one
            self._core = replace(self._core, heard=heard)
        return message

    def _react(self, message: Message) -> None:
        before = self._core
        try:
            self._decide(message)
        except Halted as error:  # the announcement was not written, so nothing of it left: go on from the journal
            self._halted = str(error)
            state = fold(event for _, event in self._journal.read(self.execution))
            asked = getattr(message, "step", None)
            attempts = {
                name: replace(attempt, busy=attempt.busy and name != asked)
                for name, attempt in before.attempts.items()
                if state.step(name).status is None
            }
            self._core = replace(before, state=state, attempts=attempts)
            self._deaf = True  # a letter was not adopted after all, and none may be adopted past it: they wait for a resume
            self._decide(Stop(self._clock.now(), KILL_SWITCH, str(error)))

    def _decide(self, message: Message) -> None:
        self._core, commands = react(self._core, replace(message, at=self._clock.now()))
        if isinstance(message, Saw) and isinstance(message.look, Look):
            self._progress(message)
        waiting: list[Event] = []
        for command in (*commands, None):
            if isinstance(command, Write):
                waiting.append(self._secrets.clean_model(command.event))
                continue
            if waiting:
                self._write(waiting)  # durable before anything that follows
                waiting = []
            if command is not None:
                self._carry_out(command)

    def _write(self, events: Sequence[Event]) -> None:
        acts = self._leases.tokens and any(isinstance(event, Acting | Undoing) for event in events)
        self._number = self._journal.append(self.execution, self._number, events, self._leases.holder if acts else None)
        self._journaled = fold(events, self._journaled)
        for event in events:
            self._tell(event)

    def _tell(self, notice: Notice) -> None:
        for observer in self._observers:
            observer.put(notice)

    def _hear(self, received: Received) -> None:
        said = received.said
        if isinstance(said, SaidMakeWay):
            if said.holder != self._leases.holder.name:  # of this execution's that was resumed here, and has made way
                received = replace(received, said=SaidNote(by=said.by, reason=said.reason))
            elif self._core.plan.mode is Mode.drill:
                self._leases.make_way()
        self._mailbox.put(Letter(self._clock.now(), received))

    def _obey(self, halt: Halt) -> None:
        """The kill switch is on: seen at every read of the inbox, and again in the transaction of every announcement."""
        if self._halted is None:
            self._halted = str(halt)
            self._mailbox.put(Stop(self._clock.now(), KILL_SWITCH, str(halt)))

    def _permit(self) -> None:
        if self._halted is not None:
            raise Revoked(self._halted)

    def _progress(self, message: Saw) -> None:
        if not isinstance(message.look, Look) or self._core.state.step(message.step).status is not None:
            return
        text, at = self._told.get(message.step, ("", None))
        if text != message.look.explain and (at is None or message.at - at >= PROGRESS):
            self._told[message.step] = (message.look.explain, message.at)
            said = Progress(at=message.at, step=message.step, attempt=message.attempt, text=message.look.explain)
            self._tell(self._secrets.clean_model(said))

    # -- commands

    def _carry_out(self, command: Command) -> None:
        match command:
            case DoLook():
                self._start_look(command)
            case DoAct():
                key = (command.step, command.attempt)
                work = self._work[key]
                self._out.add(key)
                self._workers.submit(lambda: self._mail(ActReturned, command, self._change(key, lambda: act(work, command.before))))
            case DoUndo():
                self._start_undo(command)
            case DoPreflight():
                self._workers.submit(self._preflight)
            case Revoke():
                if (command.step, command.attempt) in self._out:
                    self._given_up = uptime()
                work_or_none = self._work.pop((command.step, command.attempt), None)
                if work_or_none is not None:
                    self._workers.submit(lambda: work_or_none.clients.revoke(command.reason))

    def _change(self, key: tuple[str, int], change: Callable[[], Failure | None]) -> Failure | None:
        """Must never happen: a lease is given back while a call is out that was made under it."""
        failure = change()
        self._out.discard(key)
        return failure

    def _mail(self, kind: type[ActReturned], command: DoAct, failure: Failure | None) -> None:
        self._mailbox.put(kind(self._clock.now(), command.step, command.attempt, failure))

    def _start_look(self, command: DoLook) -> None:
        key = (command.step, command.attempt)
        if key not in self._work:
            try:
                self._work[key] = self._prepare(self._core.plan.by_id[command.step])
            except JournalError:
                raise
            except Exception as error:  # noqa: BLE001 - becomes the step's outcome
                self._mailbox.put(Saw(self._clock.now(), command.step, command.attempt, as_failure(error)))
                return
        work = self._work[key]

        def ask() -> None:
            seen = look(work, command.earlier, acted=command.acted, now=self._clock.now)
            self._mailbox.put(Saw(self._clock.now(), command.step, command.attempt, seen))
            self._warm_up()

        self._workers.submit(ask)

    def _preflight(self) -> None:
        """Look at what the changes will need, beside the first steps."""
        plan, began = self._core.plan, time.monotonic()
        world = World(
            build=lambda step: step.action_so_far(self._preparer.look_up(self._core.state)),
            clients=lambda: Clients(self._leases.guard, PATIENCE),
            now=self._clock.now,
            own=lambda: room(self._journal),
            recall=lambda: recorded(self._journal, plan, besides=self.execution),
        )
        begun = {name for name, record in self._core.state.steps.items() if record.acting or record.lets_go_on}
        checks = look_ahead(plan, world, begun)
        self._mailbox.put(Looked(self._clock.now(), checks, time.monotonic() - began))

    def _start_undo(self, command: DoUndo) -> None:
        try:
            work = self._work[command.step, UNDO] = self._prepare(self._core.plan.by_id[command.step])
        except JournalError:
            raise
        except Exception as error:  # noqa: BLE001 - becomes the step's outcome
            self._mailbox.put(UndoReturned(self._clock.now(), command.step, as_failure(error)))
            return

        self._out.add((command.step, UNDO))

        def go() -> None:
            failure = self._change((command.step, UNDO), lambda: undo(work, command.before))
            work.clients.close()
            self._mailbox.put(UndoReturned(self._clock.now(), command.step, failure))

        self._workers.submit(go)

    def _prepare(self, step: PlannedStep) -> Work:
        """Fill the step's inputs in, take the lease of what it changes, and open its way to the world."""
        state, leases = self._core.state, self._leases
        if leases.tokens and needs_lease(self._core.plan.mode, step):
            action = self._preparer.action(step, state)
            for target in action.targets if isinstance(action, Change) else ():
                token = leases.take(target)
                if token is not None:
                    self._write([LeaseTaken(at=self._clock.now(), targets={target: token})])
        return self._preparer.work(step, state)

    def _warm_up(self) -> None:
        """Import what later steps need while earlier ones wait, once the first look is out."""
        if self._warm:
            return
        self._warm = True
        wanted = {name for step in self._core.plan.steps if step.action_type for name in step.action_type.libraries}
        for name in sorted(wanted):
            with suppress(ImportError):  # the step that needs it will say so
                importlib.import_module(name)
