"""What a report consists of: frozen, JSON-ready; the only source of its Markdown, HTML, PNG, and of Prefect's artifacts.

Times are UTC, durations are seconds. `python -m flows.report_schema` publishes it as JSON Schema.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.contract import Lost


class Frozen(BaseModel):
    """Base of the report's parts; times are UTC, durations seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Span(Frozen):
    """From when until when; without an end it lasts still."""

    start: datetime
    end: datetime | None


class Try(Frozen):
    """One attempt at a step."""

    number: int
    start: datetime
    end: datetime | None
    status: str
    """As of the step; 'interrupted' when its process stopped or died, 'running' when it lasts still."""


class StepLine(Frozen):
    """One row of the timeline."""

    step: str
    title: str
    uses: str
    status: str
    budget: float
    """seconds"""
    expected: float
    """seconds: the median of earlier runs, else the budget"""
    expected_from: str
    """'from 7 runs' or 'budget'"""
    actual: float | None
    """seconds of work, people's time taken out; None when it never started"""
    waited: float
    """seconds that people were waited for"""
    started: datetime | None
    finished: datetime | None
    attempts: int
    tries: tuple[Try, ...]
    waits: tuple[Span, ...]
    """when people were waited for"""
    change: str
    """what was announced before acting, old -> new"""
    detail: str


class Said(Frozen):
    """One answer of one person, and how we know that it was theirs."""

    gate: str
    answer: str
    by: str
    how: str
    reason: str
    at: datetime


class GateLine(Frozen):
    """One gate: what was asked, on what evidence, and what became of it."""

    gate: str
    question: str
    covers: tuple[str, ...]
    evidence: tuple[str, ...]
    state: Literal["approved", "refused", "waiting"]
    outcome: str
    waited: float
    asked: tuple[Span, ...]
    """every time it was asked; more than once after a resume"""
    deadline: datetime
    manual: bool
    """a step that a person does, and not the approval of one"""


class Parts(Frozen):
    """RTA and what it consisted of, in seconds; the parts add up."""

    total: float
    detection: float
    decision: float
    automation: float
    verification: float


class Fact(Frozen):
    """Something measured outside the engine, such as by the traffic of the lab."""

    name: str
    value: str


class LossRange(Frozen):
    """What a step found out about lost writes, in seconds of writes; `at_most` None: not bounded."""

    step: str
    at: datetime
    at_least: float
    at_most: float | None
    promoted: bool = False
    """It is what a promotion of this run may have lost, not what a look told."""
    within_rpo: bool | None = None
    """Of a promotion: whether the runbook's RPO allows it; None: it has none, or the step only looked."""
    accepted: str = ""
    """What people accepted above the RPO; empty: nothing had to be."""
    accepted_by: tuple[str, ...] = ()


class LostTransactions(Frozen):
    """What a step listed as lost: transactions, and rows by table and key."""

    step: str
    at: datetime
    lost: Lost


class FenceLine(Frozen):
    """A fence, and how we know that it holds."""

    step: str
    title: str
    status: str
    evidence: str
    at: datetime | None
    facts: tuple[Fact, ...]


class Expectation(Frozen):
    """When recovery was expected, as things were at a moment; None: a failed step made it unknowable."""

    at: datetime
    recovery: datetime | None


class Warned(Frozen):
    """Said once each: recovery is expected after the RTO, or the RTO has passed."""

    at: datetime
    verdict: Literal["at-risk", "missed"]
    recovery: datetime


class Lasting(Frozen):
    """A change that was not undone, and why."""

    step: str
    why: str


class Intervention(Frozen):
    """Something that people or a switch did to the run itself: stopped it, halted it, resumed it, wrote a note."""

    at: datetime
    what: str
    by: str
    reason: str


class Seal(Frozen):
    """Where the record lies, and what seals it: any change of any event of it changes the hash and the anchor."""

    journal: str = ""
    events: int = 0
    hash: str = ""
    """of the last event; nobody needs a key to compute it"""
    anchor: str = ""
    """the last event as it was sealed with the key; `failover verify-journal --anchor` compares"""
    problems: tuple[str, ...] = ()
    """What is not as it was written; empty when it is intact."""
    unchecked: tuple[str, ...] = ()
    """What cannot be told where this was made, because a key is not there."""


class Report(Frozen):
    """Everything that people and auditors ask about an execution."""

    schema_: Literal["failover-report/v1"] = Field("failover-report/v1", alias="schema")
    execution: str
    runbook: str
    title: str
    service: str
    mode: str
    verdict: str
    detail: str
    initiator: str
    channel: str
    reason: str
    version: str
    plan_hash: str
    seal: Seal
    started: datetime
    ended: datetime
    """of the last event; the run may still go on (verdict 'running')"""
    impact: datetime
    detected: datetime | None
    declared: datetime | None
    recovered: datetime | None
    rto: float
    rpo: float | None
    rta: Parts | None
    rto_met: bool | None
    people: float
    """seconds in which anybody was waited for, overlaps counted once"""
    steps: tuple[StepLine, ...]
    gates: tuple[GateLine, ...]
    answers: tuple[Said, ...]
    fences: tuple[FenceLine, ...]
    losses: tuple[LossRange, ...]
    lost_transactions: tuple[LostTransactions, ...]
    expectations: tuple[Expectation, ...]
    warnings: tuple[Warned, ...]
    lasting: tuple[Lasting, ...]
    overridden: tuple[str, ...]
    """Fences that people overrode, who and why: it stands above everything else."""
    preflight: tuple[str, ...]
    """Problems, and what could not be asked, before the first change."""
    refusals: tuple[str, ...]
    interventions: tuple[Intervention, ...]
    unleased: tuple[str, ...]
    """each override: who went on without the journal's leases, why, from which copy"""
    history: str
    """what the forecast learned from earlier executions"""
    facts: tuple[Fact, ...] = ()
