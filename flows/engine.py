"""The engine: one scheduler thread that owns state, time and journal, and workers that look and act.

    mailbox → react (pure) → journal (flushed) → workers, observers

What must never happen, and where it is prevented:
- acting without a durable announcement: `_turn` writes before it carries out; a failed write raises and nothing leaves
- a call after the lease ended: `_guard` runs right before every call and leaves room for the longest call
- waiting for an observer: `_tell` puts into unbounded queues and never looks back
"""

from __future__ import annotations

import importlib
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from flows.clock import Clock
from flows.core import Core, next_due, react
from flows.events import Acting, Event, HistoryLearned, LeaseTaken, Progress, Undoing
from flows.fencing import fences_before, last_seen
from flows.journal import EVERYTHING, Busy, Halted, Holder, Journal, JournalError, LeaseLost
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
from flows.secrets import Secrets
from flows.state import ExecutionState, fold
from flows.step import Work, act, as_failure, look, undo
from flows.workers import Workers
from runbooks.model import Mode
from runbooks.plan import PlannedStep, is_change, look_up_in
from runbooks.references import Reference
from tasks.clients import Clients
from tasks.contract import Action, Change
from tasks.errors import ActionFailed, Revoked

LEASE = timedelta(seconds=15)
"""How long a lease lasts without renewal; renewed every third of it."""
CALL = timedelta(seconds=4)
"""Longest wait for one call; no call leaves when less than this is left of the lease."""
POLL = timedelta(milliseconds=100)
"""How often the inbox is read: the longest that an approval waits to be seen."""
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
    leased: float = field(default_factory=time.monotonic)
    """By the monotonic clock, right before the leases were asked for: a slow journal must not lengthen them."""


