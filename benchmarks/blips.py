"""Thirty real disturbances that heal by themselves, against `detect.outage`: who would have failed over, and how soon.

Usage: python -m benchmarks.blips record FILE --from 0 --to 15    a piece of the thirty, in a lab; appends to FILE
       python -m benchmarks.blips plot FILE                       writes docs/blips.svg and docs/blips.md

Only the detector runs, nothing is failed over. Every look of it is recorded once and judged afterwards under each
setting: the verdict is a pure function of what was seen. The order and the lengths come from one seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.blips_plot import Line, Point, draw
from benchmarks.measure import machine
from deployments.lab import Lab
from tasks.clients import Clients
from tasks.contract import Seen
from tasks.detect import DetectOutage, Outage

NUMBER = 97
SEED = 20261121
DOCS = Path(__file__).parents[1] / "docs"
PROMISED = 15.0
"""Seconds of network gap or freeze that the shipped settings promise to ride out."""
DEAD_FOR = (0.25, 0.5, 1.0, 1.5, 3.0)
SILENT_FOR = (1.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0)
LENGTHS = {
    "gap": (1, 2, 4, 8, 12, 15, 40, 60), "freeze": (1, 3, 6, 10, 13, 15, 40), "stall": (2, 6, 12),
    "restart": (0,) * 4, "oom": (0,) * 3, "blind": (5, 15, 30), "stopped ourselves": (4, 20),
}  # fmt: skip
DEATHS = ("stopped",) * 3


@dataclass(frozen=True)
class Disturbance:
    """What happens and for how many seconds; 0: as long as the supervisor takes to repair it."""

    kind: str
    lasts: float
    heals: bool = True


@dataclass
class Recording:
    """One disturbance and every look around it."""

    what: dict[str, Any]
    begins: str
    repaired: float = 0.0
    """Seconds from the beginning until it was over."""
    looks: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)


def programme() -> list[Disturbance]:
    """The thirty, and three deaths that do not heal, in a seeded order."""
    thirty = [Disturbance(kind, lasts) for kind, all_lengths in LENGTHS.items() for lasts in all_lengths]
    random.Random(SEED).shuffle(thirty)
    return [*thirty, *(Disturbance(kind, 6.0, heals=False) for kind in DEATHS)]


def probe(lab: Lab, **more: Any) -> DetectOutage:
    """The shipped runbook's signals, in this lab."""
    number, password = lab.number, lab.password
    east, west = (
        {"host": f"127.{number}.{region}.5", "port": 15432, "database": "shop", "user": "failover", "password": password}
        for region in (1, 2)
    )
    entrance = f"127.{number}.1.1"
    signals = {
        "service": {"http": {"url": f"http://{entrance}:18080/health"}}, "database": {"postgres": east},
        "entrance": {"tcp": {"host": entrance, "port": 18080}}, "stream": {"standby": west},
    }  # fmt: skip
    return DetectOutage.model_validate({"signals": signals, "up_for": "300d", **more})


class Detector:
    """Looks all the time on a thread of its own, as the engine does, and keeps what it saw."""

    def __init__(self, step: DetectOutage) -> None:
        self.recording: Recording | None = None
        self.paused = threading.Event()
        self.over = threading.Event()
        self.all_up_since: float | None = None
        self._step = step
        self._clients = Clients()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self.over.wait(self._step.interval.total_seconds()):
            if self.paused.is_set():
                continue
            seen, at = self._step.observe(self._clients), datetime.now(UTC)
            up = all(one.says == "up" and not one.waiting for one in seen.signals)
            self.all_up_since = (self.all_up_since or time.monotonic()) if up else None
            if self.recording is not None:
                self.recording.looks.append((at.isoformat(), [one.model_dump(mode="json") for one in seen.signals]))

    def settle(self, seconds: float = 3.0) -> None:
        """Wait until all has been well for so long."""
        end = time.monotonic() + 90
        while self.all_up_since is None or time.monotonic() - self.all_up_since < seconds:
            if time.monotonic() > end:
                raise RuntimeError("it did not become well again within 90 s")
            time.sleep(0.05)

    def close(self) -> None:
        """End it."""
        self.over.set()
        self._thread.join(5)
        self._clients.close()


