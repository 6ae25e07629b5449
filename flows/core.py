"""The engine's decisions: a pure function from (state, message) to (state, commands). No clock, no thread, no journal.

    react(core, message) -> (core, commands)         commands are carried out in order; a Write before what it announces

What must never happen, and where it is prevented:
- an act without its announcement in the journal: `_act` is the only place that gives DoAct first, and Write comes before
- an act behind a gate that is not approved, or on an old look: `_wants_to_act` and its `fresh` flag
- an act after a stop, in a rollback, or in a dry run: `_may_change`
- a step done twice: an attempt that announced an act only looks (`underway`, resend excepted) until the world answers
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from flows import gates
from flows.clock import recovery_deadline
from flows.events import (
    Acted,
    Acting,
    ApprovalGiven,
    Choice,
    DecisionClosed,
    DecisionOpened,
    Event,
    ExecutionFinished,
    Forecasted,
    GateClosed,
    GateOpened,
    Interrupted,
    Marked,
    Noted,
    RollbackStarted,
    Status,
    StepAgain,
    StepFinished,
    StepStarted,
    StopAsked,
    Undoing,
)
from flows.forecast import forecast
from flows.journal import SaidAboutFailure, SaidAboutGate, SaidNote, SaidStop
from flows.messages import (
    ActReturned,
    Command,
    DoAct,
    DoLook,
    DoUndo,
    Failure,
    Letter,
    Look,
    Message,
    Revoke,
    Saw,
    Stop,
    Tick,
    UndoReturned,
    Write,
)
from flows.rules import condition_holds, manual_gate, rollback_order, verdict_of
from flows.state import ExecutionState, StepRecord, apply
from runbooks.model import Mode
from runbooks.plan import GateRule, Plan, PlannedStep, change_type, is_change
from tasks.contract import Seen

DECISION_TIMEOUT = timedelta(minutes=15)
"""How long a failed step waits for a person; then the execution ends without going on."""
GATE = "gate"
"""Code of a refusal that came from people: it is an answer, so nobody is asked again."""


class Phase(StrEnum):
    """Where an attempt stands; volatile, because after a crash every attempt begins with a look."""

    looking = "looking"
    gated = "gated"
    acting = "acting"
    verifying = "verifying"


@dataclass(frozen=True)
class Attempt:
    """One try at a step in this process."""

    number: int
    deadline: datetime
    phase: Phase = Phase.looking
    busy: bool = False
    """A look or an act is out; at most one at a time."""
    due: datetime | None = None
    """When the next look is to go out."""
    seen: Seen[Any] | None = None
    last: Look | None = None
    """The look that `seen` came from."""
    streak: int = 0
    steady_since: datetime | None = None
    fresh: bool = False
    """The look that comes next was asked for after the gate opened: acting may follow it."""
    acts: int = 0
    last_act: datetime | None = None
    paused: timedelta | None = None
    """What is left of the timeout while people decide."""
    trouble: str = ""
    refused: Failure | None = None
    """The world's final no to an act; one more look decides whether it happened all the same."""


@dataclass(frozen=True)
class Core:
    """Everything a decision needs: the plan, the durable state and the attempts of this process."""

    plan: Plan
    state: ExecutionState
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    undoing: str | None = None
    ended: bool = False
    """Nothing more will happen in this process."""


def react(core: Core, message: Message) -> tuple[Core, tuple[Command, ...]]:
    """Take one message in; give the new core and what is to be done, in order."""
    turn = _Turn(core, message.at)
    turn.take(message)
    if not turn.core.ended:
        turn.advance()
    return turn.core, tuple(turn.commands)


def next_due(core: Core) -> datetime | None:
    """When something is due without any message; None when nothing is."""
    times: list[datetime] = []
    for attempt in core.attempts.values():
        if attempt.phase is not Phase.gated:
            times.append(attempt.deadline)
        if attempt.due is not None and not attempt.busy:
            times.append(attempt.due)
    for gate in core.state.gates.values():
        if gate.waiting and gate.opened:
            times.append(gate.opened.deadline)
    times += [record.opened.deadline for record in core.state.decisions.values() if record.closed is None]
    return min(times, default=None)


