"""What is kept beside a run, by threads of its own: the copy for hands, and this machine's copy of the journal.

And how a run goes on from that copy, by name, when the journal is dead.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployments.journal_location import beside, copy_file

if TYPE_CHECKING:
    from datetime import timedelta

    from flows.engine import Engine
    from flows.journal import Journal
    from flows.journal_copy import LocalCopy

PATIENCE = 5.0
"""Seconds that a copy may take to have the end of a run."""


@dataclass(frozen=True)
class Copies:
    """The two threads. A dry run changes nothing and has no copy of its journal; neither has a copy."""

    by_hand: threading.Thread
    journal: LocalCopy | None

    def join(self) -> None:
        """Wait until the end of the run is in them; each has PATIENCE, so that neither keeps the command for long."""
        if self.journal is not None:
            self.journal.join(PATIENCE)
        self.by_hand.join(PATIENCE)

    @property
    def warning(self) -> str:
        """What is wrong with the journal's copy, for people; '' when it is whole or there is none."""
        if self.journal is None or not (self.journal.trouble or self.journal.behind):
            return ""
        why = f": {self.journal.trouble}" if self.journal.trouble else ""
        return f"the copy of the journal on this machine is {self.journal.behind} event(s) behind{why}; the run does not depend on it"

    def way_out(self, execution: str) -> str:
        """What to do when the journal does not come back, for people: the exact command."""
        if self.journal is None or self.journal.trouble:
            return f"there is no copy to go on from ({self.journal.trouble})" if self.journal else ""
        behind = f", {self.journal.behind} event(s) behind" if self.journal.behind else ""
        return (
            f"if it does not come back: `failover resume {execution} --journal {self.journal.path} --override NAME --reason WHY` "
            f"goes on from this machine's copy (up to {self.journal.anchor}{behind}), without the journal's leases"
        )


def keep_copies(engine: Engine, journal: Journal) -> Copies:
    """Begin to keep them; call it before the engine runs."""
    from flows.anchors import anchor
    from flows.eject import foot, keep_copy
    from flows.journal_copy import LocalCopy

    changes = engine.plan.mode.value != "dry-run" and journal.copy_of is None
    copy = LocalCopy(engine, journal, copy_file(engine.execution)) if changes else None
    first = "" if copy else anchor(journal, engine.execution)
    by_hand = keep_copy(
        engine, beside(journal) / "eject" / f"{engine.execution}.txt",
        lambda: foot(journal.place, copy.anchor if copy else first),
        lambda: copy.join(PATIENCE) if copy else None,
    )  # fmt: skip
    return Copies(by_hand, copy)


def go_on_from_copy(journal: Journal, execution: str, by: str, reason: str) -> Engine:
    """Break-glass: go on with the copy of a dead journal, after its last holder's lease. Raises as flows.break_glass.go_on."""
    from flows.break_glass import Named, Patience, go_on
    from flows.clock import SystemClock
    from flows.journal_sqlite import SqliteJournal
    from flows.runs import CannotResume

    if not isinstance(journal, SqliteJournal):
        raise CannotResume("--override goes on from a copy of the journal: name the file with --journal FILE")

    def tell(left: timedelta) -> None:
        print(f"waiting out the last holder's lease: {left.total_seconds():.0f} s", file=sys.stderr, flush=True)

    return go_on(journal, execution, Named(by, reason), SystemClock(), Patience(tell))


def demand_no_more_here(journal: Journal, execution: str) -> None:
    """Must never happen: the journal goes on while this machine's copy of it knows more; raises CannotResume."""
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
