"""An outbox with a jumping clock, over the real client's channel port, against the lab's workspace without a wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from deployments.lab.slack import TOKEN, Workspace
from flows.events import Answer, Event, GateOpened
from flows.journal import SaidAboutGate
from flows.slack_channel import CARD, DETAIL, Label, Posted, SlackTrouble
from flows.slack_limits import Message
from flows.slack_outbox import Outbox, Timing
from flows.slack_story import Story, story_of
from runbooks.model import Approval, Mode
from runbooks.plan import Plan
from tests.flows.world import START, FenceOff, MakeWriter, Simulation, Watch, World, make_plan, step

EXECUTION = "7f3a9c01"


@dataclass
class Line:
    """A channel straight into a workspace; `ails` says, call by call, what goes wrong."""

    workspace: Workspace
    now: Callable[[], float]
    ails: Callable[[str], str] = lambda _method: "none"
    """method → none, drop (done, but no answer), lost (not done, no answer), limited, refused."""
    name: str = "#incidents"
    late: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)

    def post(self, message: Message, label: Label, thread: str | None = None) -> str:
        return self._ask("chat.postMessage", **self._body(message, label), channel=self.name, thread_ts=thread)["ts"]

    def edit(self, ts: str, message: Message, label: Label) -> None:
        self._ask("chat.update", **self._body(message, label), channel="C0INCIDENTS", ts=ts)

    def find(self, execution: str, since: datetime) -> str | None:
        every = self._ask("conversations.history", channel="C0INCIDENTS", limit=999, include_all_metadata=True)["messages"]
        found = [one["ts"] for one in every if self._number(one, CARD, execution) is not None]
        return min(found, default=None)

    def read(self, ts: str, execution: str) -> Posted | None:
        try:
            every = self._ask("conversations.replies", channel="C0INCIDENTS", ts=ts, limit=999, include_all_metadata=True)
        except SlackTrouble as trouble:
            if trouble.code == "thread_not_found":
                return None
            raise
        numbers = [self._number(one, DETAIL, execution) or 0 for one in every["messages"]]
        return Posted(self._number(every["messages"][0], CARD, execution) or 0, max(numbers))

    def _body(self, message: Message, label: Label) -> dict[str, Any]:
        return {"text": message.text, "blocks": list(message.blocks), "metadata": label.as_metadata()}

    def _number(self, message: dict[str, Any], kind: str, execution: str) -> int | None:
        metadata = message.get("metadata", {})
        fits = metadata.get("event_type") == kind and metadata["event_payload"]["execution"] == execution
        return metadata["event_payload"]["number"] if fits else None

    def _ask(self, method: str, **given: Any) -> dict[str, Any]:
        fault = self.ails(method)
        if fault == "limited":
            raise SlackTrouble("limits", wait=7.0, code="ratelimited")
        if fault == "refused":
            raise SlackTrouble("is down")
        writes = method.startswith("chat.")
        if fault == "lost":
            raise SlackTrouble("lost", unclear=writes)
        reply = self.workspace.call(method, TOKEN, given, self.now())
        if fault == "drop":
            raise SlackTrouble("dropped", unclear=writes)
        if reply.status == 429:
            raise SlackTrouble("limits", wait=float(reply.retry_after or 1), code="ratelimited")
        if not reply.body["ok"]:
            raise SlackTrouble(str(reply.body), code=str(reply.body["error"]))
        return reply.body


@dataclass
class Scene:
    """A workspace, a clock that jumps, and as many tellers as a test wants."""

    workspace: Workspace = field(default_factory=Workspace)
    at: float = START.timestamp()
    ails: Callable[[str], str] = lambda _method: "none"

    def outbox(self, story: Story, *, fresh: bool = True, head: Callable[[], str] = lambda: "") -> Outbox:
        timing = Timing(now=lambda: datetime.fromtimestamp(self.at, UTC), monotonic=lambda: self.at)
        return Outbox(story, Line(self.workspace, lambda: self.at, self._trouble), fresh=fresh, timing=timing, head=head)

    def _trouble(self, method: str) -> str:
        return self.ails(method)

    def follow(self, outbox: Outbox, events: Iterator[Event], limit: float = 7200.0) -> Outbox:
        """Let the outbox hear each event at its time, and step whenever it wants, until it has told all."""
        coming = list(events)
        end = self.at + limit
        while True:
            while coming and coming[0].at.timestamp() <= self.at:
                outbox.hear(coming.pop(0))
            wait = outbox.step()
            if wait is None and not coming:
                return outbox
            assert self.at < end, "it never ends"
            until = [self.at + max(wait, 0.001)] if wait is not None else []
            until += [coming[0].at.timestamp()] if coming else []
            self.at = max(self.at, min(until))

    # -- what people see

    @property
    def cards(self) -> list[dict[str, Any]]:
        return self.workspace.seen()["incidents"]

    @property
    def thread(self) -> list[dict[str, Any]]:
        return self.cards[0]["replies"]

    def numbers(self) -> list[int]:
        return [one["metadata"]["event_payload"]["number"] for one in self.thread]

    def writes(self) -> list[float]:
        return [call.at for call in self.workspace.calls if call.method.startswith("chat.")]


def failover_plan(mode: Mode = Mode.live, **gate: Any) -> Plan:
    """Detect, a gate over fence and promote, a scale-out beside it, a smoke test."""
    return make_plan(
        step("detect", Watch), step("scale", after=("detect",), with_={"takes": 8}),
        step("fence", FenceOff, after=("detect",), gates=("go",)),
        step("promote", MakeWriter, after=("fence",), gates=("go",), fenced_by=("fence",)),
        step("smoke", Watch, after=("promote", "scale")),
        gates={"go": Approval(**{"title": "Leave east?", **gate})}, mode=mode,
    )  # fmt: skip


def carried_out(plan: Plan | None = None, answer: Answer = Answer.approve, wait: float = 20.0) -> list[Event]:
    """The events of a whole run in the simulated world: the gate is answered after `wait` seconds."""
    plan = plan or failover_plan()
    letter = (START + timedelta(seconds=wait), SaidAboutGate(gate="go", answer=answer, by="kim", reason="go"))
    simulation = Simulation(plan, World(facts={"detect": 1, "smoke": 1}), letters=[letter])
    simulation.run()
    return simulation.journal


def told_of(events: list[Event], plan: Plan | None = None, **more: Any) -> Story:
    return story_of(EXECUTION, plan or failover_plan(), events, **more)


def at_gate(events: list[Event]) -> list[Event]:
    """The events up to the opening of the gate."""
    return events[: next(number for number, one in enumerate(events, 1) if isinstance(one, GateOpened))]
