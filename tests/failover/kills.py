"""Kill the runner at points of its own journal, and let another, elsewhere, finish; `--rounds 20 --seed N` does it often.

    python -m tests.failover.kills --rounds 20 --seed 1 --lab 71 --out /tmp/kills.jsonl

One run is left alone first: its journal tells how many events there are to be killed after. Each round then brings the
lab back to its first day, kills the primary, runs the shipped runbook, kills the runner (SIGKILL) as soon as a drawn
event is in the journal, and resumes from another process and another folder. The world is judged, not only the verdict.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from deployments.exits import Exit
from deployments.lab import Lab
from flows.events import Acting, Event, Status, StepFinished, Verdict
from flows.journal_sqlite import SqliteJournal
from flows.state import fold
from tests.failover.conftest import RATE, Scene
from tests.failover.effects import cloud_changes, promotions, repeated

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
    """What became of a round. `after`: the last event in the journal when the runner was dead, `step`: whose it was."""

    point: int
    after: str
    step: str
    resumed: bool
    """False: it was faster than the kill."""
    seconds: float
    """From the first start of the command until the verdict was in and every order answered."""
    repeated: int
    dual_writers: int
    lost: int
    twice: int
    wrong: tuple[str, ...]

    def line(self) -> str:
        return json.dumps({"table": "kills", "rate": RATE, **asdict(self)})


def left_alone(lab: Lab, folder: Path) -> int:
    """Run without a kill; give how many events that took."""
    scene = _ready(lab, folder)
    scene.failover(*_run(scene))
    return len(scene.events())


def run_round(lab: Lab, point: int, folder: Path) -> Round:
    """Kill after event number `point`, resume elsewhere, judge; the lab is up, in whatever state."""
    scene = _ready(lab, folder)
    begun = time.monotonic()
    run = scene.start(*_run(scene))
    _wait_for_row(scene, run, point)
    run.kill()
    run.communicate()
    known = scene.events()
    other = folder / "elsewhere"
    other.mkdir()
    elsewhere = Elsewhere(lab, other, scene.journal)
    wrong: list[str] = []
    resumed = fold(known).verdict is not Verdict.recovered
    if resumed:
        if not _approved(scene):
            elsewhere.failover("approve", scene.execution(), "go", "--as", "kim")
        other_run = elsewhere.start("resume", scene.execution(), "--as", "bo")
        out, _ = other_run.communicate(timeout=120)
        wrong += [f"exit {other_run.returncode}: {out[-600:]}"] if other_run.returncode != Exit.met else []
    seconds = time.monotonic() - begun
    wrong += _wrong_in_journal(scene)
    effects = cloud_changes(lab) | {"promote": promotions(lab, "west")}
    wrong += [f"effects in the world: {effects}, expected each once"] if set(effects.values()) != {1} else []
    again = repeated(scene.events(), effects)
    time.sleep(1.5)  # orders that were being retried get their answers
    facts = lab.traffic_report(fold(known).started.at)
    wrong += [f"two writers: {facts.two_writers}"] if facts.two_writers else []
    wrong += [f"orders twice: {facts.duplicated}"] if facts.duplicated else []
    wrong += [f"the new primary is {facts.new_primary}"] if facts.new_primary != "west" else []
    return Round(
        point, known[-1].kind, _whose(known[-1]), resumed, seconds, again,
        int(facts.two_writers), len(facts.missing), len(facts.duplicated), tuple(wrong),
    )  # fmt: skip


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


def _whose(event: Event) -> str:
    return getattr(event, "step", None) or getattr(event, "gate", None) or ""


def _wrong_in_journal(scene: Scene) -> list[str]:
    events, wrong = scene.events(), []
    state = fold(events)
    if state.verdict is not Verdict.recovered:
        wrong.append(f"verdict {state.verdict}")
    done = [event.step for event in events if isinstance(event, StepFinished) and event.status in {Status.done, Status.already}]
    wrong += [f"finished twice: {sorted(step for step in set(done) if done.count(step) > 1)}"] if len(done) != len(set(done)) else []
    acted = {event.step for event in events if isinstance(event, Acting)}
    wrong += [f"acted on {sorted(acted)}"] if acted != CHANGES else []
    journal = SqliteJournal(scene.journal)
    wrong += journal.verify(scene.execution())
    journal.close()
    return wrong


def main() -> None:
    """Carry rounds out, at points drawn from the seed, and say what became of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lab", type=int, default=92, help="number of the lab, which must be free")
    parser.add_argument("--out", type=Path, help="append each round as a line of JSON")
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
            if given.out is not None:
                with given.out.open("a") as file:
                    print(one.line(), file=file)
            said = f"WRONG: {'; '.join(one.wrong)}" if one.wrong else "right"
            print(f"killed after event {one.point} ({one.after} {one.step}): {one.seconds:.1f} s, {said}", flush=True)
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
