"""The contract that every action keeps, and the errors that may leave one.

An action looks (`observe`), decides purely (`done`, `underway`) and starts (`act`); it never waits and never keeps
time. The engine calls it again and again and alone decides when, how often and whether.

    ActionFailed     the world said no, or could not be asked; carries the provider's code and whether a retry may help
    RunbookError     the file is wrong (runbooks.problems)
    Revoked          the attempt was taken back (timed out, halted, lease lost): no call of it leaves any more
    anything else    a defect of ours, shown as one
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast, get_args

from pydantic import BaseModel

from tasks.clients import Clients
from tasks.errors import ActionFailed, Revoked
from tasks.lost import Lost
from tasks.models import WHICH_FIELDS, Duration, Frozen, JsonSchemas, which_fields

__all__ = [
    "WHICH_FIELDS",
    "Action",
    "ActionFailed",
    "Change",
    "Duration",
    "Frozen",
    "JsonSchemas",
    "Loss",
    "Lost",
    "Mark",
    "Need",
    "Plane",
    "Probe",
    "Revoked",
    "Seen",
    "Steady",
    "which_fields",
]


class Mark(StrEnum):
    """The points of the RTO clock that an action can know."""

    impact = "impact"
    detected = "detected"
    declared = "declared"


class Plane(StrEnum):
    """What a change leans on: a provider's control plane may be down when its region is."""

    data = "data"
    control = "control"


class Loss(Frozen):
    """What customers were told is safe and a step, done now, would lose: a range in seconds, because nobody can know it.

    at_least: known to be missing. at_most: may have been acknowledged and is not here; None: not known, so any amount.
    grows: the old side may still acknowledge, so every second that passes is added to `at_most`.
    """

    at_least: float = 0.0
    at_most: float | None = None
    grows: bool = True


@dataclass(frozen=True)
class Steady:
    """How long `done` must hold before the engine believes it: so many looks in a row, and for so long."""

    times: int = 1
    lasting: timedelta = timedelta(0)


class Need(Frozen):
    """One thing that a step will need, looked at before the first change."""

    what: str
    """In words that stay the same from look to look: 'max size of checkout-west'."""
    found: str
    """What is so: '6, wanted 3'."""
    problem: bool = False
    """Whether the step could not succeed as things are."""
    advice: str = ""
    """What to do about a problem, or what is worth knowing although it is none."""
    clock: datetime | None = None
    """For a need that is a clock: what it said, in UTC; the engine compares it with its own and judges."""


StateT = TypeVar("StateT", bound=BaseModel)


@dataclass(frozen=True)
class Seen(Generic[StateT]):
    """One observation with the time (UTC) at which it was complete; stamped by the engine."""

    state: StateT
    at: datetime


class Action(Frozen, ABC, Generic[StateT]):
    """One kind of step: its fields are the step's inputs, its `State` is the step's output.

    Subclass `Probe` or `Change` with the state as parameter: `class Promote(Change[Promotion])`, and give `name`.
    """

    name: ClassVar[str]
    """As runbooks say it in `uses`, such as 'postgres.promote'."""
    summary: ClassVar[str] = ""
    """First line of the docstring unless set."""
    budget: ClassVar[timedelta] = timedelta(seconds=30)
    """Share of the RTO when the runbook names none."""
    interval: ClassVar[timedelta] = timedelta(milliseconds=200)
    """Pause between two looks."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Heavy modules that a call will import; the engine may import them beforehand."""

    @classmethod
    def state_type(cls) -> type[BaseModel]:
        """The model of this action's output, from the class's own type parameter."""
        for base in cls.__mro__:
            metadata = getattr(base, "__pydantic_generic_metadata__", None)
            if metadata and metadata["args"] and isinstance(metadata["args"][0], type):
                return cast("type[BaseModel]", metadata["args"][0])
        raise TypeError(f"{cls.__name__} names no state; write class {cls.__name__}(Probe[State])")

    @abstractmethod
    def observe(self, clients: Clients) -> StateT:
        """Read the world and leave nothing behind. Raises ActionFailed where it could not ask."""

    @abstractmethod
    def done(self, state: StateT) -> bool:
        """Tell, purely, whether the world is as this step wants it."""

    def fold(self, earlier: Seen[StateT] | None, now: Seen[StateT]) -> StateT:
        """Pure: join what was seen before with what is seen now, for states that hold a history ('since when')."""
        return now.state

    def explain(self, state: StateT) -> str:
        """Pure: one line for people: what was last seen ('in recovery, replaying 0/3000A28')."""
        return ", ".join(f"{key} {value}" for key, value in state.model_dump(mode="json").items() if value is not None)[
            :300
        ]

    @property
    def steady(self) -> Steady:
        """How long `done` must hold before the step is believed."""
        return Steady()

    @property
    def shortest(self) -> timedelta:
        """Pure: it cannot be done sooner than this (phases that are held); the plan refuses a shorter timeout."""
        return timedelta(0)

    def by_hand(self) -> tuple[str, ...]:
        """Pure: the commands (aws, psql, curl …) with which a person does the same without us; no secrets.

        The last ones tell whether it worked. Empty where there is nothing that a command could do.
        """
        return ()

    def preflight(self, clients: Clients) -> tuple[Need, ...]:
        """Look, without leaving anything behind, at what this step will need later: rights, limits, records, roles.

        Called once, before the first change, within 5 s for all steps together. Raises ActionFailed where it could not
        ask: that is told apart from a problem. Inputs that only earlier steps will tell are unset.
        """
        return ()

    def loss(self, state: StateT) -> Loss | None:
        """Pure: what a promotion now would lose, as far as this state tells; None where it tells nothing of it."""
        return None

    @classmethod
    def lost(cls, state: StateT) -> Lost | None:
        """Pure: which transactions and rows a look found lost, asked of the journaled output too; None: it tells nothing of it."""
        return None

    def marks(self, state: StateT) -> Mapping[Mark, datetime | None]:
        """Pure: marks of the RTO clock that a done state sets; None means 'when it was done'."""
        return {}


