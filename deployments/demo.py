"""`failover demo`: a real failover and the way home, from nothing: lab up, orders flowing, primary killed, facts told."""

from __future__ import annotations

import argparse
import getpass
import html
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployments.lab import Lab
    from deployments.lab.report import TrafficReport
    from flows.report_parts import Fact

OUT, HOME = "region-failover", "region-failback"
INPUTS = {OUT: {}, HOME: {"soak": "3s", "hold": "2s"}}  # an hour and five minutes in real life
LOOK = 0.3  # seconds between two looks at the lab's Slack; a card is edited every 1.2 s at most
REASONS = {
    "go": "the primary is dead, the standby is fit",
    "sign-off": "the list is read, a copy is kept",
    "window": "orders may wait for a moment now",
}


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add demo."""
    demo = commands.add_parser("demo", help="a real failover in the lab and the way home, from nothing to the report")
    demo.add_argument("--how", choices=("kill", "freeze", "disconnect"), default="kill", help="what happens to the primary")
    demo.add_argument("--sync", action="store_true", help="synchronous replication: no acknowledged order may be lost")
    demo.add_argument("--one-way", action="store_true", help="end after the failover, without the way home")
    demo.add_argument("--yes", action="store_true", help="answer the gates with `failover approve`, as a person would")
    demo.add_argument("--keep", action="store_true", help="leave the lab and the Prefect UI running")
    demo.add_argument("--journal", help="the journal: a file or postgresql://… (default: FAILOVER_JOURNAL, else in your state folder)")
    demo.set_defaults(run=run_demo)


def run_demo(options: argparse.Namespace) -> int:
    """Run the whole story; exit 0 when the service recovered, and came home."""
    from deployments.journal_location import journal_location
    from deployments.lab import Lab

    lab = Lab()
    if lab.running:
        print("a lab is up already; `failover lab down` ends it", file=sys.stderr)
        return 1
    os.environ.setdefault("FAILOVER_JOURNAL", journal_location(options.journal))
    kept = False
    try:
        code = _story(lab, options)
        if code == 0 and not options.one_way:
            code = _way_home(lab, options)
        if options.keep:
            _keep(options.how)
            kept = True
        return code
    finally:
        if not kept:
            print("\nending the lab")
            lab.down()


def _story(lab: Lab, options: argparse.Namespace) -> int:
    print("bringing up two regions: PostgreSQL with a streaming standby, checkout services, AWS, DNS, customers")
    began = time.monotonic()
    lab.up(sync=options.sync)
    os.environ.update(lab.environment())
    _show_orders(lab, time.monotonic() - began)
    print("  the incident channel, all along, from another terminal: `failover lab slack --open`")
    fault = lab.break_node("primary", options.how)
    print(f"\n{fault:%H:%M:%S.%f}"[:-3] + f" UTC  the primary database in us-east-1 suffers: {options.how}\n", flush=True)
    code = _carry_out(lab, OUT, f"demo: {options.how} of the primary", options, lambda: _facts(lab, fault))
    _show_slack(lab)
    return code


def _way_home(lab: Lab, options: argparse.Namespace) -> int:
    """Heal what was broken, and return home while customers go on ordering."""
    for done in lab.heal():
        print(f"  healed: {done}")
    earlier, since = set(lab.traffic_report().missing), datetime.now(UTC)
    print(f"\n{since:%H:%M:%S} UTC  us-east-1 is whole again: the way home, while customers go on ordering\n", flush=True)

    def facts() -> tuple[Fact, ...]:
        from flows.report import facts_of

        report = _settled(lab, since)
        return facts_of(told_home(report, earlier))

    code = _carry_out(lab, HOME, "demo: the way home", options, facts)
    _show_slack(lab)
    return code


def _carry_out(lab: Lab, runbook: str, reason: str, options: argparse.Namespace, facts: Callable[[], tuple[Fact, ...]]) -> int:
    from deployments.journal_location import open_journal
    from deployments.running import carry_out
    from flows.clock import SystemClock
    from flows.runs import Request, start
    from runbooks.loader import load
    from runbooks.model import Mode
    from runbooks.planner import plan
    from runbooks.shipped import find

    journal = open_journal()
    planned = plan(load(find(runbook)), mode=Mode.live, inputs=INPUTS[runbook])
    name = getpass.getuser()
    request = Request(planned, name, "demo", reason)
    engine = start(journal, request, SystemClock())
    asks = options.yes or not (sys.stdin.isatty() and sys.stdout.isatty())
    watch = (lambda notices: _answer_gates(lab, engine.execution, notices)) if asks else None
    return carry_out(engine, journal, name=name, facts=facts, watch=watch)


def _show_slack(lab: Lab) -> None:
    """The card as it stands at the end: what the channel saw."""
    from deployments.lab.slack_page import as_text

    print("\nIn Slack (the lab's own; `failover lab slack --open` shows it while the lab is up):")
    for name, messages in lab.slack().items():
        for message in messages[-1:]:
            replies = message.pop("replies")
            print(f"{as_text(name, [message])}\n    | {len(replies)} message(s) in its thread")


def _show_orders(lab: Lab, took: float) -> None:
    print(f"up after {took:.1f} s")
    for _ in range(3):
        time.sleep(1)
        report = lab.traffic_report()
        print(f"  orders acknowledged so far: {report.acknowledged}, by {', '.join(report.by_node) or 'nobody'}", flush=True)


@dataclass(frozen=True)
class CardEdited:
    """The card in Slack has another headline: mode, title and state."""

    at: datetime
    headline: str


@contextmanager
def watching_card(lab: Lab, tell: Callable[[CardEdited], None]) -> Iterator[None]:
    """Tell each new headline of the lab's newest card while the block runs; what stands there before is old."""
    over, before = threading.Event(), _headline(lab)

    def look() -> None:
        shown = before
        while not over.wait(LOOK):
            now = _headline(lab)
            if now not in {"", shown}:
                tell(CardEdited(datetime.now(UTC), now))
                shown = now

    threading.Thread(target=look, name="card", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _headline(lab: Lab) -> str:
    from deployments.lab.errors import LabError

    with suppress(LabError):
        newest = max((one for messages in lab.slack().values() for one in messages), key=lambda one: float(one["ts"]), default={})
        return next((html.unescape(one["text"]["text"]) for one in newest.get("blocks") or () if one["type"] == "header"), "")
    return ""


def _answer_gates(lab: Lab, execution: str, notices: queue.SimpleQueue[object]) -> None:
    """Follow the run, and answer each gate through the same command that a person would use."""
    from deployments.running import follow
    from flows.events import GateOpened

    def until(notice: object) -> None:
        if isinstance(notice, CardEdited):
            print(f"{notice.at:%H:%M:%S}             in Slack: {notice.headline}", flush=True)
        if isinstance(notice, GateOpened):
            command = ["approve", execution, notice.gate, "--as", "demo", "--reason", REASONS.get(notice.gate, "demo")]
            print(f"{notice.at:%H:%M:%S}             $ failover {' '.join(command[:5])} --reason '{command[-1]}'", flush=True)
            subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "deployments", *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )

    with watching_card(lab, notices.put):
        follow(notices, until)


