"""`failover halt` and `release`: the kill switch, kept in the journal and seen by every engine that uses it."""

from __future__ import annotations

import argparse
import getpass
from datetime import UTC, datetime


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add halt and release."""
    for word, text in (("halt", "kill switch: no change starts any more, of any execution"),
                       ("release", "lift the kill switch")):  # fmt: skip
        parser = commands.add_parser(word, help=text)
        parser.add_argument("--target", default=None, help="only this target, as `failover status` and leases name it")
        parser.add_argument("--reason", required=True, help="why")
        parser.add_argument("--as", dest="by", default=getpass.getuser(), metavar="NAME", help="your name (default: login)")
        parser.add_argument("--journal", help="the journal: a file or postgresql://… (default: FAILOVER_JOURNAL)")
        parser.set_defaults(run=run_switch, word=word)


def run_switch(options: argparse.Namespace) -> int:
    """Turn the switch and say what is halted now."""
    from deployments.exits import Exit
    from deployments.journal_location import open_journal
    from flows.journal import EVERYTHING

    journal = open_journal(options.journal)
    journal.switch(options.target or EVERYTHING, options.by, options.reason, datetime.now(UTC), on=options.word == "halt")
    halts = journal.halts()
    for halt in halts:
        print(halt)
    if not halts:
        print("nothing is halted; interrupted executions go on with `failover resume`")
    return Exit.met
