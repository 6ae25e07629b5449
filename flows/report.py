"""The report of an execution, from its events alone: the same at any later time, on any machine that has the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from flows.clock import covered, people_spans, recovered_at, recovery_time
from flows.events import Acted, Event, Noted, Override, Verdict
from flows.state import ExecutionState, fold
from runbooks.plan import Plan
from tasks.durations import show_seconds

SCHEMA = "failover-report/v1"


class Frozen(BaseModel):
    """Base of the report's parts; times are UTC, durations seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StepLine(Frozen):
    """One row of the timeline."""

    step: str
    title: str
    uses: str
    status: str
    budget: float
    """seconds"""
    actual: float | None
    """seconds of work, people's time taken out; None when it never started"""
    waited: float
    """seconds that people were waited for"""
    started: datetime | None
    finished: datetime | None
    attempts: int
    change: str
    """what was announced before acting, old -> new"""
    detail: str


class Said(Frozen):
    """One answer of one person."""

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
    outcome: str
    waited: float


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


class Report(Frozen):
    """Everything that people and auditors ask about an execution."""

    schema_: str = SCHEMA
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
    journal: str
    started: datetime
    ended: datetime
    impact: datetime
    rto: float
    rpo: float | None
    rta: Parts | None
    rto_met: bool | None
    steps: tuple[StepLine, ...]
    gates: tuple[GateLine, ...]
    answers: tuple[Said, ...]
    forecasts: tuple[str, ...]
    refusals: tuple[str, ...]
    notes: tuple[str, ...]
    facts: tuple[Fact, ...] = ()
    unleased: tuple[str, ...] = ()
    """each override: who went on without the journal's leases, why, from which copy"""
    anchor: str = ""
    """the journal's head when this was made; `failover verify-journal --anchor` compares"""


def build(
    execution: str, plan: Plan, events: Sequence[Event], place: str, facts: Sequence[Fact] = (), *, anchor: str = ""
) -> Report:
    """Make the report of an execution; one under way gives a report of what is so far."""
    state = fold(events)
    if state.started is None or state.last is None or state.clock_start is None:
        raise ValueError(f"execution {execution} has no start")
    begun = state.started
    time = recovery_time(state, plan)
    return Report(
        execution=execution, runbook=begun.runbook, title=begun.title, service=begun.service, mode=begun.mode.value,
        verdict=verdict_word(state), detail=state.finished.detail if state.finished else "", initiator=begun.initiator,
        channel=begun.channel, reason=begun.reason, version=begun.version, plan_hash=begun.plan_hash, journal=place,
        started=begun.at, ended=state.last, impact=state.clock_start, rto=begun.rto, rpo=begun.rpo,
        rta=None if time is None else Parts(
            total=time.total.total_seconds(), detection=time.detection.total_seconds(),
            decision=time.decision.total_seconds(), automation=time.automation.total_seconds(),
            verification=time.verification.total_seconds(),
        ),
        rto_met=_met(state, plan), steps=tuple(_line(plan, state, step.id) for step in plan.steps),
        gates=_gates(state), answers=_answers(state),
        forecasts=tuple(f"{one.at:%H:%M:%S} {one.verdict}: recovery expected {one.recovery:%H:%M:%S}" for one in state.forecasts),
        refusals=tuple(f"{one.step}: {one.refused}" for one in events if isinstance(one, Acted) and one.refused),
        notes=tuple(f"{one.at:%H:%M:%S} {one.by}: {one.text}" for one in events if isinstance(one, Noted)),
        facts=tuple(facts), anchor=anchor, unleased=unleased(events),
    )  # fmt: skip


def unleased(events: Sequence[Event]) -> tuple[str, ...]:
    """Each override as one line; empty when the journal's leases held all the time."""
    return tuple(
        f"{one.at:%H:%M:%S} unleased, journal copy: {one.by} on {one.host} went on from {one.file} (up to event {one.last}) "
        f"because {one.journal} was dead: {one.reason}"
        for one in events if isinstance(one, Override)
    )  # fmt: skip


def verdict_word(state: ExecutionState) -> str:
    """The verdict, or 'interrupted' or 'running'."""
    if state.finished is not None:
        return state.finished.verdict.value
    return "interrupted" if state.interrupted is not None else "running"


def _met(state: ExecutionState, plan: Plan) -> bool | None:
    at, start = recovered_at(state, plan), state.clock_start
    if at is not None and start is not None:
        return at - start <= plan.rto
    return False if state.verdict in {Verdict.failed, Verdict.refused, Verdict.rolled_back} else None


def _line(plan: Plan, state: ExecutionState, name: str) -> StepLine:
    step, record = plan.by_id[name], state.step(name)
    end = record.finished or state.last
    waited = timedelta(0)
    actual = None
    if record.first_started is not None and end is not None:
        waited = covered(people_spans(state, plan, name), record.first_started, end)
        actual = (end - record.first_started - waited).total_seconds()
    status = record.status.value if record.status else ("running" if record.started else "not started")
    return StepLine(
        step=name, title=step.title, uses=step.uses or "manual", status=status,
        budget=step.budget.total_seconds(), actual=actual, waited=waited.total_seconds(), started=record.first_started,
        finished=record.finished, attempts=record.attempt, change=record.describe, detail=record.detail,
    )  # fmt: skip