def _facts(lab: Lab, fault: datetime) -> tuple[Fact, ...]:
    """Wait for the customers to come back, then tell what they saw."""
    from flows.report import facts_of

    return facts_of(told(_settled(lab, fault)))


def _settled(lab: Lab, since: datetime) -> TrafficReport:
    deadline = time.monotonic() + 15
    while lab.traffic_report(since).first_ack_by_new_primary is None and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1.5)  # orders that were being retried get their answers
    return lab.traffic_report(since)


def told(report: TrafficReport) -> dict[str, str]:
    """What customers saw, as facts."""

    def after(span: timedelta | None) -> str:
        return "never" if span is None else f"{span.total_seconds():.2f} s"

    return {
        "orders acknowledged": str(report.acknowledged),
        "orders acknowledged and missing": str(len(report.missing)),
        "orders duplicated": str(len(report.duplicated)),
        "orders given up by customers": str(report.given_up),
        "two writers": "YES" if report.two_writers else "no",
        "no order acknowledged for": after(report.downtime),
        "fault to first order by the new primary": after(report.fault_to_new_primary),
        "orders by node": ", ".join(f"{node} {count}" for node, count in report.by_node.items()),
    }


def told_home(report: TrafficReport, earlier: set[str]) -> dict[str, str]:
    """What the way home alone cost the customers. earlier: the orders that the failover before it had lost."""
    pause = "unknown" if report.downtime is None else f"{report.downtime.total_seconds():.2f} s"
    return {
        "orders lost on the way home": str(len(set(report.missing) - earlier)),
        "orders duplicated": str(len(report.duplicated)),
        "orders given up by customers": str(report.given_up),
        "two writers": "YES" if report.two_writers else "no",
        "no order acknowledged for": pause,
        "orders by node": ", ".join(f"{node} {count}" for node, count in report.by_node.items()),
    }


def demo_home() -> Path:
    """Where what `--keep` left running keeps its files."""
    from deployments.journal_location import state_folder

    return state_folder() / "demo"


def end_kept() -> None:
    """End the Prefect UI that `--keep` left running, if it did."""
    from deployments.serve import stop_detached

    if demo_home().is_dir():
        stop_detached(demo_home())


def _keep(how: str) -> None:
    """Leave the lab up and serve the shipped runbooks in a Prefect UI, detached; `failover lab down` ends both."""
    from deployments.serve import serve_detached
    from runbooks.shipped import FOLDER

    print("\nstarting the Prefect UI (about 20 s the first time)", flush=True)
    address = serve_detached(FOLDER, demo_home())
    print(f"Prefect UI: {address}")
    print("  the same failover from there:")
    print(f"    {'failover lab reset':<44}# the first day again")
    print(f"    {f'failover lab break primary --how {how}':<44}# without a fault the run ends as no-action")
    print("    then Deployments, region-failover, Run")
    print("  the lab stays up; `failover lab down` (or `make down`) ends everything")
