"""The thread under the card: what happened, in order, told once each; gates and questions as cards of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from flows import events as e
from flows.report import build, recovery_lines
from flows.slack_card import DRILL, asked_line, mode_word, section
from flows.slack_limits import Block, Message
from flows.slack_story import Story
from flows.slack_text import fit, units
from flows.watching import Question, line, questions

_TOLD = (
    e.Resumed, e.StepFinished, e.ApprovalGiven, e.GateClosed, e.DecisionClosed, e.Forecasted, e.StopAsked,
    e.RollbackStarted, e.Interrupted, e.Noted,
)  # fmt: skip
_OWN = (e.GateOpened, e.DecisionOpened, e.ExecutionFinished)
"""Events that get a message of their own."""
LINES, LINE, ROOM = 25, 600, 2800
"""What one message joins when much happened within a second: lines, the length of each, and of all."""


@dataclass(frozen=True)
class Detail:
    """One message of the thread. It tells every event up to number `last`."""

    last: int
    message: Message


def next_detail(story: Story, told: int, at: datetime) -> Detail | None:
    """The next message after event number `told`; None when everything is told."""
    lines: list[str] = []
    last = told
    for number in range(told + 1, story.number + 1):
        event = story.events[number - 1]
        if isinstance(event, _OWN):
            if not lines:
                return Detail(number, _own(story, event, at))
            break
        text = line(event) if isinstance(event, _TOLD) else None
        if text is None:
            continue
        said = f"{event.at:%H:%M:%S}  {fit(text, LINE)}"
        if lines and (len(lines) >= LINES or sum(units(one) + 1 for one in lines) + units(said) > ROOM):
            break
        lines.append(said)
        last = number
    if not lines:
        return None
    prefix = f"{DRILL} {mode_word(story)}  " if story.drill else ""
    body = "\n".join(lines)
    return Detail(last, Message(prefix + lines[0], (section(prefix + body),)))


def _own(story: Story, event: e.GateOpened | e.DecisionOpened | e.ExecutionFinished, at: datetime) -> Message:
    prefix = f"{DRILL} {mode_word(story)} {DRILL} " if story.drill else ""
    if isinstance(event, e.ExecutionFinished):
        return _end(story, event, prefix)
    question = _still_asked(story, event)
    if isinstance(event, e.GateOpened):
        head, evidence = f"Gate {event.gate}: {event.question}", event.evidence
    else:
        head, evidence = f"{event.step} failed: what now?", (event.reason,)
    if question is None:
        head = f"Was asked at {event.at:%H:%M:%S} UTC, is over: {head}"
    title = fit(prefix + head, 150)
    blocks: list[Block] = [{"type": "header", "text": {"type": "plain_text", "text": title, "emoji": False}}]
    if evidence:
        blocks.append(section(_bullets(evidence)))
    if isinstance(event, e.GateOpened) and event.covers:
        blocks.append(section(f"Covers {fit(', '.join(event.covers), 1000)}."))
    if question is not None:
        blocks += [section(asked_line(story, question, at)), section(_how(story, question))]
    return Message(title, tuple(blocks))


def _still_asked(story: Story, event: e.GateOpened | e.DecisionOpened) -> Question | None:
    """The question, while it is open: told late, it must not ask for an answer that nobody waits for."""
    name = event.gate if isinstance(event, e.GateOpened) else event.step
    if story.over or not story.attended:
        return None
    latest = story.state.gate(name).opened if isinstance(event, e.GateOpened) else (
        story.state.decisions[name].opened if name in story.state.decisions else None
    )  # fmt: skip
    return next((one for one in questions(story.state) if one.name == name and latest == event), None)


def _how(story: Story, question: Question) -> str:
    if question.choices:
        return "Answer in any shell that sees the journal, with one of the choices."
    page = f", or <{story.page}|in the Prefect UI>" if story.page else ", or in the Prefect UI where it was started from there"
    return f"Answer in any shell that sees the journal (`failover deny …` says no){page}."


def _bullets(texts: tuple[str, ...]) -> str:
    kept: list[str] = []
    for text in texts:
        said = f"• {fit(text, LINE)}"
        if sum(units(one) + 1 for one in kept) + units(said) > ROOM:
            kept.append(f"… and {len(texts) - len(kept)} more")
            break
        kept.append(said)
    return "\n".join(kept)


def _end(story: Story, event: e.ExecutionFinished, prefix: str) -> Message:
    title = fit(f"{prefix}{event.verdict.value.upper()}: {event.detail}", 150)
    upto = story.events[: story.events.index(event) + 1]
    lines = [fit(one, 500) for one in recovery_lines(build(story.execution, story.plan, upto, ""))]
    took = f"ended at {event.at.astimezone(UTC):%H:%M:%S} UTC"
    body = "\n".join([fit(f"{event.verdict.value.upper()}: {event.detail}", 1200), *lines,
                      f"{took} · `failover report {story.execution}` tells all"])  # fmt: skip
    return Message(title, (section(f"{prefix}{body}"),))
