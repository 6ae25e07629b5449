"""Measure everything and write benchmarks/RESULTS.md; exit 1 when a way home lost an order or two nodes took writes.

Usage: python -m benchmarks.run [--rounds 10] [--failovers 10] [--failbacks 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from benchmarks import failback, failovers, far_journal, overhead, reporting, slack, startup
from benchmarks.measure import machine, spread

RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    """Run all benchmarks in one go."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--failovers", type=int, default=10, help="whole failovers of each fault, ours and the script's; minutes a round")
    parser.add_argument("--failbacks", type=int, default=5, help="ways out and home")
    options = parser.parse_args()
    lines = ["# Results", "", "Written by `make bench`. Medians with ranges; these machines are shared and noisy.", "", *machine(), ""]
    lines += _startup(options.rounds)
    lines += _overhead(options.rounds)
    lines += _far_journal(options.rounds)
    lines += _slack(options.rounds)
    lines += _reports(options.rounds)
    print("failovers", flush=True)
    out = failovers.run(options.failovers, _say)
    print("failback", flush=True)
    home = failback.run(options.failbacks, _say)
    lines += [*_failovers(out), *_failback(home)]
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {RESULTS}")
    broken = broken_promises(out, home)
    if broken:
        sys.exit("\n".join(broken))


def broken_promises(out: dict[str, failovers.Result], home: list[failback.Round]) -> list[str]:
    """What must not have happened in any round and did. The hand script's two writers are no promise of ours."""
    broken = [f"failover, {how}: two writers in {one.two_writers} of {len(one.ours)} rounds" for how, one in out.items() if one.two_writers]
    for number, one in enumerate(home, start=1):
        broken += [f"failback {number}: {one.lost} orders lost, {one.duplicated} doubled"] if one.lost or one.duplicated else []
        broken += [f"failback {number}: two writers"] if one.two_writers else []
    return broken


def _say(text: str) -> None:
    print(text, flush=True)


def _startup(rounds: int) -> list[str]:
    print("start-up", flush=True)
    return [
        "## Start-up of the command", "", "Whole process, imports byte-compiled.", "", "| command | time |", "|---|---|",
        f"| `failover --help` | {spread(startup.whole(rounds, '--help'))} |",
        f"| `failover check region-failover` | {spread(startup.whole(rounds, 'check', 'region-failover'))} |",
        f"| `failover run --live`, to its first probe | {spread(startup.first_probe(rounds))} |", "",
    ]  # fmt: skip


def _overhead(rounds: int) -> list[str]:
    print("overhead", flush=True)
    direct = overhead.direct(rounds)
    about = f"{overhead.STEPS} changes that do nothing, one after the other: look, announce, act, look; events are flushed."
    lines = ["## What the engine costs a step", "", about, "", "| how | a step |", "|---|---|"]
    lines += [f"| direct | {spread(direct, 'ms')} |"]
    from benchmarks import prefect_overhead

    ours, plain = prefect_overhead.run(min(rounds, 5))
    ratio = statistics.median(ours) / statistics.median(plain)
    return [
        *lines, f"| as a Prefect flow of ours | {spread(ours, 'ms')} |",
        f"| a plain Prefect flow of {overhead.STEPS} tasks | {spread(plain, 'ms')} |", "",
        f"Ours as a Prefect flow takes {ratio:.2f} times the plain flow.", "",
    ]  # fmt: skip


def _far_journal(rounds: int) -> list[str]:
    print("far journal", flush=True)
    about = (
        f"{far_journal.STEPS} of the same changes, the journal in PostgreSQL on this machine behind a proxy: three events a "
        "step are written, each before what follows it."
    )
    lines = ["## What a far journal costs a step", "", about, "", "| there and back | a step |", "|---|---|"]
    lines += [f"| {way * 1000:.0f} ms | {spread(times, 'ms')} |" for way, times in far_journal.run(min(rounds, 5)).items()]
    return [*lines, ""]


def _slack(rounds: int) -> list[str]:
    print("slack", flush=True)
    return slack.lines(rounds)


def _reports(rounds: int) -> list[str]:
    print("reports", flush=True)
    times = reporting.run(rounds)
    about = f"A run of {reporting.STEPS} steps, one after the other, from its end to the report in every format beside the journal."
    lines = ["## The report", "", about, "", "| what | time |", "|---|---|", f"| from the end to all files | {spread(times.whole)} |"]
    lines += [f"| the processor's time of that | {spread(times.processor)} |"]
    lines += [f"| of that, {name} | {spread(known)} |" for name, known in times.formats.items()]
    return [*lines, f"| what the next run learns from it, on a side thread | {spread(times.history)} |", ""]


def _failovers(results: dict[str, failovers.Result]) -> list[str]:
    about = (
        "In the lab, asynchronous replication, 20 orders a second, DNS ttl 2 s; ours already detecting, its gate approved in "
        "advance; the hand script (benchmarks/hand_failover.py) already watching. The script fires at every blip of 0.6 s; "
        "ours rides out 15 s of silence and a supervised restart, which is where the differences come from. The service's "
        "pools know both databases, so after a kill orders go on with the promotion; where its region is silent, customers "
        "have to find the other one first, and a resolver may keep the old answer for 2 s more."
    )
    lines = ["## Fault to the first order by the new primary", "", about, "",
             "| fault | ours | hand script | orders lost (ours) | two writers (ours / script) |", "|---|---|---|---|---|"]  # fmt: skip
    for how, result in results.items():
        lost = f"{statistics.median(result.lost):.0f} ({min(result.lost)} to {max(result.lost)})"
        lines.append(f"| {how} | {spread(result.ours)} | {spread(result.script)} | {lost} | "
                     f"{result.two_writers} / {result.script_two_writers} of {len(result.ours)} |")  # fmt: skip
    lines += ["", "Ours, by part (medians):", "", "| fault | detection | decision | automation | verification |", "|---|---|---|---|---|"]
    for how, result in results.items():
        cells = [f"{statistics.median(part[name] for part in result.parts):.2f} s"
                 for name in ("detection", "decision", "automation", "verification")]  # fmt: skip
        lines.append(f"| {how} | {' | '.join(cells)} |")
    return [*lines, ""]


def _failback(rounds: list[failback.Round]) -> list[str]:
    about = (
        "Out by a kill, after half a second of writes that no standby got, and home with region-failback, again and again in "
        "one lab under load: counted from the start of the way home. `soak` and `hold` are 1 s and 2 s."
    )
    lines = ["## The way home", "", about, "", "| | lost on the way out | lost | twice | given up | two writers | longest without an order | took |", "|---|---|---|---|---|---|---|---|"]
    for number, one in enumerate(rounds, start=1):
        lines.append(f"| {number} | {one.lost_out} | {one.lost} | {one.duplicated} | {one.given_up} | {'yes' if one.two_writers else 'no'} | {one.pause:.2f} s | {one.took:.1f} s |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
