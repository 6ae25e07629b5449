"""The journal's port: the append-only record of executions, the inbox through which people speak, and the leases.

Promises that every implementation keeps, and one suite tests:
- `append` returns only when the events are durable, and appends all of them or none.
- Only one process appends to an execution: sequence numbers are claimed, and a second writer gets `Conflict`.
- An event that announces an act is appended only in a transaction that finds the leases still held (`LeaseLost`).
- Nothing is ever changed or removed; each row is sealed over the row before it (flows/journal_chain.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from flows.events import ANY_EVENT, Answer, Choice, Event, ExecutionFinished, ExecutionStarted, Verdict
from flows.journal_chain import Key, Row, Vouch
from flows.journal_keys import KeyFile, KeyTrouble
from flows.journal_past import Past
from runbooks.model import Mode
from tasks.contract import Duration


class JournalError(Exception):
    """The journal cannot be read or written; says where and why."""


class InDoubt(JournalError):
    """No answer came to a commit: what was to be written may be there."""


class Conflict(JournalError):
    """Somebody else appended to this execution: it is theirs now, and this process must stop."""


class Unreadable(JournalError):
    """An event that this version does not know: a newer one wrote it, or it is damaged."""


class LeaseLost(JournalError):
    """A lease that an act needs is not held any more."""


class KeyMissing(JournalError):
    """The key that seals rows cannot be had, so nothing is written: an unsealed row could be anybody's."""


class Halted(JournalError):
    """The kill switch is on for this target, or for everything: no change may start."""


class Said(BaseModel):
    """Base of what people put into the inbox."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    by: str
    how: str = "self-declared"
    reason: str = ""


class SaidAboutGate(Said):
    """An approval or a refusal."""

    kind: Literal["gate"] = "gate"
    gate: str
    answer: Answer
    accepts_loss: Duration | None = None


class SaidAboutFailure(Said):
    """What to do about a failed step."""

    kind: Literal["failure"] = "failure"
    step: str
    choice: Choice


class SaidOverride(Said):
    """One of two people who let the run pass a fence that does not hold; `failover override` alone says so."""

    kind: Literal["override"] = "override"
    step: str


class SaidStop(Said):
    """Stop in good order."""

    kind: Literal["stop"] = "stop"


class SaidMakeWay(Said):
    """A live run needs what a drill holds: `reason` says what, `holder` which process of it; nobody else obeys."""

    kind: Literal["make-way"] = "make-way"
    holder: str


class SaidNote(Said):
    """A note for the record; `reason` is its text."""

    kind: Literal["note"] = "note"


InboxEntry = SaidAboutGate | SaidAboutFailure | SaidOverride | SaidStop | SaidMakeWay | SaidNote
ANY_ENTRY: TypeAdapter[InboxEntry] = TypeAdapter(Annotated[InboxEntry, Field(discriminator="kind")])


def read_entry(body: str) -> InboxEntry:
    """An entry of the inbox; what a newer version put there is a note that says so, lest nobody ever gets past it."""
    try:
        return ANY_ENTRY.validate_json(body)
    except ValidationError:
        return SaidNote(by="unknown", reason=f"this version cannot read what was said: {body[:200]}")


@dataclass(frozen=True)
class Received:
    """An inbox entry with its number and the time it was put there."""

    number: int
    at: datetime
    said: InboxEntry


@dataclass(frozen=True)
class Holder:
    """A process that holds leases: the execution it runs, and enough to tell whether it still lives."""

    execution: str
    name: str
    """Unique per process and execution."""
    host: str
    pid: int
    boot: str


@dataclass(frozen=True)
class Held:
    """Leases that were acquired: target → token."""

    tokens: Mapping[str, int]
    until: datetime
    """By the clock that leases go by; it may be the database's."""


@dataclass(frozen=True)
class Busy:
    """A target that somebody else holds, since when and for how much longer at least."""

    target: str
    holder: Holder
    since: datetime
    ends: str
    """Its end in the journal's own words: another one after a renewal, and only then, however long the question took."""
    left: timedelta
    """How much longer it lasts unless it is renewed; true on every machine."""


EVERYTHING = "*"
"""The kill switch's target that stands for all."""


@dataclass(frozen=True)
class Halt:
    """The kill switch is on: for a target as leases name it, or for EVERYTHING; by whom, why, since when."""

    target: str
    by: str
    reason: str
    at: datetime

    def __str__(self) -> str:
        """One line for people."""
        what = "everything" if self.target == EVERYTHING else self.target
        return f"{what} is halted by {self.by} since {self.at:%Y-%m-%d %H:%M:%S} UTC: {self.reason}"


@dataclass(frozen=True)
class Summary:
    """One line of the list of executions."""

    execution: str
    runbook: str
    mode: Mode
    started: datetime
    last: datetime
    verdict: Verdict | None


@dataclass(frozen=True)
class Import:
    """Rows `first` to `last` of an execution came from a copy: which one, by whom, when."""

    execution: str
    first: int
    last: int
    source: str
    by: str
    at: datetime


