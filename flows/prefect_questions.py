"""What people are asked through Prefect: the open questions of an execution, their forms, and what an answer means.

Must never happen: an approval that nobody gave. The form's default is no answer, a name is required, and whatever is
neither (a plain Resume, a form sent empty) is refused here with a sentence. Nothing here calls Prefect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from flows.clock import recovery_deadline
from flows.events import Answer, ApprovalGiven, Choice, DecisionOpened, GateOpened
from flows.gates import asked_of, may_answer, not_accepted, read_accepted
from flows.journal import InboxEntry, SaidAboutFailure, SaidAboutGate
from flows.prefect_picture import Shown
from flows.report_text import plain
from flows.rules import gate_rule
from flows.state import ExecutionState
from runbooks.model import Approval
from runbooks.plan import Plan
from tasks.durations import show_time

NO_ANSWER = "no answer"
HOW = "prefect-form"
Kind = Literal["gate", "manual", "failure"]
_VERB: Mapping[Kind, str] = {"gate": "approve", "manual": "do", "failure": "decide"}
_GATE = {"approve": Answer.approve, "deny": Answer.deny}
_MANUAL = {"done": Answer.approve, "not done": Answer.deny}
WITHDRAWN = Shown("CANCELLED", "Withdrawn", "nobody is asked any more")


@dataclass(frozen=True)
class Question:
    """One open question: a gate, a manual step, or what to do about a failed step."""

    kind: Kind
    subject: str
    """Name of the gate or the step."""
    opened: datetime
    """Tells it from the same question asked again."""
    deadline: datetime
    options: tuple[str, ...]
    text: str
    """Markdown: what is asked, the evidence, what silence means."""
    after: tuple[str, ...] = ()
    """The steps that led to it, for the graph."""
    loses: bool = False
    """Data may be lost behind it, so the form has a field to accept that."""

    @property
    def key(self) -> tuple[str, str, datetime]:
        """What makes it the same question."""
        return (self.kind, self.subject, self.opened)

    @property
    def name(self) -> str:
        """The child flow's name."""
        return f"{_VERB[self.kind]}: {self.subject}"

    def form(self) -> type[BaseModel]:
        """The form; without an answer and a name it says nothing."""
        decision: Any = Literal[(NO_ANSWER, *self.options)]
        name = Annotated[str, Field(title="Your name", max_length=200)]
        reason = Annotated[str, Field(title="Reason", max_length=2000)]
        loss = Annotated[str, Field(title="Accepted loss, such as 90s", max_length=60)]
        more: dict[str, Any] = {"accept_loss": (loss, "")} if self.loses else {}
        return create_model(
            "Answer", __config__=ConfigDict(extra="forbid"), decision=(decision, Field(NO_ANSWER, title="Decision")),
            name=(name, ...), reason=(reason, ""), **more,
        )  # fmt: skip

    def said(self, values: Mapping[str, Any]) -> InboxEntry | str:
        """What a sent form says, or why it says nothing."""
        decision, name = str(values.get("decision") or NO_ANSWER), str(values.get("name") or "").strip()
        reason = str(values.get("reason") or "").strip()
        if decision not in self.options:
            return "nothing was decided: choose a decision"
        if not name:
            return f"'{decision}' came without a name, so it does not count: say who you are"
        try:
            accepts = read_accepted(loss) if (loss := str(values.get("accept_loss") or "").strip()) else None
        except ValueError as error:
            return f"'{decision}' does not count: {error}, or unknown"
        if self.kind == "failure":
            return SaidAboutFailure(step=self.subject, choice=Choice(decision), by=name, how=HOW, reason=reason)
        answer = {**_GATE, **_MANUAL}[decision]
        return SaidAboutGate(gate=self.subject, answer=answer, by=name, how=HOW, reason=reason, accepts_loss=accepts)


def open_questions(plan: Plan, state: ExecutionState, execution: str) -> tuple[Question, ...]:
    """Every question that people are asked now."""
    if state.finished is not None or state.interrupted is not None:
        return ()
    gates = [record.opened for record in state.gates.values() if record.waiting and record.opened]
    failures = [record.opened for record in state.decisions.values() if record.closed is None]
    return (
        *(_about_gate(plan, state, opened, execution) for opened in gates),
        *(_about_failure(plan, state, opened, execution) for opened in failures),
    )


