"""Reports as files: `failover report`, and what a run leaves beside its journal at the end."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.exits import Exit

if TYPE_CHECKING:
    from flows.engine import Engine
    from flows.journal import Journal
    from flows.report_parts import Report

FORMATS = ("md", "json", "html", "png")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add report."""
    report = commands.add_parser("report", help="the report of an execution, as it is so far")
    report.add_argument("execution", nargs="?", help="id or its beginning; the newest when missing")
    report.add_argument("--format", choices=(*FORMATS, "all"), default="md", help="all: one file each, beside the journal or at PATH")
    report.add_argument("-o", "--output", metavar="PATH", help="write there instead of printing; a folder with --format all")
    report.add_argument("--journal", help="the journal: a file or postgresql://… (default: FAILOVER_JOURNAL)")
    report.set_defaults(run=run_report)


def run_report(options: argparse.Namespace) -> int:
    """Print the report of an execution, or write it to files."""
    from deployments.journal_location import beside, open_journal
    from deployments.people import find_execution
    from flows.report import build, read_source
    from flows.runs import replan
    from flows.state import fold

    journal = open_journal(options.journal)
    execution = find_execution(journal, options.execution)
    plan = replan(fold(event for _, event in journal.read(execution)))
    report = build(read_source(journal, execution, plan))
    if options.format == "all":
        folder = Path(options.output) if options.output else beside(journal) / "reports"
        return _say(lambda: write_all(report, folder))
    made = render(report, options.format)
    if options.output:
        return _say(lambda: [write(Path(options.output), made)])
    if options.format == "png" and sys.stdout.isatty():
        print("a picture is nothing for a terminal; write it with -o FILE.png", file=sys.stderr)
        return Exit.invalid
    sys.stdout.buffer.write(made if made.endswith(b"\n") or options.format == "png" else made + b"\n")
    sys.stdout.buffer.flush()
    return Exit.met


def _say(work: Callable[[], list[Path]]) -> int:
    """Do the writing, and name every file; a place that cannot be written is said in one line."""
    try:
        for path in work():
            print(f"report {path}")
    except OSError as error:
        print(f"-o {error.filename}: cannot be written ({error.strerror})", file=sys.stderr)
        return Exit.invalid
    return Exit.met


def render(report: Report, form: str) -> bytes:
    """A report in one format. Everything is made from the same frozen report."""
    if form == "png":
        from flows.report_gantt import picture
        from flows.report_png import png

        return png(picture(report))
    if form == "html":
        from flows.report_html import html

        return html(report).encode()
    from flows.report_text import markdown, to_json

    return (to_json(report) if form == "json" else markdown(report)).encode()


def write_all(report: Report, folder: Path) -> list[Path]:
    """Write every format into a folder, named after the execution; give the files."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return [write(folder / f"{report.execution}.{form}", render(report, form)) for form in FORMATS]


def write(path: Path, made: bytes) -> Path:
    """Replace a file in one move, readable by its owner only: a report names people and machines."""
    fresh = path.with_name(f"{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(made)
    fresh.replace(path)
    return path


def leave(report: Report, journal: Journal) -> list[Path]:
    """Write every format beside the journal, at the end of a run."""
    from deployments.journal_location import beside

    return write_all(report, beside(journal) / "reports")


def leave_at_end(engine: Engine, open_journal: Callable[[], Journal]) -> threading.Thread:
    """Write every format beside the journal when an engine ends; on a thread and a connection of its own, best effort."""
    from flows.journal import JournalError

    notices = engine.subscribe()

    def go() -> None:
        from flows.report import build, read_source

        while notices.get() is not None:
            pass
        with suppress(JournalError, OSError), closing(open_journal()) as journal:  # `failover report` makes it again
            leave(build(read_source(journal, engine.execution, engine.plan)), journal)

    thread = threading.Thread(target=go, name="report", daemon=True)
    thread.start()
    return thread
