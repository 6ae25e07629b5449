"""The one message of an execution, made from its story at a moment: pure, always within Slack's limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from flows.report import Source, build, verdict_word
from flows.report_text import recovery_lines
from flows.slack_limits import Block, Message
from flows.slack_story import Story, command, severity, who
from flows.slack_text import fit, units
from flows.watching import Question, StepView, View, view
from tasks.durations import show_seconds, show_time

ROWS, PART, ROW = 40, 20, 100
"""Steps that are shown, how many of them stand in one block, and how long a line is: 20 of 100 fit into a section."""
ROOM = 2800
"""What the questions on the card may take; more than that at once is told in the thread."""
_MARKS = {
    "done": "✓", "already": "✓", "would": "✓", "skipped": "-", "runs": "▶", "waits": "?", "refused": "✗", "failed": "✗",
    "timed-out": "✗", "errored": "✗", "rolled-back": "↩",
}  # fmt: skip
_LIGHTS = {"recovered": "🟢", "no-action": "🟢", "would": "🟢", "running": "🔴", "interrupted": "🟠", "rolled-back": "🟠"}
DRILL = "🟦"
"""Stands on every line by which people tell a drill from the real thing."""


def card(story: Story, at: datetime) -> Message:
    """Everything that who comes to the channel must know: what is so, what comes, who decides, how much time is left."""
    state = story.state
    end = state.last if story.over and state.last is not None else at
    shown = view(story.plan, state, end, {})
    head = headline(story, shown)
    blocks: list[Block] = [{"type": "header", "text": {"type": "plain_text", "text": fit(head, 150), "emoji": False}}]
    if story.drill:
        blocks.append(section(f"{DRILL * 3} *{mode_word(story)}: nothing live is touched* {DRILL * 3}"))
    blocks += [_facts(story), section(f"*{fit(shown.clock.replace(' | ', ' · '), 500)}*")]
    blocks += _summary(story) if story.over else _now(story, shown, end)
    blocks += _table(shown.steps)
    blocks.append(context(_foot(story, at)))
    return Message(fit(f"{head} · {shown.clock.replace(' | ', ' · ')}", 1000), tuple(blocks))


def headline(story: Story, shown: View) -> str:
    """Mode, title and state on one line; a drill says so first."""
    word = verdict_word(story.state)
    if word == "running":
        word = "nobody carries it out" if not story.attended else "waiting for people" if shown.questions else "running"
    if story.drill:
        return f"{DRILL} {mode_word(story)} {DRILL} {story.plan.runbook.title} · {word}"
    light = "🟠" if shown.questions and not story.over else _LIGHTS.get(word, "⛔")
    return f"{light} {story.plan.runbook.title} · {word}"


def mode_word(story: Story) -> str:
    """LIVE or DRILL, as people call it."""
    return story.plan.mode.value.upper()


def section(text: str) -> Block:
    """A paragraph whose values were escaped already; nothing in it is looked for names to link."""
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def context(text: str) -> Block:
    """A line in small print."""
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text, "verbatim": True}]}


def asked_line(story: Story, question: Question, at: datetime) -> str:
    """One question: what, of whom, until when, how to answer."""
    return f"• *{fit(question.name, 80)}*: {fit(question.text, 250)}\n{answering(story, question, at)}"


def answering(story: Story, question: Question, at: datetime) -> str:
    """Who may answer a question, until when, what silence means, and what to type."""
    left = max(timedelta(0), question.deadline - at)
    otherwise = question.default.value if question.default else "no"
    return (
        f"   {fit(who(story, question, at), 300)} · until {show_time(question.deadline, at)}, {show_seconds(left)} left, then "
        f"{otherwise}\n   `{fit(command(story, question), 200)}`"
    )


def _facts(story: Story) -> Block:
    begun = story.state.started
    pairs = [
        ("Service", story.plan.runbook.service), ("Severity", severity(story)), ("Mode", mode_word(story)),
        ("Started by", f"{begun.initiator}, {begun.at:%H:%M:%S} UTC" if begun else "-"),
    ]  # fmt: skip
    return {"type": "section", "fields": [
        {"type": "mrkdwn", "text": f"*{name}*\n{fit(value, 200) or '-'}", "verbatim": True} for name, value in pairs
    ]}  # fmt: skip


def _now(story: Story, shown: View, at: datetime) -> list[Block]:
    blocks = [section(f"*Now*  {_names(shown.now)}\n*Next*  {_names(shown.next)}")]
    if shown.questions:
        blocks.append(section(_asked(story, shown.questions, at)))
    if not story.attended:
        blocks.append(section(f"*No engine carries it out here.* `failover resume {story.execution}` goes on."))
    return blocks


def _asked(story: Story, asked: Sequence[Question], at: datetime) -> str:
    lines = ["*Waiting for people*"]
    for number, one in enumerate(asked):
        said = asked_line(story, one, at)
        if sum(units(line) + 1 for line in lines) + units(said) > ROOM:
            lines.append(f"… and {len(asked) - number} more questions; `failover status {story.execution}` shows them")
            break
        lines.append(said)
    return "\n".join(lines)


def _summary(story: Story) -> list[Block]:
    """What became of it: RTA beside the RTO and its parts, or why there is none."""
    report = build(Source(story.execution, story.plan, story.events))
    lines = [fit(line, 500) for line in recovery_lines(report)] if report.mode != "dry-run" else []
    detail = f"*{fit(ending(report.verdict, report.detail), 1200)}*"
    goes_on = f"\n`failover resume {story.execution}` goes on" if story.state.finished is None else ""
    return [section("\n".join([detail, *lines]) + goes_on + anchor_line(story))]


def anchor_line(story: Story) -> str:
    """The journal's head, kept where the journal's database is not: a cut-off end shows."""
    return f"\nanchor `{fit(story.anchor, 200)}`" if story.anchor else ""


def ending(verdict: str, detail: str) -> str:
    """The verdict, with its reason where that says more."""
    return f"{verdict.upper()}: {detail}" if detail and detail != verdict else verdict.upper()


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(fit(name, 70) for name in names[:8]) or "-"
    return f"{shown}, … and {len(names) - 8} more" if len(names) > 8 else shown


def _table(steps: Sequence[StepView]) -> list[Block]:
    """The steps as lines under each other; of very many those at which something happens, and what was left out."""
    chosen = _chosen(steps)
    width = min(24, max((len(one.step) for one in chosen), default=0))
    lines = [
        f"{_MARKS.get(one.status, ' ')} {one.step[:width]:<{width}} {one.status:<9} {one.actual:>7} of {one.budget:<6} {one.text}"
        for one in chosen
    ]
    blocks = [
        section("```\n" + "\n".join(fit(line, ROW) for line in lines[start : start + PART]) + "\n```")
        for start in range(0, len(lines), PART)
    ]
    hidden = Counter(one.status or "not started" for one in steps) - Counter(one.status or "not started" for one in chosen)
    if hidden:
        told = ", ".join(f"{count} {fit(status, 20)}" for status, count in hidden.items())
        blocks.append(context(f"… and {len(steps) - len(chosen)} more steps: {told}"))
    return blocks


def _chosen(steps: Sequence[StepView]) -> list[StepView]:
    """At most ROWS steps, in their order: first those that run, wait or went wrong, then their neighbours."""
    if len(steps) <= ROWS:
        return list(steps)
    calm = {"", "done", "already", "would", "skipped"}
    loud = [number for number, one in enumerate(steps) if one.status not in calm]
    unstarted = next((number for number, one in enumerate(steps) if not one.status), len(steps) - 1)
    centre = loud[0] if loud else unstarted
    near = sorted(range(len(steps)), key=lambda number: (steps[number].status in calm, abs(number - centre)))
    return [steps[number] for number in sorted(near[:ROWS])]


def _foot(story: Story, at: datetime) -> str:
    begun = story.state.started
    reason = f" · why: {fit(begun.reason, 200)}" if begun and begun.reason else ""
    page = f" · <{story.page}|Prefect>" if story.page else ""
    ends = "" if story.over else f"; older than a minute? `failover status {story.execution}` knows"
    return f"execution `{story.execution}` · details in the thread{page}{reason} · as of {at:%Y-%m-%d %H:%M:%S} UTC{ends}"
