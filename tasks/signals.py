"""What `detect.outage` is told to ask, and what a party answered."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from tasks.contract import Duration, Frozen
from tasks.postgres_server import Server

Statuses = tuple[int | str, ...]
Kind = Literal["http", "tcp", "postgres", "standby", "control"]


def check_statuses(value: Statuses) -> Statuses:
    """Take 204 or '200-299'; raise ValueError for anything else."""
    for entry in value:
        if not re.fullmatch(r"[1-5]\d\d(-[1-5]\d\d)?", str(entry)):
            raise ValueError(f"{entry!r} is no HTTP status; write 204 or a range such as '200-299'")
    return value


def status_fits(status: int, expected: Statuses) -> bool:
    """Tell whether an HTTP status is one of those expected."""
    for entry in expected:
        low, _, high = str(entry).partition("-")
        if int(low) <= status <= int(high or low):
            return True
    return False


class Http(Frozen):
    """An HTTP address that answers well while the service lives."""

    url: str = Field(
        description="Address to GET.", examples=["http://checkout.east.example/health"], pattern="^https?://"
    )
    expect: Statuses = Field(("200-399",), description="Statuses that mean up; any other is silence, not death.")
    timeout: Duration | None = Field(None, description="Longest wait; `patience` unless shorter.", examples=["500ms"])

    _statuses = field_validator("expect")(check_statuses)


class Tcp(Frozen):
    """A port that accepts connections while the host lives."""

    host: str = Field(description="Name or address.", min_length=1)
    port: int = Field(description="TCP port.", ge=1, le=65535)


class Control(Frozen):
    """A provider's word on whether a host runs."""

    url: str | None = Field(
        None,
        description="GET it; JSON with `state`: running, frozen or stopped.",
        examples=["http://127.0.0.1:7000/nodes/east"],
        pattern="^https?://",
    )
    command: tuple[str, ...] = Field((), description="Command (no shell) that prints running, frozen or stopped.")

    @model_validator(mode="after")
    def _one_way(self) -> Control:
        if (self.url is None) == (not self.command):
            raise ValueError("control: write either `url` or `command`")
        return self


class Signal(Frozen):
    """One party to ask about the outage: exactly one of http, tcp, postgres, standby, control."""

    http: Http | None = Field(None, description="Ask over HTTP.")
    tcp: Tcp | None = Field(None, description="Open a TCP connection.")
    postgres: Server | None = Field(None, description="Ask the primary itself, on a session kept open.")
    standby: Server | None = Field(None, description="Ask the standby about its stream from the primary.")
    control: Control | None = Field(None, description="Ask the provider whether the host runs.")
    dead_for: Duration | None = Field(None, description="This signal's own hold-down for death, else the step's.")
    silent_for: Duration | None = Field(None, description="This signal's own hold-down for silence, else the step's.")

    @model_validator(mode="after")
    def _one_kind(self) -> Signal:
        named = [kind for kind in get_args(Kind) if getattr(self, kind) is not None]
        if len(named) != 1:
            said = " and ".join(named) or "nothing"
            raise ValueError(
                f"a signal asks in one way, this one names {said}; write one of http, tcp, postgres, standby, control"
            )
        return self

    @property
    def kind(self) -> Kind:
        """Which way it asks."""
        named: Kind = next(kind for kind in get_args(Kind) if getattr(self, kind) is not None)
        return named


class Says(StrEnum):
    """What one look at one party gave."""

    up = "up"
    dead = "dead"
    silent = "silent"
    unknown = "unknown"


class Reading(Frozen):
    """What one party said in one look, and since when."""

    name: str = Field(description="The signal's name in the runbook.")
    says: Says = Field(
        description="up, dead (proof), silent (no answer, or one that proves nothing), unknown (could not ask)."
    )
    answered: bool = Field(description="Whether a host answered at all, if only by refusing: then we are not blind.")
    detail: str = Field(description="What was seen, in words.")
    closed: bool = Field(
        default=False, description="A stream that its other side has closed: no standby gives up on silence so soon."
    )
    waiting: bool = Field(default=False, description="Asked and not answered yet; what it says is from before.")
    waiting_since: datetime | None = Field(default=None, description="First look at which that answer was awaited.")
    since: datetime | None = Field(default=None, description="First look of those that gave this answer in a row.")
    down_since: datetime | None = Field(
        default=None, description="First look of those in a row that found it dead or silent."
    )
    known_until: datetime | None = Field(
        default=None, description="Its last answer is not older: the end of the look before it."
    )
    looks: int = Field(default=1, description="How many answers in a row were this one.")
    past: bool = Field(default=False, description="Down for longer than its hold-down, so it counts.")

    @property
    def down(self) -> bool:
        """Dead or silent."""
        return self.says in (Says.dead, Says.silent)
