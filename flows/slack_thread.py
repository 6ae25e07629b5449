"""The thread under the card: what happened, in order, told once each; gates and questions as cards of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flows import events as e
from flows.report import Source, build
from flows.report_text import recovery_lines
from flows.slack_card import DRILL, anchor_line, answering, ending, mode_word, section
from flows.slack_limits import Block, Message
from flows.slack_story import Story
from flows.slack_text import fit, units
from flows.watching import Question, line, questions

_TOLD = (
    e.Resumed, e.Override, e.StepFinished, e.ApprovalGiven, e.GateClosed, e.DecisionClosed, e.OverrideGiven, e.FenceOverridden,
    e.Forecasted, e.StopAsked, e.RollbackStarted, e.Interrupted, e.Noted,
)  # fmt: skip
LINES, LINE, ROOM = 25, 600, 2800
"""What one message joins when much happened within a second: lines, the length of each, and of all."""


@dataclass(frozen=True)
class Detail:
    """One message of the thread. It tells every event up to number `last`."""

    last: int
    message: Message


def next_detail(story: Story, told: int, at: datetime) -> Detail | None:
    """The next message after event number `told`; None when everything is told.

    A question that is open gets a message of its own; everything else is joined, so that a run that is far ahead of
    Slack's one message a second is caught up with quickly.
    """
    lines: list[str] = []
    last = told
    for number in range(told + 1, story.number + 1):
        event = story.events[number - 1]
        question = _still_asked(story, event) if isinstance(event, e.GateOpened | e.DecisionOpened) else None
        if question is not None and not lines:
            return Detail(number, _ask(story, event, question, at))
        text = _line(story, event) if question is None else None
        if text is not None:
            said = f"{event.at:%H:%M:%S}  {text}"
            if lines and (len(lines) >= LINES or sum(units(one) + 1 for one in lines) + units(said) > ROOM):
                break
            lines.append(said)
            last = number
        if question is not None:
            break
    if not lines:
        return None
    prefix = f"{DRILL} {mode_word(story)}  " if story.drill else ""
    return Detail(last, Message(prefix + lines[0], (section(prefix + "\n".join(lines)),)))


def _line(story: Story, event: e.Event) -> str | None:
    """An event as a line, escaped; None for what the thread need not tell."""
    match event:
        case e.ExecutionFinished():
            return _end(story, event)
        case e.GateOpened():
            asked = fit(f"was asked, gate {event.gate}: {event.question}", LINE)
            return f"{asked}\n{_bullets(event.evidence, LINE * 2, story.execution)}" if event.evidence else asked
        case e.DecisionOpened():
            return fit(f"{event.step} FAILED: {event.reason}; it was asked what to do", LINE)
    text = line(event) if isinstance(event, _TOLD) else None
    return None if text is None else fit(text, LINE)


def _end(story: Story, event: e.ExecutionFinished) -> str:
    upto = story.events[: story.events.index(event) + 1]
    recovery = [fit(one, 300) for one in recovery_lines(build(Source(story.execution, story.plan, upto)))]
    said = fit(ending(event.verdict.value, event.detail), LINE * 2)
    anchor = anchor_line(story) if event is story.events[-1] else ""
    return "\n".join([f"*{said}*", *recovery, f"`failover report {story.execution}` tells all"]) + anchor


def _ask(story: Story, event: e.Event, question: Question, at: datetime) -> Message:
    """A card for one open question: what is known, who may answer, until when, and how."""
    if isinstance(event, e.GateOpened):
        head, evidence, covers = f"Gate {event.gate}: {event.question}", event.evidence, event.covers
    else:
        head, evidence, covers = f"{question.name} failed: what now?", (question.text,), ()
    title = fit((f"{DRILL} {mode_word(story)} {DRILL} " if story.drill else "") + head, 150)
    blocks: list[Block] = [{"type": "header", "text": {"type": "plain_text", "text": title, "emoji": False}}]
    blocks += [section(_bullets(evidence, ROOM, story.execution))] if evidence else []
    blocks += [section(f"Covers {fit(', '.join(covers), 1000)}.")] if covers else []
    blocks += [section(f"*Who may answer*\n{answering(story, question, at)}"), section(_how(story, question))]
    return Message(title, tuple(blocks))


def _still_asked(story: Story, event: e.GateOpened | e.DecisionOpened) -> Question | None:
    """The question, while it is open: told late, it must not ask for an answer that nobody waits for."""
    if story.over or not story.attended:
        return None
    name = event.gate if isinstance(event, e.GateOpened) else event.step
    decision = story.state.decisions.get(name)
    latest = (story.state.gate(name).opened, decision.opened if decision is not None else None)
    return next((one for one in questions(story.state, event.at) if one.name == name and event in latest), None)


def _how(story: Story, question: Question) -> str:
    if question.choices:
        return "Answer in any shell that sees the journal, with one of the choices."
    page = f", or <{story.page}|in the Prefect UI>" if story.page else ", or in the Prefect UI where it was started from there"
    return f"Answer in any shell that sees the journal (`failover deny …` says no){page}."


def _bullets(texts: tuple[str, ...], room: int, execution: str) -> str:
    kept: list[str] = []
    for text in texts:
        said = f"• {fit(text, LINE)}"
        rest = f"… and {len(texts) - len(kept)} more lines: see `failover report {execution}`"
        if sum(units(one) + 1 for one in kept) + units(said) + 1 + units(rest) > room:
            kept.append(rest)
            break
        kept.append(said)
    return "\n".join(kept)