class Engine:
    """Carries one execution out in this process."""

    def __init__(self, opened: Opened, journal: Journal, clock: Clock, *, environ: Mapping[str, str] | None = None) -> None:
        self.execution = opened.execution
        self._core = opened.core
        self._journaled = opened.core.state
        self._number = opened.number
        self._holder = opened.holder
        self._held = dict(opened.held)
        self._journal = journal
        self._clock = clock
        self._environ = environ
        self._mailbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._observers: list[queue.SimpleQueue[Notice | None]] = []
        self._workers = Workers()
        self._work: dict[tuple[str, int], Work] = {}
        self._secrets = Secrets()
        self._told: dict[str, tuple[str, datetime]] = {}
        self._read_inbox_at = clock.now()
        self._leased_until = opened.leased + LEASE.total_seconds() if opened.held else None
        self._over = threading.Event()
        self._warm = False
        self._halted: str | None = None

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
    def leases(self) -> tuple[Holder, Mapping[str, int], timedelta]:
        """Who holds which leases, by token, and how long they last; safe to read from any thread."""
        return self._holder, self._held, timedelta(seconds=max(0.0, (self._leased_until or 0.0) - time.monotonic()))

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
        renewer = threading.Thread(target=self._renew, name="lease", daemon=True)
        if self._held:
            renewer.start()
        try:
            self._turn(Tick(self._clock.now()))
            while not self._core.ended:
                self._turn(self._next())
            return self._journaled
        finally:
            self._over.set()
            for work in self._work.values():
                work.clients.revoke("the execution has ended")
            self._workers.close()
            if self._held:
                with suppress(JournalError):  # it expires by itself
                    self._journal.release(self._holder, self._clock.now())
            for observer in self._observers:
                observer.put(None)

    # -- the loop

    def _next(self) -> Message:
        now = self._clock.now()
        due = next_due(self._core)
        until = min(due, now + POLL) if due is not None else now + POLL
        try:
            return self._mailbox.get(timeout=max(0.0, (until - now).total_seconds()))
        except queue.Empty:
            return Tick(self._clock.now())

    def _turn(self, message: Message) -> None:
        self._read_inbox()
        self._react(message)

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
        acts = self._held and any(isinstance(event, Acting | Undoing) for event in events)
        self._number = self._journal.append(self.execution, self._number, events, self._holder if acts else None)
        self._journaled = fold(events, self._journaled)
        for event in events:
            self._tell(event)

    def _tell(self, notice: Notice) -> None:
        for observer in self._observers:
            observer.put(notice)

    def _read_inbox(self) -> None:
        now = self._clock.now()
        if now - self._read_inbox_at < POLL:
            return
        self._read_inbox_at = now
        self._obey_switch(now)
        for received in self._journal.inbox(self.execution, self._core.state.adopted):
            if received.number > self._core.state.adopted:
                self._react(Letter(now, received))

    def _obey_switch(self, now: datetime) -> None:
        """Seen at every read of the inbox, and again in the transaction of every announcement."""
        if not self._held or self._halted is not None:
            return
        for halt in self._journal.halts():
            if halt.target in {EVERYTHING, *self._held}:
                self._halted = str(halt)
                self._mailbox.put(Stop(now, KILL_SWITCH, str(halt)))
                return

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
                work = self._work[command.step, command.attempt]
                self._workers.submit(lambda: self._mail(ActReturned, command, act(work, command.before)))
            case DoUndo():
                self._start_undo(command)
            case DoPreflight():
                self._workers.submit(self._preflight)
            case Revoke():
                work_or_none = self._work.pop((command.step, command.attempt), None)
                if work_or_none is not None:
                    self._workers.submit(lambda: work_or_none.clients.revoke(command.reason))

    def _mail(self, kind: type[ActReturned], command: DoAct, failure: Failure | None) -> None:
        self._mailbox.put(kind(self._clock.now(), command.step, command.attempt, failure))

    def _start_look(self, command: DoLook) -> None:
        key = (command.step, command.attempt)
        if key not in self._work:
            try:
                self._work[key] = self._prepare(self._core.plan.by_id[command.step])
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
            build=lambda step: step.action_so_far(self._look_up()),
            clients=lambda: Clients(self._guard, PATIENCE),
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
        except Exception as error:  # noqa: BLE001 - becomes the step's outcome
            self._mailbox.put(UndoReturned(self._clock.now(), command.step, as_failure(error)))
            return

        def go() -> None:
            failure = undo(work, command.before)
            work.clients.close()
            self._mailbox.put(UndoReturned(self._clock.now(), command.step, failure))

        self._workers.submit(go)

    def _prepare(self, step: PlannedStep) -> Work:
        """Fill the step's inputs in, take the lease of what it changes, and open its way to the world."""
        action = self._build(step)
        if self._held and needs_lease(self._core.plan.mode, step) and isinstance(action, Change):
            for target in action.targets:
                self._lease(target)
        standing = fences_before(step, self._core.state)
        fences = {name: self._build(self._core.plan.by_id[name]) for name in standing.held}
        timeout = min(CALL, max(step.timeout / 2, timedelta(milliseconds=200)))
        return Work(
            action, Clients(self._guard, timeout), fences, standing.missing, standing.overridden,
            not needs_act(self._core.plan.mode, step), last_seen(standing.held, self._core.plan, self._core.state), self._permit,
        )  # fmt: skip

    def _build(self, step: PlannedStep) -> Action[Any]:
        return step.action(self._look_up())

    def _look_up(self) -> Callable[[Reference], Any]:
        steps = self._core.state.steps
        outputs = {name: record.output for name, record in steps.items() if record.output is not None}
        outputs = {name: {} for name, record in steps.items() if record.overridden} | outputs  # it told nothing
        look_up = look_up_in(outputs, self._facts(), self._environ)

        def remember(reference: Reference) -> Any:
            value = look_up(reference)
            return self._secrets.learn(value) if reference.secret else value

        return remember

    def _facts(self) -> dict[str, str]:
        started = self._core.state.started
        if started is None:
            return {}
        return {
            "id": self.execution, "mode": started.mode.value, "service": started.service, "runbook": started.runbook,
            "started_at": started.at.isoformat(), "initiator": started.initiator,
        }  # fmt: skip

    def _lease(self, target: str) -> None:
        if target in self._held:
            return
        got = self._journal.acquire([*self._held, target], self._holder, LEASE, self._clock.now())
        if isinstance(got, Busy):
            held_by = f"execution {got.holder.execution} since {got.since:%H:%M:%S} UTC"
            raise ActionFailed(f"{got.target} is held by {held_by}", code="busy")
        self._held = dict(got.tokens)
        self._write([LeaseTaken(at=self._clock.now(), targets={target: got.tokens[target]})])

    # -- leases and libraries

    def _guard(self) -> None:
        """Right before every call: raise Revoked when less of the lease is left than the longest call may take, or all is over."""
        if self._over.is_set():  # what the preflight still asks would go on for its patience
            raise Revoked("the execution has ended")
        if self._leased_until is not None and time.monotonic() + CALL.total_seconds() > self._leased_until:
            raise Revoked("the lease may be lost")

    def _renew(self) -> None:
        while not self._over.wait(LEASE.total_seconds() / 3):
            before = time.monotonic()
            try:
                self._journal.renew(self._holder, LEASE, self._clock.now())
                self._leased_until = before + LEASE.total_seconds()
            except LeaseLost as error:
                self._leased_until = 0.0
                self._mailbox.put(Stop(self._clock.now(), "engine", str(error)))
                return
            except JournalError:
                continue  # `_guard` ends the calls in time if it stays away

    def _warm_up(self) -> None:
        """Import what later steps need while earlier ones wait, once the first look is out."""
        if self._warm:
            return
        self._warm = True
        wanted = {name for step in self._core.plan.steps if step.action_type for name in step.action_type.libraries}
        for name in sorted(wanted):
            with suppress(ImportError):  # the step that needs it will say so
                importlib.import_module(name)


def needs_act(mode: Mode, step: PlannedStep) -> bool:
    """Whether the step is really carried out in this mode; else it is only looked at and described."""
    return mode is not Mode.dry_run and not (mode is Mode.drill and step.drill != "run")


def needs_lease(mode: Mode, step: PlannedStep) -> bool:
    """Whether carrying the step out in this mode changes something."""
    return is_change(step) and needs_act(mode, step)