def record(first: int, last: int, file: Path, number: int) -> None:
    """Carry a piece of the programme out, one disturbance after the other."""
    lab = Lab(number)
    lab.down()
    lab.up(rate=5.0, supervise=True)
    detector = Detector(probe(lab))
    try:
        for place, what in enumerate(programme()[first:last], start=first):
            detector.settle()
            detector.recording = Recording(asdict(what), "")
            time.sleep(1.0)
            begun = time.monotonic()
            detector.recording.begins = datetime.now(UTC).isoformat()
            repair = _break(lab, what, detector)
            time.sleep(what.lasts)
            repair()
            if not what.lasts:
                _wait_for_primary(lab)
            done, detector.recording.repaired = detector.recording, time.monotonic() - begun
            detector.settle(2.0)
            detector.recording = None
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"place": place, **asdict(done)}) + "\n")
            print(f"{place} {what.kind} {what.lasts:g} s: over after {done.repaired:.1f} s, {len(done.looks)} looks", flush=True)
    finally:
        detector.close()
        lab.down()


def _break(lab: Lab, what: Disturbance, detector: Detector) -> Callable[[], object]:
    """Begin a disturbance; give what ends it."""
    match what.kind:
        case "gap":
            lab.break_node("east", "disconnect")
        case "freeze":
            lab.break_node("east", "freeze")
        case "restart":
            os.kill(_postmaster(lab), signal.SIGINT)
            return lambda: None
        case "oom":
            os.kill(_children(lab)[-1], signal.SIGKILL)
            return lambda: None
        case "stall":
            stalled = _children(lab)
            _signal(stalled, signal.SIGSTOP)
            return lambda: _signal(stalled, signal.SIGCONT)
        case "blind":
            lab.cut("east", "engine", "blackhole")
            lab.cut("west", "engine", "blackhole")
        case "stopped ourselves":
            detector.paused.set()
            return detector.paused.clear
        case "stopped":
            lab.stop_node("east")

            def again() -> None:
                lab.release_node("east")
                lab.start_node("east")

            return again
    return lab.heal


def _postmaster(lab: Lab) -> int:
    pid = lab.status().nodes["east"].pid
    if pid is None:
        raise RuntimeError("the primary does not run")
    return pid


def _children(lab: Lab) -> list[int]:
    top = _postmaster(lab)
    return [int(pid) for pid in Path(f"/proc/{top}/task/{top}/children").read_text().split()]


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait_for_primary(lab: Lab) -> None:
    import psycopg

    end = time.monotonic() + 30
    while time.monotonic() < end:
        with suppress(psycopg.Error), psycopg.connect(lab.conninfo("east")) as session:
            session.execute("SELECT 1")
            return
        time.sleep(0.02)
    raise RuntimeError("the primary did not come back within 30 s")


# -- judging


def verdict(recording: Recording, step: DetectOutage) -> float | None:
    """Seconds from the beginning of a disturbance until this setting calls it an outage; None: it never does."""
    begins = datetime.fromisoformat(recording.begins)
    earlier: Seen[Outage] | None = None
    for at, readings in recording.looks:
        state = Outage.model_validate({"outage": None, "impact": None, "signals": readings, "reason": ""})
        seen = Seen(state, datetime.fromisoformat(at))
        earlier = Seen(step.fold(earlier, seen), seen.at)
        if earlier.state.outage:
            return (seen.at - begins).total_seconds()
    return None


def load(file: Path) -> Iterator[Recording]:
    """What was recorded; of a place that was recorded twice the last time counts."""
    places: dict[int, Recording] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        data = json.loads(line)
        place = data.pop("place")
        places[place] = Recording(**data)
    yield from (places[place] for place in sorted(places))


def setting(dead_for: float, silent_for: float) -> DetectOutage:
    """The shipped signals with other hold-downs."""
    server = {"host": "db", "database": "shop", "user": "failover"}
    signals = {"service": {"http": {"url": "http://x/health"}}, "database": {"postgres": server},
               "entrance": {"tcp": {"host": "x", "port": 1}}, "stream": {"standby": server}}  # fmt: skip
    times = {"dead_for": timedelta(seconds=dead_for), "silent_for": timedelta(seconds=silent_for)}
    return DetectOutage.model_validate({"signals": signals, "up_for": "300d", **times})


@dataclass(frozen=True)
class Row:
    """One setting and what it would have done."""

    dead_for: float
    silent_for: float
    wrongful: int
    promised: int
    """Wrongful ones among those that the shipped settings promise to ride out."""
    which: tuple[str, ...]
    proof: tuple[float, ...]
    """Seconds to call a host that was stopped an outage."""
    silence: tuple[float, ...]
    """Seconds to call a silence an outage, where it lasted long enough."""


