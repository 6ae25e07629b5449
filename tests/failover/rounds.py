"""Randomised rounds of fence and promote in the lab, with clients pinned to each node; `--rounds 60 --seed N` runs many.

    python -m tests.failover.rounds --rounds 60 --seed 1 --lab 63 --out /tmp/rounds.jsonl [--sync] [--of isolate-path]

Each round brings the lab back to its first day, lets pinned clients write to the primary, breaks something, lets the
command fence and promote, breaks something else meanwhile, heals everything, and judges what clients were told.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import indent
from typing import Any

import psycopg

from deployments.lab import Lab, LabError
from flows.events import Acting, StepFinished
from tests.failover.conftest import Scene
from tests.failover.effects import promotions, repeated
from tests.failover.pinned import Pinned
from tests.failover.provider import Provider
from tests.failover.scenarios import SETS, Scenario, draw
from tests.failover.verdict import Judgement, Rows, judge

RUNBOOK = Path(__file__).with_name("rounds.yaml")
PATIENCE = {True: "20s", False: "4s"}
"""The fence's timeout: long where it can hold, short where it must be refused."""


@dataclass(frozen=True)
class Round:
    """A round and what became of it. Seconds; `recovery` is from the fault to the new primary's first write."""

    scenario: Scenario
    sync: bool
    supervised: bool
    outcome: str
    """recovered, or refused: nothing was promoted."""
    exit: int
    judgement: Judgement
    acks_old: int
    acks_new: int
    repeated: int
    """Effects that happened more than once."""
    stated_loss: float | None
    recovery: float | None
    wrong: tuple[str, ...]

    def line(self) -> str:
        return json.dumps({"table": "rounds", "fenceable": self.scenario.fenceable, **asdict(self)})


def run_round(lab: Lab, scenario: Scenario, folder: Path) -> Round:
    """Carry one round out; the lab is up, in whatever state."""
    lab.reset()
    with Provider(lab, scenario.provider) as provider, clients(lab, scenario) as pinned:
        scene = prepared(lab, folder, scenario, provider)
        exit_code, fault = _fail_over(scene, scenario)
        promoted = lab.status().nodes["west"].role == "primary"
        lab.heal()
        if promoted:
            pinned.wait_for("west", 20)
        time.sleep(1.0)  # whatever was healed gets its chance to write
        pinned.stop()
    return _judged(scene, scenario, pinned, (exit_code, fault, promoted))


@contextlib.contextmanager
def clients(lab: Lab, scenario: Scenario) -> Iterator[Pinned]:
    """Pinned clients that have written to the primary for a while."""
    pinned = Pinned(lab, frozenset({"east"} if scenario.kinds.by_way else ())).start()
    try:
        assert pinned.wait_for("east", 40), "the first day's primary takes no writes"
        yield pinned
    finally:
        pinned.stop()


def prepared(lab: Lab, folder: Path, scenario: Scenario, provider: Provider) -> Scene:
    method = {
        "control": f'{{control: {{url: "{provider.url}"}}}}',
        "sql": "{sql: {as_client: {host: 127.77.1.4, port: 15432, database: shop, user: checkout, "
        'password: "${env.FAILOVER_LAB_PASSWORD}"}}}',
    }[scenario.method]
    method += indent(scenario.kinds.declares, " " * 6).rstrip()
    text = RUNBOOK.read_text().replace("METHOD", method).replace("PATIENCE", PATIENCE[scenario.fenceable])
    (folder / "rounds.yaml").write_text(text.replace("127.77.", f"127.{lab.number}."))
    return Scene(lab, folder)


def _fail_over(scene: Scene, scenario: Scenario) -> tuple[int, float]:
    """Break, run, break again; give the exit code and the moment of the fault (monotonic)."""
    fault = time.monotonic()
    if not scenario.late:
        _break(scene.lab, scenario)
    run = scene.start("run", str(scene.folder / "rounds.yaml"), "--live", "--approve", "go", "--as", "kim")
    if scenario.late:
        scene.wait_for_event("step-finished", "replication")
        fault = time.monotonic()
        _break(scene.lab, scenario)
    killed = threading.Event()
    meddler = threading.Thread(target=_meddle, args=(scene, scenario, run, killed), daemon=True)
    if scenario.during != "nothing":
        meddler.start()
    out, _ = run.communicate(timeout=100)
    (scene.folder / "out.txt").write_text(out)
    if scenario.during != "nothing":
        meddler.join(10)
    if killed.is_set():
        resumed = scene.start("resume", scene.execution(), "--as", "bo")
        out, _ = resumed.communicate(timeout=100)
        (scene.folder / "resumed.txt").write_text(out)
        return resumed.returncode, fault
    return run.returncode, fault


def _break(lab: Lab, scenario: Scenario) -> None:
    match scenario.fault:
        case "kill" | "freeze" | "disconnect":
            lab.break_node("east", scenario.fault)
        case "cut":
            for node, way, direction in scenario.cuts:
                lab.cut(node, way, "blackhole", direction)  # type: ignore[arg-type]
        case "alive":
            pass


