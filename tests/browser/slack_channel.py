"""The lab's Slack channel after a rehearsed run of the shipped runbook, as its page shows it."""

from __future__ import annotations

from deployments.lab.slack_page import as_page
from flows.slack_story import story_of
from tests.flows.reports import in_words, shipped
from tests.slack.simulated import Scene


def channel_page() -> str:
    """The page: the outbox told everything to a workspace in memory, on a clock that jumped."""
    plan, simulation = shipped()
    simulation.run()
    events = in_words(simulation.journal)
    scene = Scene(at=events[0].at.timestamp())
    scene.follow(scene.outbox(story_of("7f3a91c2", plan, events[:2]), head=lambda: f"7f3a91c2#{len(events)}:{'5c' * 8}"), iter(events[2:]))
    return as_page(scene.workspace.seen())
