"""What goes between the scheduler's pure core and the world: messages in, commands out. All frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from flows.events import Checked, Event, HistoryLearned
from flows.journal import Received
from tasks.contract import Loss, Mark, Seen, Steady


@dataclass(frozen=True)
class Failure:
    """Why a call did not do what it should. ours: a defect of this program."""

    reason: str
    code: str = ""
    retry: bool = False
    ours: bool = False


@dataclass(frozen=True)
class Look:
    """What one look at a step's world told; everything that needs the action was asked on the worker."""

    state: BaseModel
    done: bool
    explain: str
    underway: bool = False
    refuse: str | None = None
    describe: str = ""
    retreats: bool = False
    ends: str | None = None
    target: str = ""
    steady: Steady = field(default_factory=Steady)
    marks: Mapping[Mark, datetime | None] = field(default_factory=dict)
    loss: Loss | None = None


@dataclass(frozen=True)
class Saw:
    """A look came back."""

    at: datetime
    step: str
    attempt: int
    look: Look | Failure


@dataclass(frozen=True)
class ActReturned:
    """The call of an act came back, in good order or not."""

    at: datetime
    step: str
    attempt: int
    failure: Failure | None = None


@dataclass(frozen=True)
class UndoReturned:
    """The call of an undo came back."""

    at: datetime
    step: str
    failure: Failure | None = None


@dataclass(frozen=True)
class Letter:
    """Something new in the inbox."""

    at: datetime
    received: Received


@dataclass(frozen=True)
class Stop:
    """Ctrl-C, SIGTERM, the UI's Cancel, or a lost lease: start nothing more, finish recording."""

    at: datetime
    by: str
    reason: str


@dataclass(frozen=True)
class Looked:
    """The preflight came back."""

    at: datetime
    checks: tuple[Checked, ...]
    seconds: float


@dataclass(frozen=True)
class Learn:
    """What earlier executions tell the forecast was read."""

    at: datetime
    learned: HistoryLearned


@dataclass(frozen=True)
class Tick:
    """Time went on."""

    at: datetime


Message = Saw | ActReturned | UndoReturned | Letter | Stop | Looked | Learn | Tick


@dataclass(frozen=True)
class Write:
    """Make this event durable before anything that comes after it in the same turn."""

    event: Event


@dataclass(frozen=True)
class DoLook:
    """Observe a step's world; `earlier` is what was seen before, for states that hold a history."""

    step: str
    attempt: int
    earlier: Seen[Any] | None
    acted: bool
    """Whether this execution announced an act before: then a done state may be its own work."""


@dataclass(frozen=True)
class DoAct:
    """Start the change from this state."""

    step: str
    attempt: int
    before: BaseModel


@dataclass(frozen=True)
class DoUndo:
    """Bring the journaled state before a change back."""

    step: str
    before: Mapping[str, Any]


UNDO = 0
"""The number of a step's undo, where attempts are numbered from 1."""


@dataclass(frozen=True)
class Revoke:
    """Let no further call of this attempt, or of the undo, out, and forget it."""

    step: str
    attempt: int
    reason: str


@dataclass(frozen=True)
class DoPreflight:
    """Look, within 5 s in all, at what the changes will need."""


Command = Write | DoLook | DoAct | DoUndo | Revoke | DoPreflight