class _Turn:
    """One turn of `react`: collects commands while the core changes."""

    def __init__(self, core: Core, now: datetime) -> None:
        self.core = core
        self.now = now
        self.commands: list[Command] = []

    # -- small steps

    @property
    def plan(self) -> Plan:
        return self.core.plan

    @property
    def state(self) -> ExecutionState:
        return self.core.state

    def write(self, event: Event) -> None:
        self.core = replace(self.core, state=apply(self.core.state, event))
        self.commands.append(Write(event))

    def set(self, step: str, attempt: Attempt | None) -> None:
        attempts = {name: known for name, known in self.core.attempts.items() if name != step}
        self.core = replace(self.core, attempts=attempts if attempt is None else {**attempts, step: attempt})

    def change(self, step: str, **fields: Any) -> Attempt:
        attempt = replace(self.core.attempts[step], **fields)
        self.set(step, attempt)
        return attempt

    def rule(self, gate: str) -> GateRule:
        known = self.plan.gate_by_name.get(gate)
        return known if known is not None else manual_gate(self.plan.by_id[gate])

    @property
    def stopping(self) -> bool:
        return self.state.stop is not None

    def _may_change(self) -> bool:
        return not self.stopping and self.state.rollback is None and self.plan.mode is not Mode.dry_run

    # -- messages

    def take(self, message: Message) -> None:
        match message:
            case Saw():
                if self._current(message.step, message.attempt) is not None:
                    self.change(message.step, busy=False, due=None)
                    if isinstance(message.look, Failure):
                        self._look_failed(self.plan.by_id[message.step], message.look)
                    else:
                        self._saw(self.plan.by_id[message.step], message.look)
            case ActReturned():
                if self._current(message.step, message.attempt) is not None:
                    self._act_returned(self.plan.by_id[message.step], message.failure)
            case UndoReturned():
                self._undone(message)
            case Letter():
                self._letter(message)
            case Stop():
                if not self.stopping:
                    self.write(StopAsked(at=self.now, by=message.by, reason=message.reason))
            case Tick():
                pass

    def _current(self, step: str, number: int) -> Attempt | None:
        attempt = self.core.attempts.get(step)
        return attempt if attempt is not None and attempt.number == number else None

    def _letter(self, letter: Letter) -> None:
        number, said = letter.received.number, letter.received.said
        if number <= self.state.adopted:
            return
        match said:
            case SaidAboutGate() if said.gate in self.plan.gate_by_name or said.gate in self.plan.by_id:
                self.write(
                    ApprovalGiven(at=self.now, gate=said.gate, answer=said.answer, by=said.by, how=said.how,
                                  reason=said.reason, given_at=letter.received.at, entry=number)
                )  # fmt: skip
            case SaidAboutFailure() if self._asked(said.step):
                self._decide(said.step, said.choice, said.by, said.reason, number)
            case SaidStop():
                self.write(StopAsked(at=self.now, by=said.by, reason=said.reason, entry=number))
            case SaidNote():
                self.write(Noted(at=self.now, text=said.reason, by=said.by, entry=number))
            case _:
                self.write(Noted(at=self.now, by=said.by, entry=number, text="answered something that nobody asks"))

    def _asked(self, step: str) -> bool:
        record = self.state.decisions.get(step)
        return record is not None and record.closed is None

    # -- looks

    def _saw(self, step: PlannedStep, look: Look) -> None:
        attempt = self.core.attempts[step.id]
        action = step.action_type
        if action is None:
            raise AssertionError(f"{step.id} has no action, yet was looked at")
        streak = attempt.streak + 1 if look.done else 0
        since = (attempt.steady_since or self.now) if look.done else None
        attempt = self.change(
            step.id, seen=Seen(look.state, self.now), last=look, streak=streak, steady_since=since, trouble=""
        )
        if look.done and self._steady(look, attempt):
            self._succeeded(step, look)
        elif self.plan.mode is Mode.dry_run or (self.plan.mode is Mode.drill and step.drill == "simulate"):
            self._would(step, look)
        elif not is_change(step) or look.done:
            self.change(step.id, due=self.now + action.interval)
        elif attempt.phase is Phase.verifying:
            self._verify(step, look)
        else:
            self._consider(step, look)

    def _steady(self, look: Look, attempt: Attempt) -> bool:
        if self.plan.mode is Mode.dry_run or attempt.steady_since is None:
            return True
        return attempt.streak >= look.steady.times and self.now - attempt.steady_since >= look.steady.lasting

    def _would(self, step: PlannedStep, look: Look) -> None:
        """A dry run, or a simulated step: say what would happen, and what would prevent it."""
        if look.refuse:
            self._finish(step, Status.failed, f"would be refused: {look.refuse}", look)
        elif is_change(step):
            self._finish(step, Status.would, f"would {look.describe}", look)
        else:
            self._finish(step, Status.would, f"would wait; now: {look.explain}", look)

    def _consider(self, step: PlannedStep, look: Look) -> None:
        """Not done yet: refuse, wait, ask people, or act."""
        attempt = self.core.attempts[step.id]
        if attempt.refused is not None and not look.underway:
            self._failed(step, Status.failed, attempt.refused.reason, attempt.refused.code)
        elif look.refuse:
            self._failed(step, Status.refused, look.refuse)
        elif look.underway:
            self.change(step.id, phase=Phase.verifying, due=self.now + _interval(step))
        else:
            self._wants_to_act(step, look)

    def _wants_to_act(self, step: PlannedStep, look: Look) -> None:
        closed = [name for name in step.gates if not self.state.gate(name).approved]
        if not self._may_change():
            self.set(step.id, None)  # nothing of it was done; it stays unfinished and can be resumed
        elif closed:
            attempt = self.core.attempts[step.id]
            self.change(step.id, phase=Phase.gated, paused=attempt.deadline - self.now, fresh=False, due=None)
            for name in closed:
                self._open_gate(self.rule(name), step, look)
        elif step.gates and not self.core.attempts[step.id].fresh:
            # the gate was open before this look went out only if it opened before the attempt did; else look again
            opened = max((closed.at for name in step.gates if (closed := self.state.gate(name).closed)), default=self.now)
            started = self.state.step(step.id).started or self.now
            if opened <= started:
                self._act(step, look)
            else:
                self._look(step.id, fresh=True)
        else:
            self._act(step, look)

    def _act(self, step: PlannedStep, look: Look) -> None:
        """Announce, then act. The only way to a first DoAct."""
        attempt = self.core.attempts[step.id]
        before = look.state.model_dump(mode="json")
        self.write(
            Acting(at=self.now, step=step.id, attempt=attempt.number, describe=look.describe, before=before,
                   target=look.target)
        )  # fmt: skip
        self._send_act(step, look.state)

    def _send_act(self, step: PlannedStep, before: BaseModel) -> None:
        attempt = self.core.attempts[step.id]
        self.change(
            step.id, phase=Phase.acting, busy=True, due=None, acts=attempt.acts + 1, last_act=self.now, streak=0,
            steady_since=None,
        )  # fmt: skip
        self.commands.append(DoAct(step.id, attempt.number, before))

    def _verify(self, step: PlannedStep, look: Look) -> None:
        """Acted or underway, not done: send again where the action says so, else keep looking."""
        attempt, change = self.core.attempts[step.id], change_type(step)
        resend = change.resend if change is not None else None
        due = resend is not None and attempt.last_act is not None and self.now >= attempt.last_act + resend
        if due and attempt.acts and not look.underway and self._may_change():
            self._send_act(step, look.state)
        else:
            self.change(step.id, due=self.now + _interval(step))

    def _look_failed(self, step: PlannedStep, failure: Failure) -> None:
        attempt = self.core.attempts[step.id]
        if failure.ours:
            self._failed(step, Status.errored, failure.reason, failure.code)
        elif attempt.refused is not None:
            self._failed(step, Status.failed, attempt.refused.reason, attempt.refused.code)
        elif self.plan.mode is Mode.dry_run or not (failure.retry or attempt.phase is Phase.verifying):
            self._failed(step, Status.failed, failure.reason, failure.code)
        else:
            self.change(step.id, due=self.now + _interval(step), trouble=failure.reason, streak=0, steady_since=None)

    def _look(self, step: str, *, fresh: bool = False) -> None:
        attempt = self.change(step, busy=True, due=None, fresh=fresh or self.core.attempts[step].fresh)
        acted = self.state.step(step).acting
        self.commands.append(DoLook(step, attempt.number, attempt.seen, acted))

    # -- acts

    def _act_returned(self, step: PlannedStep, failure: Failure | None) -> None:
        attempt = self.change(step.id, busy=False)
        first = attempt.acts == 1 or failure is not None
        if first:
            refused = failure.reason if failure else None
            self.write(
                Acted(at=self.now, step=step.id, attempt=attempt.number, refused=refused, code=failure.code if failure else "")
            )
        if failure is None:
            self.change(step.id, phase=Phase.verifying, due=self.now)
        elif failure.ours:
            self._failed(step, Status.errored, failure.reason, failure.code)
        elif failure.retry and attempt.acts < step.retry.attempts and self._may_change():
            pause = min(step.retry.longest, step.retry.backoff * step.retry.factor ** (attempt.acts - 1))
            # look again before the next act: the answer may have been lost after the effect
            self.change(step.id, phase=Phase.looking, due=self.now + pause, trouble=failure.reason, fresh=True)
        else:
            self.change(step.id, phase=Phase.looking, due=self.now, refused=failure, trouble=failure.reason)

    # -- outcomes

    def _succeeded(self, step: PlannedStep, look: Look) -> None:
        record = self.state.step(step.id)
        ours = record.acting or not is_change(step)
        detail, ends = look.explain, look.ends or ""
        if self.plan.mode is Mode.dry_run:
            detail, ends = (f"{detail} (a run would end here: {ends})" if ends else detail), ""
        else:
            for mark, when in look.marks.items():
                if mark not in self.state.marks:
                    self.write(Marked(at=self.now, mark=mark, when=when or self.now))
        self._finish(step, Status.done if ours else Status.already, detail, look, ends=ends)

    def _finish(self, step: PlannedStep, status: Status, detail: str, look: Look | None = None, **more: Any) -> None:
        number = self.state.step(step.id).attempt
        attempt = self.core.attempts.get(step.id)
        output = look.state.model_dump(mode="json") if look is not None else None
        if attempt is not None:
            self.set(step.id, None)
            self.commands.append(Revoke(step.id, attempt.number, "the step has ended"))
        self.write(
            StepFinished(at=self.now, step=step.id, attempt=number, status=status, detail=detail, output=output, **more)
        )

    def _failed(self, step: PlannedStep, status: Status, reason: str, code: str = "") -> None:
        """A step did not do what it should; `_settle_failures` does what the runbook says about it."""
        attempt = self.core.attempts.get(step.id)
        accepted = step.on_failure == "continue" or step.on_failure in self.plan.by_id
        self._finish(step, status, reason, attempt.last if attempt else None, code=code, accepted=accepted)

    def _settle_failures(self) -> None:
        """For every failure that holds something up: ask, or do what was decided. A level, so a crash loses nothing."""
        if self.plan.mode is Mode.dry_run or self.stopping or self.state.rollback is not None:
            return
        for step in self.plan.steps:
            record = self.state.step(step.id)
            if record.status is None or record.lets_go_on or record.code == GATE or record.finished is None:
                continue
            decision = self.state.decisions.get(step.id)
            if decision is not None and decision.opened.at >= record.finished:
                if decision.closed is not None:
                    self._carry_out_decision(step, record, decision.closed)
            elif step.on_failure == "ask":
                options = (Choice.retry, Choice.skip, Choice.roll_back, Choice.abort)
                self.write(
                    DecisionOpened(at=self.now, step=step.id, reason=record.detail, options=options,
                                   default=Choice.abort, deadline=self.now + DECISION_TIMEOUT)
                )  # fmt: skip
            elif step.on_failure == "roll-back":
                self._roll_back("the runbook")

    def _decide(self, step: str, choice: Choice, by: str, reason: str, entry: int = 0) -> None:
        self.write(DecisionClosed(at=self.now, step=step, choice=choice, by=by, reason=reason, entry=entry))

    def _carry_out_decision(self, step: PlannedStep, record: StepRecord, decision: DecisionClosed) -> None:
        match decision.choice:
            case Choice.retry:
                self.write(StepAgain(at=self.now, step=step.id))
            case Choice.skip:
                self.write(
                    StepFinished(at=self.now, step=step.id, attempt=record.attempt, status=Status.skipped,
                                 by=decision.by, detail=f"skipped by {decision.by} after: {record.detail}")
                )  # fmt: skip
            case Choice.roll_back:
                self._roll_back(decision.by)
            case Choice.abort:
                pass

    # -- gates

    def _open_gate(self, gate: GateRule, step: PlannedStep, look: Look | None) -> None:
        record = self.state.gate(gate.name)
        if record.waiting:
            return
        evidence = [look.describe] if look is not None and look.describe else []
        for name, known in self.state.steps.items():
            planned = self.plan.by_id[name]
            if known.status is Status.done and not is_change(planned) and known.detail:
                evidence.append(f"{name}: {known.detail}")
        self.write(
            GateOpened(at=self.now, gate=gate.name, question=gate.rule.title or step.title, covers=gate.covers,
                       evidence=tuple(evidence), deadline=self.now + gate.rule.timeout, manual=step.manual is not None)
        )  # fmt: skip

    def _judge_gates(self) -> None:
        for name, record in self.state.gates.items():
            if not record.waiting or record.opened is None or self.state.started is None:
                continue
            asked = gates.Asked(record.opened.at, record.opened.deadline, self.state.started.initiator, self.plan.mode)
            said = gates.judge(self.rule(name).rule, record.answers, asked, self.now)
            if not isinstance(said, gates.Waiting):
                approved = isinstance(said, gates.Approved)
                self.write(GateClosed(at=self.now, gate=name, approved=approved, by=said.by, reason=said.reason))
                self._gate_closed(name, approved, said.reason, said.by)

    def _gate_closed(self, name: str, approved: bool, reason: str, by: tuple[str, ...]) -> None:
        planned = self.plan.by_id.get(name)
        if planned is not None and planned.manual is not None:
            told = f"{', '.join(by)}: {reason}".strip(": ") if by else reason
            if approved:
                self._finish(planned, Status.done, told or "done by hand", by=", ".join(by))
            else:
                self._failed(planned, Status.failed if by else Status.refused, told, "" if by else GATE)
            return
        for step in self.rule(name).covers:
            attempt = self.core.attempts.get(step)
            if attempt is None or attempt.phase is not Phase.gated:
                continue
            if not approved:
                self._finish(self.plan.by_id[step], Status.refused, f"gate {name}: {reason}", code=GATE)
            elif all(self.state.gate(other).approved for other in self.plan.by_id[step].gates):
                left = attempt.paused if attempt.paused is not None else self.plan.by_id[step].timeout
                attempt = self.change(step, phase=Phase.looking, paused=None, deadline=self.now + left)
                if attempt.seen is not None and attempt.seen.at == self.now and attempt.last is not None:
                    self._act(self.plan.by_id[step], attempt.last)  # answered before it was asked: no time has passed
                else:
                    self._look(step, fresh=True)  # minutes may have passed at the gate

    # -- the level: what is due now

    def advance(self) -> None:
        """Start, look, time out, judge and end whatever is due; nothing here depends on which message came."""
        self._judge_gates()
        self._expire()
        self._settle_failures()
        if self.state.rollback is not None:
            self._continue_rollback()
        elif not self.stopping:
            while self._start_ready():
                pass
        self._judge_gates()  # a gate that was answered early opens and closes in the same turn
        for name, attempt in list(self.core.attempts.items()):
            if not attempt.busy and attempt.due is not None and attempt.due <= self.now:
                self._look(name)
        self._stop_attempts()
        self._tell_forecast()
        self._end()

    def _expire(self) -> None:
        for name, attempt in list(self.core.attempts.items()):
            if attempt.phase is not Phase.gated and attempt.deadline <= self.now:
                step = self.plan.by_id[name]
                self._failed(step, Status.timed_out, self._last_words(step, attempt))
        for name, record in list(self.state.decisions.items()):
            if record.closed is None and record.opened.deadline <= self.now:
                self._decide(name, record.opened.default, "nobody", "nobody answered in time")

    def _last_words(self, step: PlannedStep, attempt: Attempt) -> str:
        seen = ""
        if attempt.trouble:
            seen = f"; last trouble: {attempt.trouble}"
        elif attempt.last is not None:
            seen = f"; last seen: {attempt.last.explain}"
        hung = " (a call hangs)" if attempt.busy else ""
        return f"not done after {step.timeout.total_seconds():g}s{hung}{seen}"

    def _start_ready(self) -> bool:
        started = False
        for step in self.plan.steps:
            record = self.state.step(step.id)
            if record.status is not None or step.id in self.core.attempts or self.state.gate(step.id).waiting:
                continue
            if all(self.state.step(name).lets_go_on for name in step.after):
                started = self._start(step, record) or started
        return started

    def _start(self, step: PlannedStep, record: StepRecord) -> bool:
        """Start or skip a step whose time has come; True when something that comes after may be ready now."""
        skip = self._reason_to_skip(step)
        if skip is not None:
            ends = next((self.state.step(name).ends for name in step.after if self.state.step(name).ends), "")
            self.write(StepFinished(at=self.now, step=step.id, attempt=0, status=Status.skipped, detail=skip, ends=ends))
            return True
        number = record.attempt + 1
        if step.manual is not None and self.plan.mode is Mode.dry_run:
            self.write(
                StepFinished(at=self.now, step=step.id, attempt=number, status=Status.would,
                             detail=f"would ask a person: {step.manual}")
            )  # fmt: skip
            return True
        self.write(StepStarted(at=self.now, step=step.id, attempt=number))
        if step.manual is not None:
            self._open_gate(manual_gate(step), step, None)
            return False
        self.set(step.id, Attempt(number, self.now + step.timeout))
        self._look(step.id)
        return False

    def _reason_to_skip(self, step: PlannedStep) -> str | None:
        for name in step.after:
            if self.state.step(name).ends:
                return self.state.step(name).ends
        if self.plan.mode is Mode.drill and step.drill == "skip":
            return "left out in a drill"
        if step.handles and not any(self.state.step(name).accepted for name in step.handles):
            return f"only runs when {' or '.join(step.handles)} fails"
        for condition in step.when:
            if not condition_holds(condition, self.state, self.plan):
                return f"{condition.subject} is not {' or '.join(map(str, condition.values))}"
        return None

    def _stop_attempts(self) -> None:
        """Asked to stop: attempts that changed nothing end at once, those that acted are observed once more."""
        if not self.stopping:
            return
        for name, attempt in list(self.core.attempts.items()):
            waiting = attempt.phase in {Phase.gated, Phase.looking} and not self.state.step(name).acting
            if waiting or (attempt.phase is Phase.verifying and not attempt.busy and attempt.due != self.now):
                self.set(name, None)
                self.commands.append(Revoke(name, attempt.number, "stopped"))

    def _tell_forecast(self) -> None:
        if self.plan.mode is Mode.dry_run or self.state.started is None:
            return
        deadline = recovery_deadline(self.state, self.plan)
        told = {known.verdict for known in self.state.forecasts}
        recovery = forecast(self.plan, self.state, self.now).recovery
        if recovery is None or self._recovered():
            return
        if self.now > deadline and "missed" not in told:
            self.write(Forecasted(at=self.now, verdict="missed", recovery=recovery))
        elif recovery > deadline and not told:
            self.write(Forecasted(at=self.now, verdict="at-risk", recovery=recovery))

    def _recovered(self) -> bool:
        return all(self.state.step(name).status in {Status.done, Status.already} for name in self.plan.runbook.recovered_when)

    # -- rollback

    def _roll_back(self, by: str) -> None:
        if self.state.rollback is None:
            steps, left = rollback_order(self.plan, self.state)
            self.write(RollbackStarted(at=self.now, steps=steps, left=left, by=by))

    def _continue_rollback(self) -> None:
        for name, attempt in list(self.core.attempts.items()):
            if attempt.phase is Phase.gated or (attempt.phase is Phase.looking and not self.state.step(name).acting):
                self.set(name, None)
                self.commands.append(Revoke(name, attempt.number, "rolling back"))
        if self.core.attempts or self.core.undoing is not None or self.stopping or self.state.rollback is None:
            return  # what acted is still being observed
        for name in self.state.rollback.steps:
            record = self.state.step(name)
            if not record.undone and record.before is not None:
                self.write(Undoing(at=self.now, step=name))
                self.core = replace(self.core, undoing=name)
                self.commands.append(DoUndo(name, record.before))
                return

    def _undone(self, message: UndoReturned) -> None:
        self.core = replace(self.core, undoing=None)
        failure = message.failure
        status = Status.rolled_back if failure is None else Status.failed
        detail = "brought back to what it was" if failure is None else f"could not be undone: {failure.reason}"
        number = self.state.step(message.step).attempt
        self.write(StepFinished(at=self.now, step=message.step, attempt=number, status=status, detail=detail))

    # -- the end

    def _end(self) -> None:
        open_questions = any(record.waiting for record in self.state.gates.values()) or any(
            record.closed is None for record in self.state.decisions.values()
        )
        if self.core.attempts or self.core.undoing is not None or (open_questions and not self.stopping):
            return
        if self.stopping and self.state.stop is not None and not self._all_finished():
            self.write(Interrupted(at=self.now, reason=self.state.stop.reason))
        else:
            verdict, detail = verdict_of(self.plan, self.state)
            self.write(ExecutionFinished(at=self.now, verdict=verdict, detail=detail))
        self.core = replace(self.core, ended=True)

    def _all_finished(self) -> bool:
        return all(self.state.step(step.id).status is not None for step in self.plan.steps)


def _interval(step: PlannedStep) -> timedelta:
    return step.action_type.interval if step.action_type is not None else timedelta(seconds=1)
