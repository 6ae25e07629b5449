"""What the journal holds: one frozen type per thing that can happen in an execution. State is their fold.

Every event carries `at` (UTC). Events are facts: they are never changed, and only the engine that holds the execution
appends them. Anything people say reaches it through the inbox first.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from runbooks.model import Mode
from tasks.contract import Duration, Loss, Mark

SCHEMA_VERSION = 2
"""Of the events below, and of the tables that hold them on PostgreSQL; a newer one is not read. 2: macs, overrides."""


class Status(StrEnum):
    """What became of a step, in one word."""

    done = "done"
    already = "already"
    would = "would"
    skipped = "skipped"
    refused = "refused"
    failed = "failed"
    timed_out = "timed-out"
    rolled_back = "rolled-back"
    errored = "errored"

    @property
    def lets_go_on(self) -> bool:
        """Whether steps after it may start; a failure that was accepted is marked apart (StepRecord.accepted)."""
        return self in {Status.done, Status.already, Status.would, Status.skipped}


class Verdict(StrEnum):
    """What became of an execution."""

    recovered = "recovered"
    no_action = "no-action"
    would = "would"
    failed = "failed"
    refused = "refused"
    rolled_back = "rolled-back"


class Answer(StrEnum):
    """What a person says to a gate."""

    approve = "approve"
    deny = "deny"


class Choice(StrEnum):
    """What a person may decide about a failed step."""

    retry = "retry"
    skip = "skip"
    roll_back = "roll-back"
    abort = "abort"


class Happened(BaseModel):
    """Base of all events."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    at: datetime


class ExecutionStarted(Happened):
    """Always the first: everything needed to plan the same thing again, on another machine, without the file."""

    kind: Literal["execution-started"] = "execution-started"
    schema_version: int = SCHEMA_VERSION
    version: str
    runbook: str
    title: str
    service: str
    file: str
    text: str
    plan_hash: str
    mode: Mode
    inputs: dict[str, Any]
    rto: float
    """seconds"""
    rpo: float | None
    initiator: str
    channel: str
    """How it was started: cli, prefect, demo, …"""
    reason: str = ""
    host: str
    pid: int
    boot: str = ""
    """Identifies host and process start, so that a dead holder can be told from a silent one."""


class Resumed(Happened):
    """Another process took the execution over; `again` are the steps that start once more."""

    kind: Literal["resumed"] = "resumed"
    version: str
    by: str
    host: str
    pid: int
    boot: str = ""
    """As in ExecutionStarted."""
    again: tuple[str, ...] = ()


class Override(Happened):
    """A named person lets a local copy of the journal go on without the journal's leases, because it is dead."""

    kind: Literal["override"] = "override"
    by: str
    reason: str
    journal: str
    """The place of the journal that is dead."""
    file: str
    """The copy that goes on."""
    host: str
    last: int
    """Number of the last event that the copy knew."""
    waited: float
    """Seconds that the last holder's lease was waited for."""


class LeaseTaken(Happened):
    """The right to change these targets, with the token that only grows."""

    kind: Literal["lease-taken"] = "lease-taken"
    targets: dict[str, int]


class StepStarted(Happened):
    """An attempt at a step begins, with a look."""

    kind: Literal["step-started"] = "step-started"
    step: str
    attempt: int


class GateOpened(Happened):
    """People are asked. `evidence`: one line each, real values."""

    kind: Literal["gate-opened"] = "gate-opened"
    gate: str
    question: str
    covers: tuple[str, ...]
    evidence: tuple[str, ...]
    deadline: datetime
    manual: bool = False
    loss: Loss | None = None
    """What the steps it covers would lose, as known at `at`."""
    again: str = ""
    """Why the approval that was there does not count any more: 'kim approved at 03:04:05 UTC, 2h05m ago, …'."""


class StepWaits(Happened):
    """A fence waits for people; what it was seen as, for whoever takes the run over: the node may never tell it again."""

    kind: Literal["step-waits"] = "step-waits"
    step: str
    seen: dict[str, Any]


class ApprovalGiven(Happened):
    """One person's answer, adopted from the inbox; it may come before the gate opens."""

    kind: Literal["approval-given"] = "approval-given"
    gate: str
    answer: Answer
    by: str
    how: str
    """How we know: 'self-declared' on a terminal, 'prefect-form', …"""
    reason: str = ""
    accepts_loss: Duration | None = None
    """So much acknowledged data may be lost, in this person's name; flows.gates.UNKNOWN: any amount."""
    given_at: datetime
    entry: int
    """Of the inbox, so that it is adopted once."""


class GateClosed(Happened):
    """The rule has decided."""

    kind: Literal["gate-closed"] = "gate-closed"
    gate: str
    approved: bool
    by: tuple[str, ...]
    reason: str
    accepts_loss: Duration | None = None
    """The least that any of them accepted."""


class Acting(Happened):
    """Written and flushed before the first call of a change leaves; `before` is what undo works from."""

    kind: Literal["acting"] = "acting"
    step: str
    attempt: int
    describe: str
    before: dict[str, Any]
    target: str
    retreats: bool = False
    """It only takes back what this step did: it makes no approval younger."""


class Acted(Happened):
    """The call came back; whether the world agrees is another question."""

    kind: Literal["acted"] = "acted"
    step: str
    attempt: int
    refused: str | None = None
    """The world's refusal, if it was one."""
    code: str = ""


