"""A real lab for whole failovers: real PostgreSQL, real traffic, the command as people type it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deployments.lab import Lab
from flows.events import Event
from flows.journal_sqlite import SqliteJournal
from runbooks.shipped import find

ROOT = Path(__file__).parents[2]
NUMBER = int(os.environ.get("FAILOVER_TEST_LAB", "91"))
"""Of this suite's lab; others use other numbers, so that they can be up at the same time."""
RATE = 20.0
"""Orders a second."""


@dataclass
class Scene:
    """One failover's stage: a lab, a folder for the journal, and the shipped runbook with this lab's addresses."""

    lab: Lab
    folder: Path
    children: list[subprocess.Popen[str]] = field(default_factory=list, init=False)

    @property
    def journal(self) -> Path:
        return self.folder / "journal.db"

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, **self.lab.environment(), "FAILOVER_JOURNAL": str(self.journal), "PYTHONSAFEPATH": "1"}

    def runbook(self, name: str = "region-failover", replace: tuple[tuple[str, str], ...] = ()) -> Path:
        text = find(name).read_text().replace("127.77.", f"127.{self.lab.number}.")
        for old, new in replace:
            assert old in text, old
            text = text.replace(old, new)
        path = self.folder / f"{name}.yaml"
        path.write_text(text)
        return path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-m", "deployments", *arguments], cwd=self.folder, env=self.environ, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.children.append(child)
        return child

    def close(self) -> None:
        """End what a failed test left running."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.communicate()

    def failover(self, *arguments: str, expect: int = 0, timeout: float = 120) -> str:
        child = self.start(*arguments)
        try:
            out, _ = child.communicate(timeout=timeout)
        finally:
            child.kill()
        assert child.returncode == expect, out
        return out

    def events(self, execution: str | None = None) -> list[Event]:
        journal = SqliteJournal(self.journal)
        try:
            execution = execution or journal.executions(1)[0].execution
            return [event for _, event in journal.read(execution)]
        finally:
            journal.close()

    def wait_for_event(self, kind: str, step: str | None = None, seconds: float = 60, pause: float = 0.02) -> Event:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.journal.exists():
                for event in self.events() if self.started() else []:
                    if event.kind == kind and step in {None, getattr(event, "step", None), getattr(event, "gate", None)}:
                        return event
            time.sleep(pause)
        raise AssertionError(f"no {kind} of {step} within {seconds} s")

    def started(self) -> bool:
        journal = SqliteJournal(self.journal)
        try:
            return bool(journal.executions(1))
        finally:
            journal.close()

    def execution(self) -> str:
        journal = SqliteJournal(self.journal)
        try:
            return journal.executions(1)[0].execution
        finally:
            journal.close()

    def report(self) -> dict[str, Any]:
        return json.loads(self.failover("report", "--format", "json"))


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    lab = Lab(NUMBER)
    lab.down()
    lab.up(rate=RATE)
    yield lab
    lab.down()


@pytest.fixture
def scene(lab: Lab, tmp_path: Path) -> Iterator[Scene]:
    lab.reset()
    time.sleep(1.0)  # some orders on the first day's primary
    scene = Scene(lab, tmp_path)
    yield scene
    scene.close()