class Probe(Action[StateT]):
    """An action that never mutates: it also runs in a dry run, unless it is not `harmless`."""

    @property
    def harmless(self) -> bool:
        """Pure: whether a look leaves nothing behind. False (a smoke test that posts an order): not in a dry run."""
        return True

    def ends(self, state: StateT) -> str | None:
        """Pure: why nothing more is to be done ('disposition is wait'), or None. Steps after it are then skipped."""
        return None


class Change(Action[StateT]):
    """An action that mutates the world, safely startable again after a crash."""

    reversible: ClassVar[bool] = False
    """Whether `undo` brings the state before back."""
    point_of_no_return: ClassVar[bool] = False
    """From here the way back is a new failover."""
    plane: ClassVar[Plane] = Plane.control
    fences: ClassVar[bool] = False
    """It makes sure that the old primary takes no more writes."""
    makes_writer: ClassVar[bool] = False
    """It makes a second writer possible: no act of it without a fence, looked at again right before."""
    behind_fence: ClassVar[bool] = False
    """It stops replication or the like, which a primary that lives still needs: for after a fence."""
    before_customers: ClassVar[bool] = False
    """After a promotion and before customers are led to it: what they would stumble over is put right."""
    repoints: ClassVar[bool] = False
    """It leads connections (DNS, a pooler, settings) to the new primary."""
    starts_consumers: ClassVar[bool] = False
    """It starts consumers or scheduled jobs, which come last."""
    loses: ClassVar[bool] = False
    """It may lose acknowledged data: above the RPO no act of it until a person accepted its `loss` by name."""
    fences_itself: ClassVar[bool] = False
    """It stops the old primary itself and makes the writer only behind that stop, looked at again in the same act: the
    plan demands no other fence. Its `done` must say that the old primary takes no writes."""
    resend: ClassVar[timedelta | None] = None
    """Repeat `act` this often while it is neither done nor underway; None: act once an attempt."""
    soonest: ClassVar[timedelta | None] = None
    """Shortest pause between two looks after an act; None: a fifth of `interval`. For calls that their provider counts."""
    phased: ClassVar[bool] = False
    """It takes several acts: while it is neither done nor underway after one, the next follows, announced like the first.

    What `fold` gathered outlives a crash in the last announced `before`, so `fold` must tell what is too old to count.
    """

    @property
    @abstractmethod
    def target(self) -> str:
        """What this changes, as the lease names it, without secrets: 'postgres:127.0.0.1:5432/shop'."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Everything that needs a lease; more than `target` where several things change together."""
        return (self.target,)

    @abstractmethod
    def describe(self, before: StateT) -> str:
        """Pure: one line with real values, old -> new: 'scale checkout-west: 1 -> 3 instances'."""

    @abstractmethod
    def act(self, before: StateT, clients: Clients) -> None:
        """Start the change and return; never sleep, never wait. Raises ActionFailed when refused."""

    def underway(self, state: StateT) -> bool:
        """Pure: has it begun already? Then the engine waits and does not act again."""
        return False

    def refuse(self, before: StateT) -> str | None:
        """Pure: why acting on this state would be wrong (not eligible, max size below wanted), or None."""
        return None

    def retreats(self, state: StateT) -> bool:
        """Pure: the act that comes next only takes back what this step did: an approval does not age for it."""
        return False

    def undo(self, before: StateT, clients: Clients) -> None:
        """Bring `before` back, from journaled data only; runs in another process, perhaps hours later.

        Look first and leave what is so already: where a crash hid its end, it is called again.
        """
        raise ActionFailed(f"{self.name} cannot be undone")

    def undo_by_hand(self, before: StateT) -> tuple[str, ...]:
        """Pure: the commands with which a person brings `before` back without us, the look at what is so first; no secrets.

        Empty where there are none: people are then told what was before and what is.
        """
        return ()


ActionType = type[Action[Any]]
Kind = Literal["probe", "change"]


def kind_of(action: ActionType) -> Kind:
    """Tell whether an action looks or mutates."""
    return "change" if issubclass(action, Change) else "probe"


def unwrap(annotation: Any) -> Any:
    """Take `Annotated` off a type."""
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
