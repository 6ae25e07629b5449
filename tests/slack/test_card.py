"""What is said: whoever reads the card knows what is so, and no value breaks it or pings anybody."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.events import (
    ApprovalGiven,
    Choice,
    DecisionOpened,
    Event,
    GateClosed,
    GateOpened,
    Noted,
    Status,
    StepFinished,
    StepStarted,
)
from flows.slack_card import DRILL, ROWS, card
from flows.slack_limits import BLOCKS, HEADER, SECTION, Message, problems
from flows.slack_story import Story
from flows.slack_text import fit, units
from flows.slack_thread import next_detail
from runbooks.model import Mode
from tests.flows.world import START, Set, make_plan, started, step
from tests.slack.simulated import EXECUTION, at_gate, carried_out, failover_plan, told_of

HOSTILE = (
    "<!channel> <@U123> & <https://evil|click>", "``` end of code", "*bold* _x_ ~y~", "a\nb\r\tc", "👩‍👩‍👧‍👦" * 400, "&" * 5000, "<" * 3000,
    "\u202egnp.exe", "\ud83d", "\x00\x1b[31m", "@channel @here", "", " ", "𝔘" * 3100,
)  # fmt: skip


def words(message: Message) -> str:
    return "\n".join(strings(list(message.blocks)))


def strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for key, item in value.items() if key not in {"type", "block_id"} for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def every_message(story: Story) -> list[Message]:
    at = story.events[-1].at
    found, told = [card(story, at)], 0
    while (detail := next_detail(story, told, at)) is not None:
        assert detail.last > told
        found.append(detail.message)
        told = detail.last
    return found


def sound(message: Message) -> None:
    assert problems(message.text, message.blocks) == []
    assert len(message.blocks) <= BLOCKS
    for text in (message.text, words(message)):
        text.encode("utf-8")
        assert "<!" not in text
        assert "<@" not in text
        assert "\u202e" not in text
        assert text.count("```") % 2 == 0


def test_the_card_says_state_service_severity_mode_time_and_forecast() -> None:
    plan = failover_plan()
    events = at_gate(carried_out(plan))
    graded = StepFinished(at=events[-1].at, step="detect", attempt=1, status=Status.done, detail="down", output={"severity": "P1"})
    said = words(card(told_of([*events, graded], plan), events[-1].at + timedelta(seconds=90)))
    for word in ("waiting for people", "shop", "P1", "LIVE", "since impact", "left of RTO 5m00s", "forecast", "*Now*", "*Next*", "ines"):
        assert word in said, word
    for name in ("detect", "scale", "fence", "promote", "smoke"):
        assert name in said


def test_a_drill_is_unmistakable_in_every_message_and_a_live_run_never_looks_like_one() -> None:
    for mode, marked in ((Mode.drill, True), (Mode.live, False)):
        plan = failover_plan(mode)
        for message in every_message(told_of(carried_out(plan), plan)):
            assert ("DRILL" in message.text and DRILL in words(message)) is marked, message.text


def test_the_final_card_tells_what_the_recovery_time_consisted_of() -> None:
    events = carried_out()
    said = words(card(told_of(events), events[-1].at + timedelta(hours=3)))
    assert "RECOVERED" in said
    assert "within the RTO of 5m00s" in said
    for part in ("detection", "decision", "automation", "verification"):
        assert part in said
    assert "left of RTO" not in said


def test_a_gate_card_says_who_may_approve_how_until_when_and_on_what_evidence() -> None:
    plan = failover_plan(approvers=("ana", "ben", "cy"), quorum=2, exclude_initiator=True, escalate_to=("vp",), timeout="15m")
    events = at_gate(carried_out(plan))
    said = words(next(one for one in every_message(told_of(events, plan)) if "Gate go" in one.text))
    for word in ("ana, ben, cy", "vp", "2 people must approve, 2 more to come", "not ines", "Leave east?", "until 03:15:00 UTC",
                 f"failover approve {EXECUTION} go --as NAME --reason WHY", "fence, promote", "now: set fence"):  # fmt: skip
        assert word in said, word
    one = ApprovalGiven(at=events[-1].at, gate="go", answer="approve", by="ana", how="", given_at=events[-1].at, entry=1)
    assert "1 more to come" in words(card(told_of([*events, one], plan), one.at))


def test_a_failed_step_asks_in_the_thread_with_its_choices() -> None:
    plan = failover_plan()
    asked = DecisionOpened(at=START, step="fence", reason="no <!here>", options=tuple(Choice), default=Choice.abort,
                           deadline=START + timedelta(minutes=15))  # fmt: skip
    message = every_message(told_of([started(plan, START), asked], plan))[-1]
    assert f"failover approve {EXECUTION} fence --as NAME --reason WHY --choose retry|skip|roll-back|abort" in words(message)
    sound(message)


def test_the_prefect_page_is_linked_where_there_is_one() -> None:
    events = at_gate(carried_out())
    page = "http://127.0.0.1:4200/runs/flow-run/1"
    assert all(f"<{page}|" in words(one) for one in (card(told_of(events, page=page), START), *every_message(told_of(events, page=page))[-1:]))


@pytest.mark.parametrize("count", [1, ROWS, ROWS + 1, 500])
def test_a_runbook_of_any_length_fits_and_says_what_it_leaves_out(count: int) -> None:
    plan = make_plan(*(step(f"step-{number}", Set) for number in range(count)))
    events: list[Event] = [started(plan, START)]
    for number in range(count // 2):
        events.append(StepStarted(at=START, step=f"step-{number}", attempt=1))
        events.append(StepFinished(at=START, step=f"step-{number}", attempt=1, status=Status.done, detail="<done> " * 50))
    events.append(StepStarted(at=START, step=f"step-{count // 2}", attempt=1))
    message = card(told_of(events, plan), START)
    sound(message)
    said = words(message)
    assert f"step-{count // 2} " in said
    rows = said.count(" of 10.0 s")
    assert rows == min(count, ROWS)
    assert (f"… and {count - ROWS} more steps" in said) == (count > ROWS)


def test_a_card_of_500_steps_costs_the_machine_little() -> None:
    plan = make_plan(*(step(f"step-{number}", Set) for number in range(500)))
    story = told_of([started(plan, START)], plan)
    begun = time.process_time()
    for _ in range(5):
        card(story, START)
    assert (time.process_time() - begun) / 5 < 0.1


@given(st.sampled_from(HOSTILE) | st.text(max_size=4000), st.sampled_from(HOSTILE) | st.text(max_size=200))
@settings(max_examples=60, deadline=None)
def test_no_value_breaks_a_message_or_pings_anybody(long: str, short: str) -> None:
    plan = failover_plan(approvers=(short or "x", long or "y"), title=long)
    plan = replace(plan, runbook=plan.runbook.model_copy(update={"title": long, "service": short}))
    events: list[Event] = [
        started(plan, START).model_copy(update={"initiator": short, "reason": long}),
        StepStarted(at=START, step="detect", attempt=1),
        StepFinished(at=START, step="detect", attempt=1, status=Status.failed, detail=long, output={"severity": short}),
        GateOpened(at=START, gate="go", question=long, covers=("fence",), evidence=(long, short) * 20, deadline=START),
        DecisionOpened(at=START, step="scale", reason=long, options=tuple(Choice), default=Choice.abort, deadline=START),
        Noted(at=START, text=long, by=short),
        GateClosed(at=START, gate="go", approved=False, by=(short,), reason=long),
    ]
    for count in range(1, len(events) + 1):
        for message in every_message(told_of(events[:count], plan)):
            sound(message)


@given(st.text(), st.integers(1, 300))
def test_a_text_is_cut_between_characters_and_never_in_an_escape(text: str, limit: int) -> None:
    shown = fit(text, limit)
    assert units(shown) <= limit
    assert not shown.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").count("&")


@pytest.mark.parametrize(
    ("text", "blocks", "word"),
    [
        ("x", [{"type": "divider"}] * 51, "51 blocks"),
        ("x", [{"type": "header", "text": {"type": "plain_text", "text": "x" * (HEADER + 1)}}], "151 long"),
        ("x", [{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}], "no plain_text"),
        ("x", [{"type": "section", "text": {"type": "mrkdwn", "text": "🟦" * (SECTION // 2 + 1)}}], "3002 long"),
        ("x", [{"type": "section", "text": {"type": "mrkdwn", "text": ""}}], "empty"),
        ("x", [{"type": "section"}], "text or fields"),
        ("x", [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}] * 11}], "11 fields"),
        ("x", [{"type": "context", "elements": []}], "0 elements"),
        ("x", [{"type": "actions", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "x"}}] * 26}], "26 elements"),
        ("x", [{"type": "actions", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "x" * 76}}]}], "76 long"),
        ("x", [{"type": "actions", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "x"}, "value": "v" * 2001}]}], "2001"),
        ("x", [{"type": "marquee"}], "marquee"), ("", [], "no text"), ("x" * 4001, [], "4001 long"),
    ],
)  # fmt: skip
def test_what_slack_would_refuse_is_found_before_it_is_sent(text: str, blocks: list, word: str) -> None:
    assert word in " ".join(problems(text, blocks))
