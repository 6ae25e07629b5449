"""The outbox against a strict workspace, with a clock that jumps: nothing twice, in order, ending on the truth."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.events import Event, Interrupted, Noted
from flows.slack_outbox import LATE, PACE, REFRESH, SETTLE
from flows.slack_thread import next_detail
from tests.flows.world import START
from tests.slack.simulated import EXECUTION, Scene, at_gate, carried_out, told_of

FAULTS = ("none", "drop", "lost", "limited", "refused")


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return carried_out()


def final(scene: Scene, events: list[Event]) -> None:
    """One card that tells the last event, and a thread that tells each once, in order."""
    assert len(scene.cards) == 1
    assert scene.cards[0]["metadata"]["event_payload"] == {"execution": EXECUTION, "number": len(events)}
    assert "recovered" in scene.cards[0]["text"]
    once_in_order(scene, events)


def once_in_order(scene: Scene, events: list[Event]) -> None:
    numbers = scene.numbers()
    assert numbers == sorted(set(numbers))
    story = told_of(events)
    assert next_detail(story, numbers[-1], START) is None
    said = "\n".join(block["text"]["text"] for one in scene.thread for block in one["blocks"])
    for name in ("detect: DONE", "scale: DONE", "fence: DONE", "promote: DONE", "smoke: DONE", "kim says approve"):
        assert said.count(name) == 1, name
    assert said.index("detect: DONE") < said.index("Leave east?") < said.index("kim says approve") < said.index("promote: DONE")


def live(scene: Scene, events: list[Event], ails: Callable[[str], str] = lambda _: "none") -> Scene:
    scene.ails = ails
    scene.follow(scene.outbox(told_of(events[:2])), iter(events[2:]))
    return scene


def test_a_run_is_one_message_that_is_edited_and_ends_on_the_truth(events) -> None:
    scene = live(Scene(), events)
    final(scene, events)
    assert "edited" in scene.cards[0]


def test_the_end_carries_the_journals_anchor_on_the_card_and_in_the_thread_and_nothing_before_it_does(events) -> None:
    scene, asked, anchor = Scene(), list[float](), f"{EXECUTION}#{len(events)}:{'ab' * 8}"

    def head() -> str:
        asked.append(scene.at)
        return anchor

    scene.follow(scene.outbox(told_of(events[:2]), head=head), iter(events[2:]))
    final(scene, events)
    assert [anchor in str(one["blocks"]) for one in (scene.cards[0], *scene.thread)] == [True, *[False] * (len(scene.thread) - 1), True]
    assert len(asked) == 1  # the journal is read once for it


def test_at_most_one_message_or_edit_a_second_and_never_a_refusal_for_the_rate(events) -> None:
    scene = live(Scene(), events)
    times = scene.writes()
    assert len(times) > 8
    assert min(later - earlier for earlier, later in pairwise(times)) >= PACE - 0.001 >= 1
    assert {call.said for call in scene.workspace.calls} == {"ok"}


def test_events_that_come_within_a_second_share_a_message(events) -> None:
    notes = [Noted(at=events[-1].at, text=f"note {number}", by="kim") for number in range(60)]
    scene = live(Scene(), [*events, *notes])
    said = "\n".join(block["text"]["text"] for one in scene.thread for block in one["blocks"])
    assert all(said.count(f"note {number}\n") + said.endswith(f"note {number}") == 1 for number in range(60))
    assert len(scene.thread) < 20


def test_the_clock_on_the_card_goes_on_while_nothing_happens(events) -> None:
    scene = Scene()
    outbox = scene.outbox(told_of(at_gate(events)))
    seen = set()
    while scene.at < START.timestamp() + 60:
        scene.at += outbox.step() or 1.0
        seen.add(scene.cards[0]["text"])
    edits = [call.at for call in scene.workspace.calls if call.method == "chat.update"]
    assert 3 <= len(edits) <= 60 / REFRESH + 1
    assert len(seen) >= 4


@pytest.mark.parametrize("fault", FAULTS[1:])
@pytest.mark.parametrize("nth", range(6))
def test_one_call_that_goes_wrong_costs_neither_a_word_nor_says_one_twice(events, fault: str, nth: int) -> None:
    calls = iter(range(10_000))
    final(live(Scene(), events, lambda _method: fault if next(calls) == nth else "none"), events)


@given(st.integers(0, 2**32), st.floats(0.05, 0.7))
@settings(max_examples=60, deadline=None)
def test_whatever_fails_in_whatever_order_the_end_is_whole(seed: int, share: float) -> None:
    events, chance = carried_out(), random.Random(seed)
    final(live(Scene(), events, lambda _method: chance.choice(FAULTS) if chance.random() < share else "none"), events)


def test_down_for_the_whole_run_everything_arrives_once_and_in_order_when_it_returns(events) -> None:
    scene = Scene()
    back = events[-1].at.timestamp() + 600
    live(scene, events, lambda _method: "refused" if scene.at < back else "none")
    final(scene, events)
    assert min(scene.writes()) >= back


def test_a_gate_that_is_told_late_asks_for_nothing(events) -> None:
    scene = Scene()
    live(scene, events, lambda _method: "refused" if scene.at < events[-1].at.timestamp() else "none")
    said = str(scene.thread)
    assert "was asked, gate go" in said
    assert "failover approve" not in said


def test_after_every_crash_of_the_teller_the_next_one_edits_the_same_card_and_repeats_nothing(events) -> None:
    """The first process dies after each of its calls, with and without having got the answer; another goes on."""
    calls_of_a_run = len(live(Scene(), events).workspace.calls)
    assert calls_of_a_run > 8
    for answered in (True, False):
        for last in range(1, calls_of_a_run):
            scene = Scene()
            calls = iter(range(1, 10_000))

            def dies(_method: str, calls=calls, last=last, answered=answered) -> str:
                number = next(calls)
                if number > last:
                    raise KeyboardInterrupt
                return "none" if answered or number < last else "drop"

            with pytest.raises(KeyboardInterrupt):
                live(scene, events, dies)
            scene.ails = lambda _method: "none"
            heard = [one for one in events if one.at.timestamp() <= scene.at] or events[:2]
            scene.follow(scene.outbox(told_of(heard), fresh=False), iter(events[len(heard) :]))
            final(scene, events)


def test_telling_again_what_is_told_changes_nothing(events) -> None:
    scene = live(Scene(), events)
    before, calls = scene.workspace.seen(), len(scene.workspace.calls)
    scene.follow(scene.outbox(told_of(events, attended=False), fresh=False), iter(()))
    assert scene.workspace.seen() == before
    assert {call.method for call in scene.workspace.calls[calls:]} == {"conversations.history", "conversations.replies"}


def test_a_run_whose_engine_is_gone_is_shown_as_one_that_nobody_carries_out(events) -> None:
    scene = Scene()
    outbox = scene.outbox(told_of(at_gate(events)))
    scene.at += outbox.step()
    assert "waiting for people" in scene.cards[0]["text"]
    outbox.hear(None)
    scene.follow(outbox, iter(()))
    assert "nobody carries it out" in scene.cards[0]["text"]
    assert f"failover resume {EXECUTION}" in str(scene.cards[0]["blocks"])


def test_an_interrupted_run_says_how_it_goes_on_and_a_resumed_one_edits_the_same_card(events) -> None:
    scene = Scene()
    begun = at_gate(events)
    stopped = [*begun, Interrupted(at=begun[-1].at + timedelta(seconds=5), reason="SIGTERM received")]
    scene.follow(scene.outbox(told_of(begun)), iter(stopped[len(begun) :]))
    assert "interrupted" in scene.cards[0]["text"]
    assert f"failover resume {EXECUTION}" in str(scene.cards[0]["blocks"])


def test_an_edit_that_lands_late_over_a_newer_one_is_found_and_mended(events) -> None:
    """An edit is lost on the way, is done again, and then the lost one arrives after all, over the final card."""
    scene = Scene()
    outbox = scene.outbox(told_of(at_gate(events)))
    scene.at += outbox.step()
    stale = scene.workspace.messages["C0INCIDENTS"][0].copy()
    times = iter(["lost"])
    scene.ails = lambda method: next(times, "none") if method == "chat.update" else "none"
    for event in events[len(at_gate(events)) :]:
        outbox.hear(event)
    landed = False
    lost_at = None
    while (wait := outbox.step()) is not None:
        lost_at = lost_at or scene.at
        scene.at += wait
        if not landed and lost_at and scene.at - lost_at > SETTLE + 2 * PACE:
            scene.workspace.messages["C0INCIDENTS"][0].update(text=stale["text"], blocks=stale["blocks"], metadata=stale["metadata"])
            landed = True
    assert landed
    assert scene.at - lost_at >= LATE
    assert "recovered" in scene.cards[0]["text"]


@pytest.mark.parametrize("steps", range(4, 10))
def test_a_card_that_somebody_deleted_is_posted_again_and_the_thread_is_not_repeated(events, steps: int) -> None:
    scene = Scene()
    outbox = scene.outbox(told_of(at_gate(events)))
    for _ in range(steps):
        scene.at += outbox.step() or 1
    assert "detect: DONE" in str(scene.thread)
    scene.workspace.messages["C0INCIDENTS"] = []
    scene.follow(outbox, iter(events[len(at_gate(events)) :]))
    assert "recovered" in scene.cards[0]["text"]
    assert "detect: DONE" not in str(scene.thread)
    assert "smoke: DONE" in str(scene.thread)


def test_a_card_that_is_deleted_while_details_wait_is_posted_again(events) -> None:
    """The next call is a detail, into a thread that has no card any more."""
    scene = Scene()
    outbox = scene.outbox(told_of(at_gate(events)))
    scene.at += outbox.step()
    scene.workspace.messages["C0INCIDENTS"] = []
    outbox._detail_next = True
    scene.follow(outbox, iter(events[len(at_gate(events)) :]))
    assert "recovered" in scene.cards[0]["text"]
    assert "detect: DONE" in str(scene.thread)


def test_blocks_that_slack_refuses_are_told_as_text(events, monkeypatch: pytest.MonkeyPatch) -> None:
    import flows.slack_outbox as module

    monkeypatch.setattr(module, "problems", lambda _text, _blocks: ["too long"])
    scene = live(Scene(), events)
    assert scene.cards[0]["blocks"] == []
    assert "recovered" in scene.cards[0]["text"]


def test_a_defect_in_telling_is_said_and_tried_again(events, monkeypatch: pytest.MonkeyPatch) -> None:
    import flows.slack_outbox as module

    real, times = module.card, iter([KeyError("defect")])

    def card(story, at: datetime):
        for error in times:
            raise error
        return real(story, at)

    monkeypatch.setattr(module, "card", card)
    final(live(Scene(), events), events)