class Journal(Protocol):
    """See the module's promises. Times are UTC; every method may raise JournalError.

    now: the caller's time. A journal on one machine takes leases by it; one that several machines share goes by its own
    clock instead, because theirs differ.
    """

    @property
    def place(self) -> str:
        """Where it is, for people; without secrets."""
        ...

    def free_bytes(self) -> int | None:
        """Room that is left where it writes; None where that cannot be told."""
        ...

    @property
    def copy_of(self) -> str | None:
        """The place of the journal that this is a local copy of; None for a journal in its own right."""
        ...

    def append(self, execution: str, after: int, events: Sequence[Event], lease: Holder | None = None) -> int:
        """Append events behind row number `after`; give the new last number.

        lease: when given, every lease of this holder must still be its own, and the kill switch off for all of its
        targets, in the same transaction; else LeaseLost or Halted, and nothing is appended.
        """
        ...

    def read(self, execution: str, after: int = 0) -> list[tuple[int, Event]]:
        """Events with their numbers, in order."""
        ...

    def executions(self, limit: int = 100) -> list[Summary]:
        """Newest first."""
        ...

    def past(self, runbook: str, limit: int = 50) -> list[Past]:
        """What the newest executions of a runbook tell about its times, newest first; dry runs left out.

        One query, bounded: it looks at the newest 1000 executions of any runbook and gives at most 20 000 events.
        """
        ...

    def find(self, prefix: str) -> list[str]:
        """Executions whose id starts so."""
        ...

    def put(self, execution: str, said: InboxEntry, at: datetime) -> int:
        """Put something into an execution's inbox; give its number."""
        ...

    def inbox(self, execution: str, after: int = 0) -> list[Received]:
        """What was put there, in order."""
        ...

    def acquire(self, targets: Iterable[str], holder: Holder, ttl: timedelta, now: datetime) -> Held | Busy:
        """Take all of the targets' leases or none. One's own are renewed; tokens grow with every change of holder."""
        ...

    def renew(self, holder: Holder, ttl: timedelta, now: datetime) -> datetime:
        """Extend all leases of the holder; give until when. Raises LeaseLost when one is gone."""
        ...

    def release(self, holder: Holder, now: datetime) -> None:
        """Give all leases of the holder back; tokens stay."""
        ...

    def break_lease(self, holder: Holder, now: datetime) -> None:
        """End the leases of a holder that is known to be dead."""
        ...

    def switch(self, target: str, by: str, reason: str, at: datetime, *, on: bool) -> None:
        """Turn the kill switch on or off for a target or for EVERYTHING; the history stays."""
        ...

    def halts(self) -> list[Halt]:
        """What is halted now."""
        ...

    def verify(self, execution: str) -> list[str]:
        """What is wrong with an execution's rows, or cannot be checked; empty when intact."""
        ...

    def stored(self, execution: str) -> list[Row]:
        """An execution's rows as they are stored, in order; reads nothing into them."""
        ...

    def head(self, execution: str) -> Row | None:
        """The last row of an execution."""
        ...

    def vouched(self, execution: str) -> Vouch | None:
        """What vouches for rows without macs, from when the journal was migrated."""
        ...

    def names(self) -> list[str]:
        """Every execution that has any row, whatever it is like."""
        ...

    def take_in(self, execution: str, after: int, rows: Sequence[Row], imported: Import) -> None:
        """Append rows that were written elsewhere, as they are, and remember where from. Raises Conflict."""
        ...

    def imports(self, execution: str) -> list[Import]:
        """What was taken in for an execution, in order."""
        ...

    def reading(self) -> AbstractContextManager[Journal]:
        """The same journal for a thread that only reads, and must hold up nobody who writes here."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


def demand_lease(holder: Holder, leases: Iterable[tuple[str, datetime]], now: datetime) -> list[str]:
    """The targets of a holder's leases, given as (target, until); raises LeaseLost when there are none, or one ended."""
    leases = list(leases)
    if not leases:
        raise LeaseLost(f"execution {holder.execution}: holds no lease any more")
    late = [target for target, until in leases if until <= now]
    if late:
        raise LeaseLost(f"execution {holder.execution}: the lease on {late[0]} has expired")
    return [target for target, _ in leases]


def demand_no_halt(targets: Iterable[str], halts: Iterable[Halt]) -> None:
    """Raise Halted when the kill switch is on for one of the targets, or for everything."""
    on = {halt.target: halt for halt in halts}
    for name in (EVERYTHING, *targets):
        if name in on:
            raise Halted(str(on[name]))


def read_event(execution: str, number: int, body: str) -> Event:
    """An event from its row's body; raises Unreadable."""
    try:
        return ANY_EVENT.validate_json(body)
    except ValidationError:
        said = f"execution {execution}: event {number} cannot be read by this version; a newer one wrote it, or it is damaged"
        raise Unreadable(f"{said} (`failover verify-journal` tells)") from None


def summary(execution: str, first: str, last: str) -> Summary | None:
    """The line of an execution, from the bodies of its first and its last event; None where the first is not readable.

    A last one that only a newer version knows tells no verdict, and its time all the same.
    """
    try:
        started = read_event(execution, 1, first)
    except Unreadable:
        return None
    if not isinstance(started, ExecutionStarted):
        raise JournalError(f"execution {execution}: its first event is '{started.kind}', not its start")
    verdict, at = None, started.at
    try:
        latest = ANY_EVENT.validate_json(last)
        verdict, at = latest.verdict if isinstance(latest, ExecutionFinished) else None, latest.at
    except ValidationError:
        with suppress(ValueError, KeyError, TypeError):
            at = datetime.fromisoformat(json.loads(last)["at"])
    return Summary(execution, started.runbook, Mode(started.mode), started.at, at, verdict)


def sealing(keys: KeyFile, known: Callable[[], str | None]) -> Key:
    """The key that seals rows; raises KeyMissing.

    Must never happen: a row is written unsealed because the key is away. It is refused like an unreadable journal.
    """
    try:
        return keys.current(known)
    except KeyTrouble as error:
        raise KeyMissing(f"{error}; nothing was written") from None
