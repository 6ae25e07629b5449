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
from deployments.people import add_accept_loss

if TYPE_CHECKING:
    from datetime import datetime

    from flows.engine import Engine
    from flows.journal import InboxEntry, Journal
    from flows.report_parts import Fact


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
    run.add_argument("--force", action="store_true", help="go on although the preflight finds problems; needs --reason")
    add_accept_loss(run)
    _common(run)
    run.set_defaults(run=run_run)
    resume = commands.add_parser("resume", help="go on with an execution that was interrupted, failed or was refused")
    resume.add_argument("execution", help="id of the execution, or its beginning")
    resume.add_argument("--override", metavar="NAME", help="go on from a copy (--journal FILE) of a journal that is dead: who takes it on himself")
    resume.add_argument("--force", action="store_true", help="as for run: go on although the preflight finds problems")
    resume.add_argument("--reason", default="", help="why, with --override and --force")
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
    from flows.history import learn_aside
    from flows.journal import SaidAboutGate
    from flows.runs import Request, start

    plan = planned(options, "live" if options.live else "drill" if options.drill else "dry-run")
    unknown = [gate for gate in options.approve if gate not in plan.gate_by_name]
    if unknown:
        print(f"--approve {unknown[0]}: there is no such gate; there are {', '.join(plan.gate_by_name) or 'none'}", file=sys.stderr)
        return Exit.invalid
    reason = f"in advance: {options.reason}".rstrip(": ")
    said: tuple[InboxEntry, ...] = tuple(
        SaidAboutGate(gate=gate, answer=Answer.approve, by=options.by, reason=reason, accepts_loss=options.accept_loss)
        for gate in options.approve
    )
    if _lacks_reason(options):
        return Exit.invalid
    said += _forced(options, options.by)
    journal = open_journal(options.journal)
    request = Request(plan, options.by, "cli", options.reason, _impact(options.impact), said)
    engine = start(journal, request, SystemClock(), tell=_tell)
    learn_aside(engine, lambda: open_journal(options.journal))
    return carry_out(engine, journal, name=options.by, plain=options.plain)


def run_resume(options: argparse.Namespace) -> int:
    """Take an execution over and carry it on; with --override from the copy of a journal that is dead."""
    from deployments.copies import demand_no_more_here, go_on_from_copy
    from deployments.journal_location import open_journal
    from deployments.people import find_execution
    from flows.clock import SystemClock
    from flows.history import learn_aside
    from flows.runs import resume

    if _lacks_reason(options):
        return Exit.invalid
    journal = open_journal(options.journal)
    execution = find_execution(journal, options.execution)
    by = options.by if options.override is None else options.override
    if options.override is None:
        demand_no_more_here(journal, execution)
        engine = resume(journal, execution, by, SystemClock(), tell=_tell)
    else:
        engine = go_on_from_copy(journal, execution, by, options.reason)
    for entry in _forced(options, by):
        journal.put(engine.execution, entry, SystemClock().now())
    learn_aside(engine, lambda: open_journal(options.journal))
    return carry_out(engine, journal, name=by, plain=options.plain)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _lacks_reason(options: argparse.Namespace) -> bool:
    if options.force and not options.reason.strip():
        print("--force goes on although something that a step needs is not there; say why with --reason", file=sys.stderr)
        return True
    return False


def _forced(options: argparse.Namespace, by: str) -> tuple[InboxEntry, ...]:
    """`--force` is an approval of the preflight's gate, given in advance and on the record."""
    from flows.events import Answer
    from flows.journal import SaidAboutGate
    from runbooks.plan import PREFLIGHT

    if not options.force:
        return ()
    return (SaidAboutGate(gate=PREFLIGHT, answer=Answer.approve, by=by, reason=f"forced: {options.reason}"),)


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
    from flows.stopping import heard

    print(f"execution {engine.execution}, journal {journal.place}", flush=True)
    with heard(_on_stop(engine)):
        return _carry_out(engine, journal, name=name, plain=plain, facts=facts, watch=watch)


def _carry_out(
    engine: Engine,
    journal: Journal,
    *,
    name: str,
    plain: bool,
    facts: Callable[[], tuple[Fact, ...]],
    watch: Callable[[queue.SimpleQueue[object]], None] | None,
) -> int:
    from deployments.copies import keep_copies
    from deployments.slack import tell_slack
    from flows.journal import JournalError

    trouble: list[BaseException] = []

    def go() -> None:
        try:
            engine.run()
        except BaseException as error:  # noqa: BLE001 - carried to the main thread
            trouble.append(error)

    notices: queue.SimpleQueue[object] = engine.subscribe()  # type: ignore[assignment]
    copies = keep_copies(engine, journal)
    telling = tell_slack(engine, journal)
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
        if telling is not None:
            telling.last_words()
        error = trouble[0]
        if isinstance(error, JournalError):
            told = [f"{error}; so nothing more was done; `failover resume {engine.execution}` goes on"]
            print("\n".join(filter(None, [*told, copies.way_out(engine.execution)])), file=sys.stderr)
            return Exit.not_met
        raise error
    finish(engine, journal, facts())
    if telling is not None:
        telling.last_words()
    return exit_of(engine.state.verdict)


def _on_stop(engine: Engine) -> Callable[[signal.Signals], None]:
    asked: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if asked and number == signal.SIGINT:
            os._exit(Exit.interrupted)
        asked.append(number)
        engine.stop("signal", f"{number.name} received")

    return stop


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
    """Print the timeline and what it means, and write the report beside the journal in every format."""
    from deployments.reporting import leave
    from flows.report import build, read_source
    from flows.report_text import aligned, loss_lines, recovery_lines, timeline_rows

    report = build(read_source(journal, engine.execution, engine.plan), facts)
    print()
    print(f"{report.title} ({report.mode}): {report.verdict.upper()}" + (f" - {report.detail}" if report.detail else ""))
    print()
    print("\n".join(aligned(timeline_rows(report), _width())))
    if report.mode != "dry-run":
        print()
        print("\n".join([*recovery_lines(report), *loss_lines(report)]))
    for fact in facts:
        print(f"{fact.name}: {fact.value}")
    print("\n".join([*report.unleased, f"anchor {report.seal.anchor}"]))
    try:
        for path in leave(report, journal):
            print(f"report {path}")
    except OSError as error:  # a full disk changes nothing about what was done: the journal has it
        print(f"report: cannot be written ({error}); `failover report {engine.execution}` makes it again", file=sys.stderr)
    if engine.state.verdict is None:
        print(f"interrupted; `failover resume {engine.execution}` goes on")


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((140, 24)).columns if sys.stdout.isatty() else 160


