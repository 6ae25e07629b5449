"""Break-glass: a named person goes on from the local copy of a journal that is dead, and brings the rows back later.

What must never happen, and where it is prevented:
- two engines of one execution at a time: `wait_out` waits until the last holder's lease and its longest call are over,
  and refuses while its process lives on this machine; `runs.resume` takes the copy's own leases after that
- a run that the kill switch stopped goes on because the switch is out of reach: `_demand_lifted`
- nobody knows who did it: `go_on` journals who and why before anything else, and `runs.resume` refuses a copy whose last
  event is not that
- two histories become one: `compare` tells a fork by the first row that differs, and `bring_back` then writes nothing
- an execution that went on here goes on there as well: `runs.resume` refuses one whose events hold an override
What it cannot prevent: a journal that is dead for us only, and an engine elsewhere that still reaches it and starts later.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from flows.acquiring import TargetBusy, where_is
from flows.clock import Clock
from flows.engine import KILL_SWITCH, Engine
from flows.events import ANY_EVENT, ExecutionStarted, Override, Resumed
from flows.holders import is_dead, lives_here, may_have_a_call_out
from flows.journal import Busy, Halted, Import, Journal, JournalError
from flows.journal_chain import Finding, Row, examine
from flows.journal_keys import KeyFile
from flows.journal_sqlite import SqliteJournal
from flows.lease_keeper import CALL, LEASE
from flows.runs import CannotResume, resume
from flows.state import ExecutionState, fold


@dataclass(frozen=True)
class Named:
    """Who takes it on himself, and why."""

    by: str
    reason: str


@dataclass(frozen=True)
class Patience:
    """How a wait is done: told to a person every second or so."""

    tell: Callable[[timedelta], None] = lambda _left: None
    sleep: Callable[[float], None] = time.sleep


def go_on(copy: SqliteJournal, execution: str, named: Named, clock: Clock, patience: Patience | None = None) -> Engine:
    """Take an execution over from the copy of its journal; journals the override first.

    Raises CannotResume, TargetBusy while the last holder lives, and JournalError when the copy is not what was written.
    """
    dead = copy.copy_of
    if dead is None:
        raise CannotResume(f"{copy.place} is a journal, not a copy of one; resume without --override")
    if not named.by.strip() or not named.reason.strip():
        raise CannotResume("going on without the journal needs a name and a reason: --override NAME --reason WHY")
    wrong = [one for one in examine(execution, copy.stored(execution), copy.vouched(execution), KeyFile().find) if not one.unchecked]
    if wrong:
        raise JournalError(f"journal copy {copy.place}: {wrong[0].text}, so nothing was done; use another copy, or `failover eject`")
    _demand_lifted(copy, fold(event for _, event in copy.read(execution)), execution)
    waited = wait_out(copy, execution, clock, patience or Patience())
    rows = copy.read(execution)
    if not rows:
        raise CannotResume(f"there is no execution {execution} in {copy.place}")
    last = rows[-1][0]
    said = Override(at=clock.now(), by=named.by, reason=named.reason, journal=dead, file=copy.place, host=platform.node(),
                    last=last, waited=waited.total_seconds())  # fmt: skip
    copy.append(execution, last, [said])
    copy.number_inbox_from(fold(event for _, event in rows).adopted)
    return resume(copy, execution, named.by, clock)


def _demand_lifted(copy: SqliteJournal, state: ExecutionState, execution: str) -> None:
    """Raise Halted when the last that the copy knows is that the kill switch stopped this run; somebody must lift it here."""
    stop = state.stop
    if stop is not None and stop.by == KILL_SWITCH and not copy.lifted_since(stop.at):
        raise Halted(
            f"execution {execution} was stopped by the kill switch ({stop.reason}), and whether it was lifted cannot be read; "
            f"when whoever turned it says so: `failover release --journal {copy.place} --reason WHY`"
        )


def wait_out(copy: SqliteJournal, execution: str, clock: Clock, patience: Patience) -> timedelta:
    """Wait until no call of the last holder can be under way any more; give how long that took.

    A holder that is dead for certain is waited for no longer than its last call while the lease that the copy knows
    lasts: nobody else can have it. After that, and for any other holder, somebody may have renewed or taken it behind the copy's back while the
    journal still lived: a whole lease and the longest call from now. Raises TargetBusy while the holder lives here.
    """
    begun = clock.now()
    end = max((_until(copy, execution, lease, begun) for lease in copy.leases()), default=begun)
    while clock.now() < end:
        patience.tell(end - clock.now())
        patience.sleep(min(1.0, max(0.0, (end - clock.now()).total_seconds())))
    return clock.now() - begun


def _until(copy: SqliteJournal, execution: str, lease: Busy, now: datetime) -> datetime:
    if lives_here(lease.holder):
        raise TargetBusy(lease, where_is(copy, execution))
    if is_dead(lease.holder) and lease.left > timedelta(0):
        return now + CALL if may_have_a_call_out(copy, lease.holder.execution) else now
    return now + LEASE + CALL


# -- the way back


class Relation(StrEnum):
    """How a copy's rows stand to the journal's."""

    same = "same"
    ahead = "ahead"
    """The copy went on."""
    behind = "behind"
    """The journal went on."""
    fork = "fork"
    """Both went on."""


@dataclass(frozen=True)
class Compared:
    """The relation, and the number of the first row that only one of them has, or that differs."""

    relation: Relation
    first: int


def compare(journal: Sequence[Row], copy: Sequence[Row]) -> Compared:
    """Which of the two went on; a fork as soon as one row of the same number differs."""
    for ours, theirs in zip(journal, copy, strict=False):
        if ours != theirs:
            return Compared(Relation.fork, min(ours.number, theirs.number))
    first = min(len(journal), len(copy)) + 1
    if len(journal) == len(copy):
        return Compared(Relation.same, first)
    return Compared(Relation.ahead if len(copy) > len(journal) else Relation.behind, first)


class Fork(JournalError):
    """The journal and the copy both went on: neither was changed."""


class Untrue(JournalError):
    """The copy's rows are not what was written; carries what is wrong."""

    def __init__(self, place: str, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__(f"journal copy {place}: {'; '.join(str(one) for one in findings)}; nothing was imported")


def bring_back(journal: Journal, copy: SqliteJournal, by: str, at: datetime) -> Mapping[str, Compared]:
    """Append what only the copy knows to the journal, as it is; give what each execution was like.

    All of the copy is checked before anything is written. Raises Untrue, and Fork with who wrote which side.
    """
    if copy.copy_of is None:
        raise JournalError(f"{copy.place}: is a journal, not a copy of one; nothing was imported")
    names = copy.names()
    for execution in names:
        findings = examine(execution, copy.stored(execution), copy.vouched(execution), KeyFile().find)
        if findings:
            raise Untrue(copy.place, findings)
    found = {}
    for execution in names:
        ours, theirs = journal.stored(execution), copy.stored(execution)
        found[execution] = compared = compare(ours, theirs)
        if compared.relation is Relation.fork:
            raise Fork(_told(execution, compared.first, (journal.place, ours), (copy.place, theirs)))
        if compared.relation is Relation.ahead:
            new = theirs[len(ours) :]
            journal.take_in(execution, len(ours), new, Import(execution, new[0].number, new[-1].number, copy.place, by, at))
    return found


def _told(execution: str, first: int, *sides: tuple[str, Sequence[Row]]) -> str:
    told = [f"execution {execution}: forked at event {first}; nothing was merged, both are as they were"]
    for place, rows in sides:
        new = [row for row in rows if row.number >= first]
        told.append(f"  {place}: {len(new)} event(s) of its own from {new[0].at:%Y-%m-%d %H:%M:%S} UTC, {_writers(rows, first)}")
    told.append("  compare them with `failover report` and `failover export`, each with its --journal")
    return "\n".join(told)


def _writers(rows: Sequence[Row], first: int) -> str:
    """Who wrote from there on: whoever had taken it over last, and all who did later."""
    before, later = "nobody", []
    for row in rows:
        event = ANY_EVENT.validate_json(row.body)
        match event:
            case ExecutionStarted():
                who = f"{event.initiator} on {event.host}"
            case Resumed() | Override():
                who = f"{event.by} on {event.host}"
            case _:
                continue
        if row.number < first:
            before = who
        else:
            later.append(who)
    return f"written by {', '.join(dict.fromkeys(later or [before]))}"


def went_on(journal: Journal, execution: str, copy: SqliteJournal) -> str:
    """Why the journal must not go on as long as this copy of it knows more; '' when it does not.

    The last events of a journal whose standby was promoted may be gone: the copy shows that, and an import heals it.
    """
    if copy.copy_of is None:
        return ""
    compared = compare(journal.stored(execution), copy.stored(execution))
    if compared.relation not in {Relation.ahead, Relation.fork}:
        return ""
    return (
        f"execution {execution}: {copy.place} holds events from {compared.first} on that {journal.place} does not; "
        f"`failover import {copy.place}` brings them back, or tells the fork"
    )
