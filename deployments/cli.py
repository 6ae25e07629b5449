"""The `failover` command. Works without any Prefect server; imports little, because seconds count at 3 a.m."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

EPILOG = """exit codes: 0 the goal was met, 1 it was not, 2 invalid input, 3 refused, 4 busy (somebody else holds the target),
5 interrupted (failover resume goes on)"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from deployments import (
        auditing,
        authoring,
        demo,
        people,
        preflight,
        reporting,
        running,
        serve,
        showing,
        slack,
        switching,
    )
    from deployments.lab import cli as lab

    top = argparse.ArgumentParser(
        prog="failover", description="Failover runbooks: checked, gated, fenced, timed against the RTO.", epilog=EPILOG
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for module in (authoring, preflight, running, people, showing, reporting, auditing, switching, slack, serve, lab, demo):
        module.add_commands(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; give its exit code. Errors of people are said in one line each, on stderr."""
    from deployments.exits import Exit

    given = parser()
    options = given.parse_args(arguments)
    if options.version:
        from flows.runs import our_version

        print(f"failover {our_version()}")
        return Exit.met
    if options.command is None:
        given.print_help()
        return Exit.invalid
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return Exit.interrupted
    except BrokenPipeError:  # `failover list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.met
    except Exception as error:  # noqa: BLE001 - what is nobody's mistake is raised again
        return _explain(error)


def _explain(error: Exception) -> int:
    """Say what is wrong; a defect of ours keeps its traceback."""
    from deployments.exits import Exit
    from flows.acquiring import TargetBusy
    from flows.journal import Halted, JournalError
    from flows.runs import CannotResume
    from runbooks.problems import RunbookError

    match error:
        case RunbookError():
            code = Exit.invalid
        case CannotResume():
            code = Exit.invalid
        case TargetBusy():
            code = Exit.busy
        case Halted():
            code = Exit.refused
        case JournalError():
            code = Exit.not_met
        case _:
            raise error
    print(error, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