def judge(recordings: list[Recording], dead_for: float, silent_for: float) -> Row:
    """Judge every recording under one setting."""
    step, wrong, promised, proof, silence = setting(dead_for, silent_for), [], 0, [], []
    for one in recordings:
        kind, lasts, heals = one.what["kind"], one.what["lasts"], one.what["heals"]
        after = verdict(one, step)
        if after is None:
            continue
        if not heals:
            proof.append(after)
            continue
        wrong.append(f"{kind} {lasts:g} s" if lasts else kind)
        within = lasts <= PROMISED or kind in ("blind", "stopped ourselves")
        promised += within
        if kind in ("gap", "freeze"):
            silence.append(after)
    return Row(dead_for, silent_for, len(wrong), promised, tuple(wrong), tuple(proof), tuple(silence))


def plot(file: Path) -> None:
    """Write the picture and the table."""
    recordings = list(load(file))
    healing = [one for one in recordings if one.what["heals"]]
    rows = [judge(recordings, dead, 20.0) for dead in DEAD_FOR]
    more = [judge(recordings, 1.5, silent) for silent in SILENT_FOR]
    lines = [
        Line("proof of death: dead_for", [Point(statistics.median(row.proof), row.wrongful, f"{row.dead_for:g} s", row.dead_for == 1.5)
                                          for row in rows if row.proof]),
        Line("silence: silent_for", [Point(statistics.median(row.silence), row.wrongful, f"{row.silent_for:g} s", row.silent_for == 20.0)
                                     for row in more if row.silence]),
    ]  # fmt: skip
    (DOCS / "blips.svg").write_text(draw(lines, len(healing)), encoding="utf-8")
    (DOCS / "blips.md").write_text(_page(recordings, rows, more), encoding="utf-8")
    print(f"wrote {DOCS / 'blips.svg'} and blips.md")


def _page(recordings: list[Recording], rows: list[Row], more: list[Row]) -> str:
    healing = [one for one in recordings if one.what["heals"]]
    counted: dict[str, list[Recording]] = {}
    for one in healing:
        counted.setdefault(one.what["kind"], []).append(one)
    kinds = "; ".join(f"{len(ones)} x {kind} ({min(one.repaired for one in ones):.1f} to {max(one.repaired for one in ones):.1f} s)"
                      for kind, ones in counted.items())  # fmt: skip
    ridden = sum(one.what["lasts"] <= PROMISED or one.what["kind"] in ("blind", "stopped ourselves") for one in healing)
    lines = [
        "# Blips: wrongful failovers against recovery time", "",
        ("Written by `python -m benchmarks.blips`. "
        f"{len(healing)} real disturbances that healed by themselves, in the lab, against the shipped runbook's signals: {kinds}. "
        "Nothing was failed over: every look was recorded and judged under each setting."), "",
        *machine(), "",
        "![wrongful verdicts against the time to call an outage](blips.svg)", "",
        (f"*Wrongful* counts all {len(healing)}; *promised* those {ridden} that the defaults promise to ride out (gaps, freezes and "
        f"stalls of up to {PROMISED:g} s, supervised restarts, and any length of the detector's own blindness). The shipped "
        "defaults are in bold. A verdict is not yet a recovery: from there to the first order by the new primary another second or two pass "
        "([results](../benchmarks/RESULTS.md)). A shorter silent_for gains little while a stream from the primary is among the signals: the "
        "standby tells that it still receives until its own ping went unanswered."), "",
        "| dead_for | silent_for | wrongful | promised | host stopped: called after | silence: called after | which |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    seen = set()
    for row in [*rows, *more]:
        if (row.dead_for, row.silent_for) in seen:
            continue
        seen.add((row.dead_for, row.silent_for))
        bold = "**" if (row.dead_for, row.silent_for) == (1.5, 20.0) else ""
        lines.append(
            f"| {bold}{row.dead_for:g} s{bold} | {bold}{row.silent_for:g} s{bold} | {bold}{row.wrongful}{bold} | {bold}{row.promised}{bold} | "
            f"{_spread(row.proof)} | {_spread(row.silence)} | {', '.join(row.which) or '-'} |"
        )
    return "\n".join(lines) + "\n"


def _spread(values: tuple[float, ...]) -> str:
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})" if values else "-"


def main() -> None:
    """Record a piece, or write what was recorded."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    recorder = commands.add_parser("record")
    recorder.add_argument("file", type=Path)
    recorder.add_argument("--from", dest="first", type=int, default=0)
    recorder.add_argument("--to", dest="last", type=int, default=len(programme()))
    recorder.add_argument("--lab", type=int, default=NUMBER)
    plotter = commands.add_parser("plot")
    plotter.add_argument("file", type=Path)
    options = parser.parse_args()
    if options.command == "plot":
        plot(options.file)
    else:
        record(options.first, options.last, options.file, options.lab)


if __name__ == "__main__":
    main()