class StepFinished(Happened):
    """A step's outcome."""

    kind: Literal["step-finished"] = "step-finished"
    step: str
    attempt: int
    status: Status
    detail: str
    output: dict[str, Any] | None = None
    code: str = ""
    accepted: bool = False
    """A failure that lets what comes after go on."""
    ends: str = ""
    """Why nothing after this step is to be done; it and all of them ended well."""
    loss: Loss | None = None
    """What a promotion would lose, or lost, as this step last saw it."""
    by: str = ""


class StepAgain(Happened):
    """A person decided to try a failed step again."""

    kind: Literal["step-again"] = "step-again"
    step: str


class DecisionOpened(Happened):
    """A step failed and people are asked what to do; silence means `default` at the deadline."""

    kind: Literal["decision-opened"] = "decision-opened"
    step: str
    reason: str
    options: tuple[Choice, ...]
    default: Choice
    deadline: datetime


class DecisionClosed(Happened):
    """What was decided about a failed step."""

    kind: Literal["decision-closed"] = "decision-closed"
    step: str
    choice: Choice
    by: str
    reason: str
    entry: int = 0
    """Of the inbox; 0 when nobody answered."""


class OverrideGiven(Happened):
    """One person's word that a fence which does not hold may be passed, adopted from the inbox."""

    kind: Literal["override-given"] = "override-given"
    step: str
    by: str
    how: str
    reason: str
    given_at: datetime
    entry: int


class FenceOverridden(Happened):
    """Enough people accepted that two nodes may take writes: what comes after this fence may go on without it."""

    kind: Literal["fence-overridden"] = "fence-overridden"
    step: str
    by: tuple[str, ...]
    reason: str


class Marked(Happened):
    """A mark of the RTO clock; `when` may lie before `at`."""

    kind: Literal["marked"] = "marked"
    mark: Mark
    when: datetime


class Forecasted(Happened):
    """Said once each: recovery is expected after the RTO, or the RTO has passed."""

    kind: Literal["forecasted"] = "forecasted"
    verdict: Literal["at-risk", "missed"]
    recovery: datetime


class StopAsked(Happened):
    """Somebody wants it to stop: no further change starts, what is under way is still observed."""

    kind: Literal["stop-asked"] = "stop-asked"
    by: str
    reason: str
    entry: int = 0


class RollbackStarted(Happened):
    """From here on only undoing, in this order; `left` cannot be undone, each with the reason."""

    kind: Literal["rollback-started"] = "rollback-started"
    steps: tuple[str, ...]
    left: dict[str, str]
    by: str


class Undoing(Happened):
    """Written and flushed before an undo's call leaves."""

    kind: Literal["undoing"] = "undoing"
    step: str


class Noted(Happened):
    """Something worth keeping that changes nothing."""

    kind: Literal["noted"] = "noted"
    text: str
    by: str = ""
    entry: int = 0


class Checked(BaseModel):
    """One thing that a step will need, as found before the first change."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    step: str
    what: str
    result: Literal["ok", "problem", "unknown"]
    """unknown: it could not be asked, and was not recorded earlier either."""
    found: str
    advice: str = ""
    as_of: datetime | None = None
    """When it was found so, where it could not be asked now and an earlier look had recorded it."""

    def __str__(self) -> str:
        """One line for people."""
        when = f" (as of {self.as_of:%Y-%m-%d %H:%M} UTC; it cannot be asked now)" if self.as_of else ""
        return f"{self.step}: {self.what}: {self.found}{when}" + (f"; {self.advice}" if self.advice else "")


class Preflighted(Happened):
    """What the changes will need was looked at; a problem holds every change until a person lets it go on."""

    kind: Literal["preflighted"] = "preflighted"
    checks: tuple[Checked, ...]
    seconds: float
    """How long the looks took."""

    @property
    def problems(self) -> tuple[Checked, ...]:
        """What would make a step fail."""
        return tuple(one for one in self.checks if one.result == "problem")


class Past(BaseModel):
    """How long a step took in `runs` earlier executions: machine seconds, people's time taken out.

    `seconds`: shortest first; at most 20 of them, thinned so that their quantiles stay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    runs: int
    seconds: tuple[float, ...]


class HistoryLearned(Happened):
    """What earlier executions of this runbook tell the forecast; it comes some time after the start, or never."""

    kind: Literal["history-learned"] = "history-learned"
    executions: int
    steps: dict[str, Past]
    skipped: tuple[str, ...] = ()
    """Executions that could not be read, each with the reason."""


class Interrupted(Happened):
    """A process stopped in good order; the execution can be resumed."""

    kind: Literal["interrupted"] = "interrupted"
    reason: str


class ExecutionFinished(Happened):
    """Always the last, unless resumed."""

    kind: Literal["execution-finished"] = "execution-finished"
    verdict: Verdict
    detail: str


Event = (
    ExecutionStarted | Resumed | Override | LeaseTaken | StepStarted | GateOpened | ApprovalGiven | GateClosed | Acting | Acted
    | StepWaits | StepFinished | StepAgain | DecisionOpened | DecisionClosed | OverrideGiven | FenceOverridden | Marked | Forecasted
    | StopAsked | RollbackStarted | Undoing | Noted | Preflighted | HistoryLearned | Interrupted | ExecutionFinished
)  # fmt: skip
ANY_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


class Progress(BaseModel):
    """What a step was last seen doing, for people who watch; told to observers, never journaled."""

    model_config = ConfigDict(frozen=True)
    at: datetime
    step: str
    attempt: int
    text: str
