"""`failover run` and `resume`: carry an execution out in this process, without any server."""

from __future__ import annotations

import argparse
import getpass
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from deployments.authoring import add_inputs, planned
from deployments.exits import Exit, exit_of

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from flows.engine import Engine
    from flows.journal import InboxEntry, Journal
    from flows.report import Fact


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add run and resume."""
    run = commands.add_parser("run", help="run a runbook (default: a dry run that changes nothing)")
    run.add_argument("runbook", help="a file, or the name of a shipped runbook")
    add_inputs(run)
    mode = run.add_mutually_exclusive_group()
    mode.add_argument("--live", action="store_true", help="change the live targets")
    mode.add_argument("--drill", action="store_true", help="change the drill targets")
    run.add_argument("--reason", default="", help="why")
    run.add_argument("--impact", metavar="TIME", help="when the outage began, as 2026-01-31T03:04:05Z; starts the RTO clock")
    run.add_argument("--approve", action="append", default=[], metavar="GATE", help="approve a gate in advance")
    _common(run)
    run.set_defaults(run=run_run)
    resume = commands.add_parser("resume", help="go on with an execution that was interrupted, failed or was refused")
    resume.add_argument("execution", help="id of the execution, or its beginning")
    resume.add_argument("--override", metavar="NAME", help="go on from a copy (--journal FILE) of a journal that is dead: who takes it on himself")
    resume.add_argument("--reason", default="", help="why, with --override")
    _common(resume)
    resume.set_defaults(run=run_resume)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--as", dest="by", default=getpass.getuser(), metavar="NAME", help="your name (default: login)")
    parser.add_argument("--journal", help="the journal: a file or postgresql://… (default: FAILOVER_JOURNAL, else in your state folder)")
    parser.add_argument("--plain", action="store_true", help="lines instead of the live view, as without a terminal")


def run_run(options: argparse.Namespace) -> int:
    """Plan, start and carry out."""
    from deployments.journal_location import open_journal
    from flows.clock import SystemClock
    from flows.events import Answer
    from flows.journal import SaidAboutGate
    from flows.runs import Request, start

    plan = planned(options, "live" if options.live else "drill" if options.drill else "dry-run")
    unknown = [gate for gate in options.approve if gate not in plan.gate_by_name]
    if unknown:
        print(f"--approve {unknown[0]}: there is no such gate; there are {', '.join(plan.gate_by_name) or 'none'}", file=sys.stderr)
        return Exit.invalid
    said = tuple(
        SaidAboutGate(gate=gate, answer=Answer.approve, by=options.by, reason=f"in advance: {options.reason}".rstrip(": "))
        for gate in options.approve
    )
    journal = open_journal(options.journal)
    request = Request(plan, options.by, "cli", options.reason, _impact(options.impact), said)
    return carry_out(start(journal, request, SystemClock()), journal, name=options.by, plain=options.plain)


def run_resume(options: argparse.Namespace) -> int:
    """Take an execution over and carry it on."""
    from deployments.journal_location import open_journal
    from deployments.people import find_execution
    from flows.clock import SystemClock
    from flows.runs import resume

    journal = open_journal(options.journal)
    execution = find_execution(journal, options.execution)
    if options.override is not None:
        return carry_out(_from_copy(journal, execution, options), journal, name=options.override, plain=options.plain)
    _demand_no_more_here(journal, execution)
    engine = resume(journal, execution, options.by, SystemClock())
    return carry_out(engine, journal, name=options.by, plain=options.plain)


def _from_copy(journal: Journal, execution: str, options: argparse.Namespace) -> Engine:
    """Break-glass: go on with the copy of a dead journal, after its last holder's lease."""
    from flows.break_glass import Named, Patience, go_on
    from flows.clock import SystemClock
    from flows.journal_sqlite import SqliteJournal
    from flows.runs import CannotResume

    if not isinstance(journal, SqliteJournal):
        raise CannotResume("--override goes on from a copy of the journal: name the file with --journal FILE")

    def tell(left: timedelta) -> None:
        print(f"waiting out the last holder's lease: {left.total_seconds():.0f} s", file=sys.stderr, flush=True)

    return go_on(journal, execution, Named(options.override, options.reason), SystemClock(), Patience(tell))


def _demand_no_more_here(journal: Journal, execution: str) -> None:
    """Must never happen: the journal goes on while this machine's copy of it knows more; raises CannotResume."""
    from deployments.journal_location import copy_file
    from flows.break_glass import went_on
    from flows.journal_sqlite import SqliteJournal
    from flows.runs import CannotResume

    path = copy_file(execution)
    if journal.copy_of is None and path.exists():
        copy = SqliteJournal(path)
        try:
            trouble = went_on(journal, execution, copy)
        finally:
            copy.close()
        if trouble:
            raise CannotResume(trouble)


