"""`failover verify-journal`, `export` and `import`: is the record what was written, on paper for others, and whole again."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.exits import Exit

if TYPE_CHECKING:
    from flows.anchors import Anchor
    from flows.journal import Journal
    from flows.journal_chain import Finding, Row


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add verify-journal, export and import."""
    verify = commands.add_parser("verify-journal", help="find changed, removed, inserted or reordered events")
    verify.add_argument("execution", nargs="?", help="id or its beginning; all when missing")
    verify.add_argument("--anchor", action="append", default=[], metavar="TEXT", help="a head that was written down elsewhere, such as 7f3a12cd#42:9c1e0d52f7aa03b4")
    verify.add_argument("--file", type=Path, metavar="EXPORT", help="verify what `failover export` wrote, without any journal")
    verify.set_defaults(run=run_verify)
    export = commands.add_parser("export", help="an execution as one file for auditors")
    export.add_argument("execution", help="id or its beginning")
    export.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to (default: standard output)")
    export.set_defaults(run=run_export)
    bring = commands.add_parser("import", help="bring the events of a journal's copy back into the journal, to be read only")
    bring.add_argument("file", type=Path, metavar="FILE", help="the copy that went on")
    bring.add_argument("--as", dest="by", default=getpass.getuser(), metavar="NAME", help="your name (default: login)")
    bring.set_defaults(run=run_import)
    for parser in (verify, export, bring):
        parser.add_argument("--journal", help="the journal: a file or postgresql://… (default: FAILOVER_JOURNAL)")


def run_verify(options: argparse.Namespace) -> int:
    """Check the seals; exit 1 when something is wrong, 2 when nothing is but a key is not here."""
    from flows.anchors import anchors_in

    given: list[tuple[Anchor, str]] = []
    for text in options.anchor:
        found = anchors_in(text)
        if not found:
            print(f"--anchor {text}: is none; expected EXECUTION#NUMBER:SEAL, such as 7f3a12cd#42:9c1e0d52f7aa03b4", file=sys.stderr)
            return Exit.invalid
        given += [(one, "the anchor that you gave") for one in found]
    return _verify_file(options.file, given) if options.file else _verify_journal(options, given)


def _verify_file(path: Path, given: Sequence[tuple[Anchor, str]]) -> int:
    from flows.anchors import check
    from flows.export import read
    from flows.journal_keys import KeyFile

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        print(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'it is no text'})", file=sys.stderr)
        return Exit.invalid
    exported = read(text, KeyFile().find)
    findings = [*exported.findings, *check(given, exported.rows)]
    return _tell(findings, f"execution {exported.execution}, {len(exported.rows)} event(s) in {path}", len(given))


def _verify_journal(options: argparse.Namespace, given: list[tuple[Anchor, str]]) -> int:
    from deployments.journal_location import beside as folder_of
    from deployments.journal_location import open_journal
    from flows.anchors import beside, check
    from flows.journal_chain import examine
    from flows.journal_keys import KeyFile

    journal, keys = open_journal(options.journal), KeyFile()
    known = journal.names()
    kept = given + beside(folder_of(journal), journal.place, known)
    chosen = _chosen(known, options.execution, kept)
    findings: list[Finding] = []
    rows: list[Row] = []
    for execution in chosen:
        rows = journal.stored(execution)
        findings += examine(execution, rows, journal.vouched(execution), keys.find)
        findings += check([(one, where) for one, where in kept if one.execution == execution], rows)
        _tell_imports(journal, execution)
    used = sum(one.execution in chosen for one, _ in kept)
    return _tell(findings, f"{len(chosen)} execution(s) in {journal.place}", used)


def _chosen(known: Sequence[str], prefix: str | None, kept: Sequence[tuple[Anchor, str]]) -> list[str]:
    """What to check: all that the journal or an anchor knows, or those that begin so. Raises CannotResume."""
    from flows.runs import CannotResume

    names = list(dict.fromkeys([*known, *(one.execution for one, _ in kept)]))
    chosen = [name for name in names if name.startswith(prefix or "")]
    if prefix and len(chosen) != 1:
        raise CannotResume(f"no single execution starts with '{prefix}': {', '.join(chosen[:5]) or 'none'}")
    return chosen


def _tell_imports(journal: Journal, execution: str) -> None:
    for one in journal.imports(execution):
        print(f"{execution}: events {one.first} to {one.last} were imported from {one.source} by {one.by} at {one.at:%Y-%m-%d %H:%M:%S} UTC")


def _tell(findings: Sequence[Finding], what: str, anchors: int) -> int:
    for finding in findings:
        print(finding)
    wrong, unchecked = (sum(one.unchecked is flag for one in findings) for flag in (False, True))
    against = f", {anchors} anchor(s)" if anchors else ", no anchor: a cut-off end would not show"
    if wrong:
        print(f"{what}{against}: {wrong} problem(s)")
        return Exit.not_met
    if unchecked:
        print(f"{what}{against}: no problem, but not all could be checked: a key is not here (FAILOVER_JOURNAL_KEY_FILE)")
        return Exit.invalid
    print(f"{what}{against}: intact")
    return Exit.met


def run_export(options: argparse.Namespace) -> int:
    """Write the file, readable by its owner only."""
    from deployments.journal_location import open_journal
    from deployments.people import find_execution
    from flows.export import export
    from flows.journal_keys import KeyFile

    journal = open_journal(options.journal)
    text = export(journal, find_execution(journal, options.execution), KeyFile().find)
    if options.output is None:
        print(text, end="")
        return Exit.met
    try:
        with os.fdopen(os.open(options.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        print(f"{options.output}: cannot be written ({error.strerror})", file=sys.stderr)
        return Exit.invalid
    print(f"{options.output}: {text.count(chr(10))} lines; `failover verify-journal --file {options.output}` checks it")
    return Exit.met


def run_import(options: argparse.Namespace) -> int:
    """Bring a copy's events back; exit 3 at a fork, 1 when the copy is not what was written. Neither writes anything."""
    from deployments.journal_location import open_journal
    from flows.break_glass import Fork, bring_back
    from flows.journal_sqlite import SqliteJournal

    if not options.file.is_file():
        print(f"{options.file}: there is no such file; expected a journal's copy (copies/EXECUTION.db in the state folder)", file=sys.stderr)
        return Exit.invalid
    journal, copy = open_journal(options.journal), SqliteJournal(options.file.absolute())
    try:
        for execution, compared in bring_back(journal, copy, options.by, datetime.now(UTC)).items():
            print(f"{execution}: {_SAID[compared.relation.value].format(first=compared.first)}")
    except Fork as error:
        print(error, file=sys.stderr)
        return Exit.refused
    return Exit.met


_SAID = {
    "same": "the journal holds every event of the copy already",
    "ahead": "imported from event {first} on, to be read only when it went on by an override",
    "behind": "the journal went on from event {first}; the copy holds nothing that it does not",
}
