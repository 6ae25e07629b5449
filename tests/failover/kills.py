"""Kill the runner at points of its own journal, and let another, elsewhere, finish; `--rounds 20 --seed N` does it often.

    python -m tests.failover.kills --rounds 20 --seed 1 --lab 71

One run is left alone first: its journal tells how many events there are to be killed after. Each round then brings the
lab back to its first day, kills the primary, runs the shipped runbook, kills the runner (SIGKILL) as soon as a drawn
event is in the journal, and resumes from another process and another folder. The world is judged, not only the verdict.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg

from deployments.exits import Exit
from deployments.lab import Lab
from flows.events import Acting, Event, Status, StepFinished, Verdict
from flows.journal_sqlite import SqliteJournal
from flows.state import fold
from tests.failover.conftest import RATE, Scene

CHANGES = {"dns", "fence", "promote", "scale"}


@dataclass
class Elsewhere(Scene):
    """Another folder, with the same journal."""

    shared: Path

    @property
    def journal(self) -> Path:
        return self.shared


@dataclass(frozen=True)
class Round:
    """What became of a round. `after`: the last event in the journal when the runner was dead."""

    point: int
    after: str
    seconds: float
    wrong: tuple[str, ...]


def left_alone(lab: Lab, folder: Path) -> int:
    """Run without a kill; give how many events that took."""
    scene = _ready(lab, folder)
    scene.failover(*_run(scene))
    return len(scene.events())


def run_round(lab: Lab, point: int, folder: Path) -> Round:
    """Kill after event number `point`, resume elsewhere, judge; the lab is up, in whatever state."""
    begun = time.monotonic()
    scene = _ready(lab, folder)
    run = scene.start(*_run(scene))
    _wait_for_row(scene, run, point)
    run.kill()
    run.communicate()
    known = scene.events()
    other = folder / "elsewhere"
    other.mkdir()
    elsewhere = Elsewhere(lab, other, scene.journal)
    wrong: list[str] = []
    if fold(known).verdict is not Verdict.recovered:  # it was not faster than the kill
        if not _approved(scene):
            elsewhere.failover("approve", scene.execution(), "go", "--as", "kim")
        resumed = elsewhere.start("resume", scene.execution(), "--as", "bo")
        out, _ = resumed.communicate(timeout=120)
        wrong += [f"exit {resumed.returncode}: {out[-600:]}"] if resumed.returncode != Exit.met else []
    wrong += _judged(scene)
    return Round(point, _name(known[-1]), time.monotonic() - begun, tuple(wrong))


def _ready(lab: Lab, folder: Path) -> Scene:
    lab.reset()
    time.sleep(1.0)  # some orders on the first day's primary
    lab.break_node("primary", "kill")
    return Scene(lab, folder)


def _run(scene: Scene) -> tuple[str, ...]:
    return ("run", str(scene.runbook()), "--live", "--approve", "go", "--as", "kim", "--reason", "test")


def _wait_for_row(scene: Scene, run: subprocess.Popen[str], number: int) -> None:
    """Wait for the journal's row; looked for every 2 ms without our code, which takes longer."""
    end = time.monotonic() + 90
    while run.poll() is None and _rows(scene.journal) < number:
        assert time.monotonic() < end, f"no event number {number}"
        time.sleep(0.002)


def _rows(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)) as session:
            return int(session.execute("SELECT count(*) FROM events").fetchone()[0])
    except sqlite3.OperationalError:  # its tables are not there yet
        return 0


def _approved(scene: Scene) -> bool:
    journal = SqliteJournal(scene.journal)
    try:
        return bool(journal.inbox(scene.execution()))
    finally:
        journal.close()


def _name(event: Event) -> str:
    return " ".join(filter(None, [event.kind, getattr(event, "step", None) or getattr(event, "gate", None)]))


def _judged(scene: Scene) -> list[str]:
    """What is wrong with the journal, the nodes and the orders."""
    events, wrong = scene.events(), []
    state = fold(events)
    if state.verdict is not Verdict.recovered:
        return [f"verdict {state.verdict}"]
    done = [event.step for event in events if isinstance(event, StepFinished) and event.status in {Status.done, Status.already}]
    wrong += [f"finished twice: {sorted(step for step in set(done) if done.count(step) > 1)}"] if len(done) != len(set(done)) else []
    acted = [event.step for event in events if isinstance(event, Acting)]
    wrong += [f"acted on {sorted(set(acted))}"] if set(acted) != CHANGES else []
    journal = SqliteJournal(scene.journal)
    wrong += journal.verify(scene.execution())
    journal.close()
    with psycopg.connect(scene.lab.conninfo("west"), autocommit=True) as session:
        if session.execute("SELECT pg_is_in_recovery(), timeline_id FROM pg_control_checkpoint()").fetchone() not in {(False, 1), (False, 2)}:
            wrong.append("the new primary is none, or was promoted more than once")
    time.sleep(1.5)  # orders that were being retried get their answers
    facts = scene.lab.traffic_report(state.started.at)
    wrong += [f"two writers: {facts.two_writers}"] if facts.two_writers else []
    wrong += [f"orders twice: {facts.duplicated}"] if facts.duplicated else []
    wrong += [f"the new primary is {facts.new_primary}"] if facts.new_primary != "west" else []
    return wrong


def main() -> None:
    """Carry rounds out, at points drawn from the seed, and say what became of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lab", type=int, default=92, help="number of the lab, which must be free")
    given = parser.parse_args()
    lab, wrong = Lab(given.lab), 0
    lab.down()
    lab.up(rate=RATE)
    try:
        with tempfile.TemporaryDirectory() as folder:
            events = left_alone(lab, Path(folder))
        print(f"left alone: {events} events", flush=True)
        for point in drawn(given.seed, given.rounds, events):
            with tempfile.TemporaryDirectory() as folder:
                one = run_round(lab, point, Path(folder))
            wrong += bool(one.wrong)
            said = f"WRONG: {'; '.join(one.wrong)}" if one.wrong else "right"
            print(f"killed after event {one.point} ({one.after}): {one.seconds:.1f} s, {said}", flush=True)
    finally:
        lab.down()
    print(f"{given.rounds} rounds, {wrong} wrong")
    raise SystemExit(1 if wrong else 0)


def drawn(seed: int, rounds: int, events: int) -> list[int]:
    """Points to kill after, spread over the run: one from each of `rounds` equal parts of its events."""
    rng = random.Random(seed)
    return [1 + int((part + rng.random()) * (events - 1) / rounds) for part in range(rounds)]


if __name__ == "__main__":
    main()