def _impact(text: str | None) -> datetime | None:
    from datetime import datetime

    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        print(f"--impact {text}: write a time with its zone, such as 2026-01-31T03:04:05Z", file=sys.stderr)
        raise SystemExit(Exit.invalid)
    return when


def carry_out(
    engine: Engine,
    journal: Journal,
    *,
    name: str,
    plain: bool = False,
    facts: Callable[[], tuple[Fact, ...]] = tuple,
    watch: Callable[[queue.SimpleQueue[object]], None] | None = None,
) -> int:
    """Run an engine under the eyes of whoever started it; print and write the report; give the exit code.

    Ctrl-C and SIGTERM stop in good order; a second Ctrl-C leaves at once (the execution can be resumed).
    """
    from deployments.copies import keep_copies
    from flows.journal import JournalError

    trouble: list[BaseException] = []

    def go() -> None:
        try:
            engine.run()
        except BaseException as error:  # noqa: BLE001 - carried to the main thread
            trouble.append(error)

    notices: queue.SimpleQueue[object] = engine.subscribe()  # type: ignore[assignment]
    print(f"execution {engine.execution}, journal {journal.place}", flush=True)
    _on_signals(engine)
    copies = keep_copies(engine, journal)
    runner = threading.Thread(target=go, name="engine", daemon=True)
    runner.start()
    if watch is not None:
        watch(notices)
    elif not plain and sys.stdin.isatty() and sys.stdout.isatty() and engine.plan.mode.value != "dry-run":
        _show(engine, journal, name, notices)
    else:
        follow(notices)
    runner.join()
    copies.join()
    if copies.warning:
        print(copies.warning, file=sys.stderr)
    if trouble:
        error = trouble[0]
        if isinstance(error, JournalError):
            told = [f"{error}; so nothing more was done; `failover resume {engine.execution}` goes on"]
            print("\n".join(filter(None, [*told, copies.way_out(engine.execution)])), file=sys.stderr)
            return Exit.not_met
        raise error
    finish(engine, journal, facts())
    return exit_of(engine.state.verdict)


def _on_signals(engine: Engine) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    asked: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if asked and number == signal.SIGINT:
            os._exit(Exit.interrupted)
        asked.append(number)
        engine.stop("signal", f"{signal.Signals(number).name} received")

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _show(engine: Engine, journal: Journal, name: str, notices: queue.SimpleQueue[object]) -> None:
    from flows.clock import SystemClock
    from flows.terminal import Screen

    clock = SystemClock()

    def say(said: InboxEntry) -> None:
        journal.put(engine.execution, said, clock.now())

    Screen(engine, name, say, clock.now).show(notices)


def follow(notices: queue.SimpleQueue[object], until: Callable[[object], None] | None = None) -> None:
    """Print every event as a line, with the seconds since the start."""
    from flows.events import ExecutionStarted, Progress
    from flows.watching import line

    first = None
    while (notice := notices.get()) is not None:
        if until is not None:
            until(notice)
        if isinstance(notice, Progress | ExecutionStarted):
            continue
        text = line(notice)  # type: ignore[arg-type]
        at = notice.at  # type: ignore[attr-defined]
        first = first or at
        if text is not None:
            print(f"{at:%H:%M:%S} {(at - first).total_seconds():+8.2f} s  {text}", flush=True)


def finish(engine: Engine, journal: Journal, facts: tuple[Fact, ...] = ()) -> None:
    """Print the timeline and what it means, and write the report beside the journal."""
    from deployments.journal_location import beside
    from flows.anchors import anchor
    from flows.report import aligned, build, markdown, recovery_lines, timeline_rows, to_json

    events = [event for _, event in journal.read(engine.execution)]
    report = build(engine.execution, engine.plan, events, journal.place, facts, anchor=anchor(journal, engine.execution))
    print()
    print(f"{report.title} ({report.mode}): {report.verdict.upper()}" + (f" - {report.detail}" if report.detail else ""))
    print()
    print("\n".join(aligned(timeline_rows(report), _width())))
    if report.mode != "dry-run":
        print()
        print("\n".join(recovery_lines(report)))
    for fact in facts:
        print(f"{fact.name}: {fact.value}")
    print("\n".join([*report.unleased, f"anchor {report.anchor}"]))
    folder = beside(journal) / "reports"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for suffix, text in (("md", markdown(report)), ("json", to_json(report))):
        path = folder / f"{engine.execution}.{suffix}"
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        print(f"report {path}")
    if engine.state.verdict is None:
        print(f"interrupted; `failover resume {engine.execution}` goes on")


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((140, 24)).columns if sys.stdout.isatty() else 160


