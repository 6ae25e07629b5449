"""What is told about an execution: its plan and its events so far. The journal holds all of it, so any process can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from flows.events import Event
from flows.gates import Asked, Waiting, escalates_at, judge
from flows.state import ExecutionState, fold
from flows.watching import Question
from runbooks.model import Mode
from runbooks.plan import Plan


@dataclass(frozen=True)
class Story:
    """An execution up to its event number `number`; events are numbered from 1, as in the journal."""

    execution: str
    plan: Plan
    events: tuple[Event, ...]
    state: ExecutionState
    attended: bool = True
    """Whether an engine carries it out now, as far as whoever tells it knows."""
    page: str | None = None
    """Address of the run in the Prefect UI."""
    anchor: str = ""
    """The journal's head at event `number`, once the story is over; see flows/anchors.py."""

    @property
    def number(self) -> int:
        return len(self.events)

    @property
    def over(self) -> bool:
        """Nothing more will happen unless somebody resumes it."""
        return self.state.finished is not None or self.state.interrupted is not None

    @property
    def drill(self) -> bool:
        return self.plan.mode is not Mode.live

    def heard(self, event: Event) -> Story:
        """The story with one more event."""
        return replace(self, events=(*self.events, event), state=fold((event,), self.state), anchor="")


def story_of(execution: str, plan: Plan, events: Iterable[Event], *, attended: bool = True, page: str | None = None) -> Story:
    """The story from the journal's events."""
    told = tuple(events)
    return Story(execution, plan, told, fold(told), attended, page)


def anchored(story: Story, head: Callable[[], str]) -> Story:
    """The story with the journal's head, asked for when it is over: then nothing is written behind its last event."""
    return replace(story, anchor=head()) if story.over and not story.anchor else story


def severity(story: Story) -> str:
    """What the runbook's grading step found."""
    for step in story.plan.steps:
        found = (story.state.step(step.id).output or {}).get("severity")
        if isinstance(found, str) and found:
            return found
    return "not graded"


def who(story: Story, question: Question, at: datetime) -> str:
    """Who may answer a question, and how many people it still takes: the gate's own rule, judged by `flows.gates`."""
    rule = story.plan.gate_by_name.get(question.name)
    begun, record = story.state.started, story.state.gate(question.name)
    if rule is None or begun is None or record.opened is None:
        return "anyone, by name"
    asked = Asked(record.opened.at, record.opened.deadline, begun.initiator, begun.mode)
    names = ", ".join(rule.rule.approvers) or "anyone, by name"
    if rule.rule.exclude_initiator:
        names += f", but not {begun.initiator}, who started it"
    if rule.rule.escalate_to:
        names += f"; from {escalates_at(asked):%H:%M:%S} UTC also {', '.join(rule.rule.escalate_to)}"
    said = judge(rule.rule, record.answers, asked, at)
    missing = said.missing if isinstance(said, Waiting) else 0
    if rule.rule.quorum > 1:
        names += f"; {rule.rule.quorum} people must approve, {missing} more to come"
    return names


def command(story: Story, question: Question) -> str:
    """What to type to answer."""
    if question.choices:
        return f"failover approve {story.execution} {question.name} --as NAME --reason WHY --choose {'|'.join(question.choices)}"
    return f"failover approve {story.execution} {question.name} --as NAME --reason WHY"
