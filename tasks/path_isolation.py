"""Every way of clients to a node is closed by whoever owns it: a load balancer, a security group, a proxy.

The argument. A write is acknowledged to a client, so a node that no client can hear acknowledges nothing. It holds only
when the closer says that the way is closed for good (for established sessions too, and over restarts of the node), when
no try through a client's way gets an answer, and when nobody writes on the node's own side.

What must never count, and the line that prevents it: a closer's word alone (`seen_by` must have been tried just now),
silence alone (the engine may be the one who is cut off: `closed`), a way that a restart opens again (`stays_closed`),
and a node with clients, jobs or replicas that write on its own side, past the way (`own_side` must say that there are
none; nothing here can see them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.clients import Clients
from tasks.contract import Frozen
from tasks.errors import ActionFailed
from tasks.fence_calls import call
from tasks.postgres_knock import knock
from tasks.postgres_server import Server


class IsolatePath(Frozen):
    """The way that all clients take to the node, and who closes it."""

    path: str = Field(
        description="GET gives JSON with `closed` and `stays_closed`; POST to it + '/close' closes the way for good and "
        "cuts established sessions.",
        examples=["http://127.0.0.1:7000/paths/east"],
        pattern="^https?://",
    )
    seen_by: tuple[Server, ...] = Field(
        min_length=1,
        description="The ways that clients take, each with a client's role: none may get any answer. The engine tries "
        "them, so it must stand where clients stand.",
    )
    own_side: Literal["no-clients"] = Field(
        description="What writes to the node without taking this way: clients beside it, its own scheduled jobs, "
        "subscriptions. Only `no-clients` counts; where there are some, this option proves nothing."
    )

    def by_hand(self) -> tuple[str, ...]:
        """Close the way, and see as a client that nothing answers."""
        return (
            f"curl --fail -X POST {self.path.rstrip('/')}/close   # where it cannot be stopped as below",
            f"curl --fail {self.path}   # then this must say closed and stays_closed",
            *(f"{way.psql} -c 'SELECT 1'   # and this must get no answer" for way in self.seen_by),
        )


class PathSeen(BaseModel):
    """What the closer says."""

    model_config = ConfigDict(frozen=True, strict=True)
    closed: bool
    stays_closed: bool


@dataclass(frozen=True)
class Isolation:
    """The closer's word and the ways through which something answered just now."""

    path: PathSeen
    answered: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Closed for good, and seen so."""
        return self.path.closed and self.path.stays_closed and not self.answered

    @property
    def told(self) -> str:
        """Say what is so."""
        if self.answered:
            word = "is said to be closed, and yet" if self.path.closed else "is open:"
            return f"its clients' way {word} {', '.join(self.answered)} answers"
        if not self.path.closed:
            return "its clients' way is not closed, though nothing answers through it"
        return "its clients' way is closed" + (" for good, seen by clients" if self.path.stays_closed else ", but not for good")


def look_at_path(declared: IsolatePath, patience: timedelta, clients: Clients) -> Isolation:
    """Ask the closer and try every way; raises ActionFailed where the closer could not be asked."""
    answer = call(declared.path, "GET", clients)
    try:
        path = PathSeen.model_validate(answer.json())
    except ValueError:  # no JSON, or not this
        raise ActionFailed(
            f"{declared.path} gave no state of a way; expected JSON with `closed` and `stays_closed`, both true or false",
            attempted=f"GET {declared.path}",
        ) from None
    tries = {f"way {way.name} as {way.user}": way for way in declared.seen_by}
    heard = clients.parallel({name: _try(way, clients) for name, way in tries.items()}, patience)
    return Isolation(path, tuple(name for name, what in heard.items() if what is True))


def close_path(declared: IsolatePath, clients: Clients) -> None:
    """Close the way of all clients."""
    call(declared.path.rstrip("/") + "/close", "POST", clients)


def _try(way: Server, clients: Clients) -> Callable[[], bool]:
    """Make one try through a client's way: True when anything that speaks PostgreSQL answers, a refusal too."""

    def go() -> bool:
        clients.check()
        try:
            return not knock(way.host, way.port, way.user, way.database, clients.timeout).closed
        except OSError:
            return False

    return go