def _meddle(scene: Scene, scenario: Scenario, run: Any, killed: threading.Event) -> None:
    """The fault during the promotion."""
    try:
        scene.wait_for_event(*scenario.moment, seconds=25, pause=0.002)
    except AssertionError:
        return  # it never came so far
    match scenario.during:
        case "engine killed":
            run.kill()
            killed.set()
        case "standby cut":
            scene.lab.cut("west", "engine", "blackhole", scenario.direction)
            time.sleep(scenario.pause)
            scene.lab.cut("west", "engine", "open")
        case "old primary healed":
            with contextlib.suppress(LabError):
                scene.lab.heal()


def _judged(scene: Scene, scenario: Scenario, pinned: Pinned, seen: tuple[int, float, bool]) -> Round:
    exit_code, fault, promoted = seen
    lab = scene.lab
    old, new = pinned.by("east"), pinned.by("west")
    survivor = "west" if promoted else "east"
    old_rows = _old_rows(lab) if promoted else None
    judgement = judge(old, new, old_rows, _rows(lab, survivor), lives_on=scenario.kinds.lives_on)
    events = scene.events()
    again = repeated(events, {"promote": promotions(lab, survivor)})
    promotion = [one for one in events if isinstance(one, StepFinished) and one.step == "promote" and one.output]
    stated = promotion[-1].output.get("loss_seconds_at_most") if promotion and promotion[-1].output else None
    announced = any(isinstance(one, Acting) and one.step == "promote" for one in events)
    wrong = [*judgement.content]
    wrong += [f"{judgement.two_writers} writes acknowledged by two nodes"] if judgement.two_writers else []
    wrong += [f"{again} effects happened more than once"] if again else []
    if not scenario.fenceable and (promoted or new or exit_code == 0):
        wrong.append(f"unfenceable, and not refused: exit {exit_code}, promoted {promoted}, {len(new)} writes")
    if not scenario.fenceable and announced:
        wrong.append("a promotion was announced without a fence")
    if scenario.fenceable and not promoted:
        wrong.append(f"fenceable, and not recovered: exit {exit_code}")
    if promoted and not new:
        wrong.append("the new primary acknowledged nothing")
    if promoted and old_rows is None:
        wrong.append("the old history could not be read")
    if promoted and lab.status().sync and judgement.lost:
        wrong.append(f"{judgement.lost} acknowledged writes lost although replication is synchronous")
    if promoted and judgement.lost and (stated is None or judgement.true_loss > stated):
        wrong.append(f"lost {judgement.true_loss:.3f} s, stated at most {stated}")
    recovery = min((ack.acked for ack in new), default=None)
    return Round(
        scenario, lab.status().sync, False, "recovered" if promoted else "refused", exit_code, judgement, len(old), len(new),
        again, stated, None if recovery is None else recovery - fault, tuple(wrong),
    )  # fmt: skip


def _rows(lab: Lab, node: Any) -> Rows:
    with psycopg.connect(lab.conninfo(node)) as session:
        found = session.execute("SELECT ref::text, node, extract(epoch FROM created_at)::float FROM orders WHERE instance LIKE %s", ("pinned-%",)).fetchall()
    made = {ref: at for ref, _, at in found}
    return Rows(made, {ref: who for ref, who, _ in found}, len(found) - len(made))


def _old_rows(lab: Lab) -> Rows | None:
    """Read the old primary's own history, after all clients are gone."""
    with contextlib.suppress(LabError, psycopg.Error):
        lab.release_node("east")
        lab.start_node("east")
        return _rows(lab, "east")
    return None


def main() -> None:
    """Carry rounds out and append each as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lab", type=int, default=92, help="number of the lab, which must be free")
    parser.add_argument("--sync", action="store_true", help="synchronous replication")
    parser.add_argument("--supervise", action="store_true", help="killed nodes are started again after 1 s")
    parser.add_argument("--of", choices=[*SETS], default="method", help="set of kinds; all but `method` have a provider that is away")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    lab = Lab(given.lab)
    lab.down()
    asked = {"sync": given.sync, "supervise": given.supervise, **dict.fromkeys(SETS[given.of].lab, True)}
    lab.up(**asked, traffic=False)
    try:
        wrong = sum(_said(lab, draw(given.seed, number, given.of), given) for number in range(given.first, given.first + given.rounds))
    finally:
        lab.down()
    print(f"{given.rounds} rounds, {wrong} wrong")
    raise SystemExit(1 if wrong else 0)


def _said(lab: Lab, scenario: Scenario, given: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        done = replace(run_round(lab, scenario, Path(folder)), supervised=given.supervise)
        with given.out.open("a") as file:
            print(done.line(), file=file)
        took = time.monotonic() - begun
        print(f"{scenario}: {done.outcome} in {took:.1f} s, {'WRONG: ' + '; '.join(done.wrong) if done.wrong else 'right'}", flush=True)
        if done.wrong:
            for name in ("out.txt", "resumed.txt"):
                file = Path(folder) / name
                print(file.read_text() if file.exists() else "", flush=True)
    return bool(done.wrong)


if __name__ == "__main__":
    main()
