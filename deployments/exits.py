"""Exit codes of the `failover` command; documented in docs/command.md and tested."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.events import Verdict


class Exit(IntEnum):
    """What a caller can tell from the exit code alone."""

    met = 0
    """The goal was met: recovered, nothing had to be done, or a dry run that could run."""
    not_met = 1
    """It was not; the report says why."""
    invalid = 2
    """The runbook, the inputs or the command line are wrong; nothing was started."""
    refused = 3
    """People said no or nothing, or acting was not safe."""
    busy = 4
    """Somebody else holds a target."""
    interrupted = 5
    """Stopped in good order; `failover resume` goes on."""


def exit_of(verdict: Verdict | None) -> Exit:
    """The exit code of an execution; without a verdict it was interrupted."""
    from flows.events import Verdict  # not above: `--help` and `check` need no event

    return {
        None: Exit.interrupted,
        Verdict.recovered: Exit.met,
        Verdict.no_action: Exit.met,
        Verdict.would: Exit.met,
        Verdict.failed: Exit.not_met,
        Verdict.rolled_back: Exit.not_met,
        Verdict.refused: Exit.refused,
    }[verdict]