def _gates(state: ExecutionState) -> tuple[GateLine, ...]:
    lines = []
    for name, record in state.gates.items():
        if record.opened is None:
            continue
        waited = sum(((end - start).total_seconds() for start, end in record.waited), 0.0)
        outcome = "waiting"
        if record.closed is not None:
            who = ", ".join(record.closed.by)
            word = "approved" if record.closed.approved else "refused"
            outcome = " ".join(filter(None, (word, f"by {who}" if who else "", f"({record.closed.reason})" if record.closed.reason else "")))
        opened = record.opened
        lines.append(GateLine(gate=name, question=opened.question, covers=opened.covers, evidence=opened.evidence,
                              outcome=outcome, waited=waited))  # fmt: skip
    return tuple(lines)


def _answers(state: ExecutionState) -> tuple[Said, ...]:
    said = [
        Said(gate=one.gate, answer=one.answer.value, by=one.by, how=one.how, reason=one.reason, at=one.given_at)
        for record in state.gates.values()
        for one in record.answers
    ]
    said += [
        Said(gate=f"{name} failed", answer=one.closed.choice.value, by=one.closed.by, how="", reason=one.closed.reason, at=one.closed.at)
        for name, one in state.decisions.items()
        if one.closed is not None
    ]
    return tuple(sorted(said, key=lambda one: one.at))


# -- as text

Row = Sequence[str]


def timeline_rows(report: Report) -> list[Row]:
    """Step, status, budget, actual, people, what it did."""
    rows: list[Row] = [("step", "status", "budget", "actual", "people", "what")]
    rows += [
        (line.step, line.status, seconds(line.budget), seconds(line.actual), seconds(line.waited or None),
         line.change or line.detail)
        for line in report.steps
    ]  # fmt: skip
    return rows


def recovery_lines(report: Report) -> list[str]:
    """RTA against RTO, split into its parts; or why there is none."""
    if report.rta is None:
        return [f"RTA   none: {report.verdict}{': ' + report.detail if report.detail else ''}", f"RTO   {seconds(report.rto)}"]
    rta = report.rta
    word = "within" if report.rto_met else "over"
    parts = {"detection": rta.detection, "decision": rta.decision, "automation": rta.automation}
    parts["verification"] = rta.verification
    return [
        f"RTA   {seconds(rta.total)} from the impact, {word} the RTO of {seconds(report.rto)}",
        "      " + " + ".join(f"{name} {seconds(part)}" for name, part in parts.items()),
    ]


def seconds(value: float | None) -> str:
    """A time for people; '-' when there is none."""
    return "-" if value is None else show_seconds(timedelta(seconds=value))


def aligned(rows: Sequence[Row], width: int = 120) -> list[str]:
    """Rows as lines with columns under each other; the last column is cut at the width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        head = "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=False))
        line = f"{head}  {row[-1]}".rstrip()
        lines.append(line if len(line) <= width else line[: width - 1] + "…")
    return lines


def markdown(report: Report) -> str:
    """The report as Markdown."""
    lines = [
        f"# {report.title}: {report.verdict}",
        "",
        f"Execution `{report.execution}` of runbook `{report.runbook}` for service `{report.service}`, mode **{report.mode}**, "
        f"started {report.started:%Y-%m-%d %H:%M:%S} UTC by {report.initiator} ({report.channel})"
        + (f": {report.reason}" if report.reason else "") + ".",
        "",
        *recovery_lines(report),
        "",
        *(f"**{one}**\n" for one in report.unleased),
        "## Timeline",
        "",
        *_markdown_table(timeline_rows(report)),
        "",
    ]
    if report.facts:
        lines += ["## Measured from outside", "", *_markdown_table([("what", "value"), *((f.name, f.value) for f in report.facts)]), ""]
    for gate in report.gates:
        about = f"Covers {', '.join(gate.covers) or 'itself'}; {gate.outcome}; people took {seconds(gate.waited)}."
        lines += [f"## Gate {gate.gate}: {gate.question}", "", f"{about} What was known:", ""]
        lines += [*(f"- {one}" for one in gate.evidence), ""]
    if report.answers:
        rows: list[Row] = [("time (UTC)", "gate", "answer", "by", "how", "reason")]
        rows += [(f"{one.at:%H:%M:%S}", one.gate, one.answer, one.by, one.how, one.reason) for one in report.answers]
        lines += ["## Answers", "", *_markdown_table(rows), ""]
    for title, texts in (("Forecast", report.forecasts), ("Calls that were refused", report.refusals), ("Notes", report.notes)):
        if texts:
            lines += [f"## {title}", "", *(f"- {text}" for text in texts), ""]
    details: list[Row] = [("step", "detail"), *((line.step, line.detail) for line in report.steps if line.detail)]
    lines += ["## Details", "", *_markdown_table(details), ""]
    anchored = f"; anchor {report.anchor}" if report.anchor else ""
    lines += [f"Journal {report.journal}; plan {report.plan_hash[:16]}; failover {report.version}{anchored}.", ""]
    return "\n".join(lines)


def _markdown_table(rows: Sequence[Row]) -> list[str]:
    def line(cells: Row) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(rows[0]), "|" + "---|" * len(rows[0]), *(line(row) for row in rows[1:])]


def to_json(report: Report) -> str:
    """The report as JSON, indented."""
    return report.model_dump_json(indent=2, by_alias=True).replace('"schema_":', '"schema":', 1)


def facts_of(pairs: Mapping[str, str]) -> tuple[Fact, ...]:
    """Facts from name and value."""
    return tuple(Fact(name=name, value=value) for name, value in pairs.items())
