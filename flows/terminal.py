"""A live view on a terminal, with the gates answered under it; an observer like any other: the run never waits for it."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flows.engine import Engine
from flows.events import Answer, Choice, Progress
from flows.gates import read_accepted
from flows.journal import InboxEntry, SaidAboutFailure, SaidAboutGate
from flows.keyboard import Keyboard
from flows.watching import Question, View, view
from tasks.durations import show_seconds

COLOURS = {
    "done": "green", "already": "green", "would": "cyan", "skipped": "bright_black", "runs": "bold yellow",
    "waits": "bold magenta", "refused": "bold red", "failed": "bold red", "timed-out": "bold red", "errored": "bold red",
    "rolled-back": "yellow",
}  # fmt: skip

AROUND, LEAST = 6, 5
"""Lines of the screen that a question takes besides its evidence, and that its evidence gets in any case."""


def fitting(evidence: Sequence[str], room: int, width: int, execution: str) -> list[str]:
    """As much of the evidence as leaves the prompt on the screen, and where the rest is. room: lines, as wide as width."""
    kept: list[str] = []
    left = max(room, LEAST)
    for number, one in enumerate(evidence):
        left -= -(-(len(one) + 2) // max(width, 20))
        if left < (number < len(evidence) - 1):  # the last line of all is left for the rest
            return [*kept, f"and {len(evidence) - number} more lines: see `failover status {execution}`"]
        kept.append(one)
    return kept


@dataclass
class Dialogue:
    """One question being answered: first the answer, then the name, then the reason."""

    question: Question
    default_name: str
    answers: list[str] = field(default_factory=list)

    def prompt(self) -> str:
        """What is asked next."""
        if not self.answers:
            if self.question.choices:
                return " / ".join(f"{number} {choice.value}" for number, choice in enumerate(self.question.choices, 1)) + ": "
            return "approve? y or n: "
        if len(self.answers) == 3:
            return "loss you accept, such as 90s (empty: none over the rpo): "
        return f"your name [{self.default_name}]: " if len(self.answers) == 1 else "reason (may be empty): "

    def take(self, line: str) -> InboxEntry | None:
        """Take a line; give the whole answer once it is complete. A line that is no answer is asked again."""
        line = line.strip()
        if (not self.answers and self._answer(line) is None) or (len(self.answers) == 3 and not _is_loss(line)):
            return None
        self.answers.append(line)
        if len(self.answers) < (4 if self.question.loses and self._answer(self.answers[0]) is Answer.approve else 3):
            return None
        first, name, reason, *loss = self.answers
        said = self._answer(first)
        by = name or self.default_name
        self.answers = []
        if isinstance(said, Choice):
            return SaidAboutFailure(step=self.question.name, choice=said, by=by, reason=reason)
        accepts = read_accepted(loss[0]) if loss and loss[0] else None
        return SaidAboutGate(gate=self.question.name, answer=said or Answer.deny, by=by, reason=reason, accepts_loss=accepts)

    def _answer(self, line: str) -> Answer | Choice | None:
        if self.question.choices:
            by_number = {str(number): choice for number, choice in enumerate(self.question.choices, 1)}
            by_name = {choice.value: choice for choice in self.question.choices}
            return by_number.get(line) or by_name.get(line)
        return {"y": Answer.approve, "yes": Answer.approve, "n": Answer.deny, "no": Answer.deny}.get(line.lower())


def _is_loss(line: str) -> bool:
    try:
        return not line or read_accepted(line) is not None
    except ValueError:
        return False


@dataclass
class Screen:
    """Who watches, and how answers get into the inbox."""

    engine: Engine
    name: str
    say: Callable[[InboxEntry], None]
    now: Callable[[], datetime]
    console: Console = field(default_factory=Console)

    def show(self, notices: queue.SimpleQueue[object]) -> None:
        """Draw until the run ends; gates are answered from the keyboard."""
        seen: dict[str, str] = {}
        dialogue: Dialogue | None = None
        with Keyboard() as keyboard, Live(console=self.console, auto_refresh=False, transient=True) as live:
            ended = False
            while not ended:
                ended = self._drain(notices, seen)
                shown = view(self.engine.plan, self.engine.state, self.now(), seen)
                dialogue = self._dialogue(dialogue, shown)
                line = keyboard.line()
                if dialogue is not None and line is not None:
                    said = dialogue.take(line)
                    if said is not None:
                        self.say(said)
                live.update(self._draw(shown, dialogue, keyboard.typed), refresh=True)

    def _drain(self, notices: queue.SimpleQueue[object], seen: dict[str, str]) -> bool:
        end = time.monotonic() + 0.1
        while (left := end - time.monotonic()) > 0:
            try:
                notice = notices.get(timeout=left)
            except queue.Empty:
                return False
            if notice is None:
                return True
            if isinstance(notice, Progress):
                seen[notice.step] = notice.text
        return False

    def _dialogue(self, current: Dialogue | None, shown: View) -> Dialogue | None:
        same = next((one for one in shown.questions if current is not None and current.question.name == one.name), None)
        if current is not None and same is not None:
            current.question = same
            return current
        return Dialogue(shown.questions[0], self.name) if shown.questions else None

    def _draw(self, shown: View, dialogue: Dialogue | None, typed: str) -> Group:
        runbook = self.engine.plan.runbook
        head = Text.assemble(
            (f" {runbook.title} ", "bold"), f" {runbook.name}  {self.engine.plan.mode.value}  {self.engine.execution}\n ",
            *((f"!!! {one}\n ", "bold white on red") for one in shown.warnings),
            (shown.clock, "bold red" if shown.late else "bold green"), "\n",
            f" now: {', '.join(shown.now) or '-'}   next: {', '.join(shown.next) or '-'}",
        )  # fmt: skip
        table = Table(box=None, padding=(0, 1), expand=True)
        for name in ("step", "status", "budget", "actual"):
            table.add_column(name, no_wrap=True)
        table.add_column("what", ratio=1, overflow="ellipsis", no_wrap=True)
        for line in shown.steps:
            style = COLOURS.get(line.status, "")
            table.add_row(line.step, Text(line.status, style), line.budget, line.actual, Text(line.text))
        parts: list[Text | Table | Panel] = [head, table]
        if dialogue is not None:
            used = 4 + len(shown.warnings) + len(shown.steps)
            parts.append(self._ask(dialogue, typed, self.console.height - used - AROUND))
        return Group(*parts)

    def _ask(self, dialogue: Dialogue, typed: str, room: int) -> Panel:
        question = dialogue.question
        left = max(timedelta(0), question.deadline - self.now())
        body = Text()
        for one in fitting(question.evidence, room, self.console.width - 4, self.engine.execution):
            body.append(f"- {one}\n")
        body.append(f"covers {', '.join(question.covers) or 'itself'}; silence means ")
        body.append(f"{question.default.value if question.default else 'no'} in {show_seconds(left)}\n")
        body.append(dialogue.prompt(), "bold")
        body.append(typed + "_")
        return Panel(body, title=f"{question.name}: {question.text}"[:100], border_style="magenta")