def closing(question: Question, state: ExecutionState) -> Shown:
    """How a question ended that is not open any more, for the child flow run that asked it."""
    return _closing(question.kind, question.subject, state)


def closing_of(name: str, state: ExecutionState) -> Shown:
    """The same where only the question's name is known, which its child's task run has."""
    verb, _, subject = name.partition(": ")
    kind = next((kind for kind, word in _VERB.items() if word == verb), None)
    return _closing(kind, subject, state) if kind is not None else WITHDRAWN


def _closing(kind: Kind, subject: str, state: ExecutionState) -> Shown:
    if kind == "failure":
        closed = (record := state.decisions.get(subject)) and record.closed
        if not closed:
            return WITHDRAWN
        return Shown("COMPLETED", "Decided", f"{closed.choice.value} by {closed.by}" + (f": {closed.reason}" if closed.reason else ""))
    gate = state.gate(subject).closed
    if gate is None:
        return WITHDRAWN
    said = f"{', '.join(gate.by) or 'nobody'}" + (f": {gate.reason}" if gate.reason else "")
    return Shown("COMPLETED", "Approved", said) if gate.approved else Shown("FAILED", "Refused", said)


def _about_gate(plan: Plan, state: ExecutionState, opened: GateOpened, execution: str) -> Question:
    gate = gate_rule(plan, opened.gate)
    rule = gate.rule
    silence = "it proceeds" if rule.on_timeout == "proceed" else "nothing is done"
    lines = [f"**{opened.question}**", ""]
    lines += [f"- {plain(one)}" for one in opened.evidence]  # keys that customers chose stand in it
    if opened.covers:
        lines.append(f"- lets act: {', '.join(opened.covers)}")
    if rule.approvers:
        lines.append(f"- who may answer: {', '.join(rule.approvers)}")
    if rule.exclude_initiator and state.started is not None:
        lines.append(f"- {state.started.initiator} started the run and may not approve it")
    if rule.quorum > 1:
        lines.append(f"- {rule.quorum} different people must approve")
    lines += [f"- {one.by} said {one.answer.value}{_doubt(rule, one, opened, state)}" for one in state.gate(opened.gate).answers]
    lines += ["", _times(plan, state, opened.deadline, silence), _command(execution, opened.gate)]
    options = tuple(_MANUAL if opened.manual else _GATE)
    kind: Kind = "manual" if opened.manual else "gate"
    text, after = "\n".join(lines), plan.by_id[gate.step].after
    return Question(kind, opened.gate, opened.at, opened.deadline, options, text, after, opened.loss is not None)


def _doubt(rule: Approval, given: ApprovalGiven, opened: GateOpened, state: ExecutionState) -> str:
    if state.started is None:
        return ""
    asked = asked_of(opened, state.started)
    wrong = may_answer(rule, given.by, asked, given.given_at)
    if wrong is None and given.answer is Answer.approve:
        old = opened.at - given.given_at > rule.valid_for
        wrong = "it is too old" if old else not_accepted(asked.stake, given.accepts_loss, max(given.given_at, opened.at))
    return f", which does not count: {wrong}" if wrong else ""


def _about_failure(plan: Plan, state: ExecutionState, opened: DecisionOpened, execution: str) -> Question:
    lines = [
        f"**{opened.step} failed. What now?**", "", f"- {opened.reason}", "",
        _times(plan, state, opened.deadline, f"the answer is {opened.default.value}"),
        _command(execution, opened.step),
    ]  # fmt: skip
    options = tuple(option.value for option in opened.options)
    return Question("failure", opened.step, opened.at, opened.deadline, options, "\n".join(lines), (opened.step,))


def _times(plan: Plan, state: ExecutionState, deadline: datetime, silence: str) -> str:
    now = state.last or deadline
    return (
        f"Without an answer until {show_time(deadline, now)}, {silence}. "
        f"The RTO ends at {show_time(recovery_deadline(state, plan), now)}.\n"
    )


def _command(execution: str, subject: str) -> str:
    return f"Without Prefect: `failover approve {execution} {subject}` or `failover deny {execution} {subject}`."
