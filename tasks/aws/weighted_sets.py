"""What `aws.route53.shift_weights` sees: the record sets of a name, and how its new side does."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from tasks.aws.route53_zone import Answer
from tasks.contract import Duration, Frozen
from tasks.soaking import Sample

WHOLE = 100  # what the two weights add up to: a weight is a percentage


class Side(Frozen):
    """One of the two places that customers can be sent to."""

    id: str = Field(description="Set identifier of its record set.", min_length=1, max_length=128, examples=["east"])
    values: tuple[str, ...] = Field(
        description="What its record set says: an address or a name; Route 53's API reference allows one value.",
        min_length=1,
        examples=[["203.0.113.7"]],
    )


class RecordSet(Frozen):
    """One record set of the name, as Route 53 holds it."""

    id: str | None = Field(description="Its set identifier; null: a simple record.")
    weight: int | None = Field(description="Its weight; null: not weighted.")
    values: tuple[str, ...] = Field(description="What it says.")
    ttl: Duration | None = Field(description="For how long resolvers may keep it.")
    health_check: str | None = Field(None, description="Id of its health check, which is kept.")
    foreign: str = Field("", description="Why it cannot be shifted: an alias, or another routing policy.")


class Shift(Frozen):
    """The record sets, what the name servers answer, and how the new side does."""

    zone_id: str = Field(description="Id of the hosted zone.")
    record: str = Field(description="Name of the record, with the final dot.")
    type: str = Field(description="A, AAAA or CNAME.")
    sets: tuple[RecordSet, ...] = Field(description="Every record set of the name and type.")
    change_id: str | None = Field(None, description="Route 53's id of our change, where we know it.")
    in_sync: bool | None = Field(None, description="Whether our change has reached all of Route 53; null: not asked.")
    answers: tuple[Answer, ...] = Field((), description="What the name servers answer.")
    sent: tuple[Sample, ...] = Field((), description="The requests of this look to the new side.")
    wrong: str = Field("", description="What was wrong with the last of them that was not good.")
    share: int | None = Field(None, description="Of 100 customers so many are sent to the new side; null: not told.")
    since: datetime | None = Field(None, description="Since when the new side keeps the limits at this share.")
    soaked: Duration = Field(timedelta(0), description="For how long that is.")
    recent: tuple[Sample, ...] = Field((), description="Requests at this share that are judged.")
    verdict: Literal["soaking", "held", "tripped"] = Field("soaking", description="What the stop rule says.")
    because: str = Field("", description="Why it tripped, the last time.")
    trips: int = Field(0, description="How often it has tripped.")


class Next(Frozen):
    """The one change that comes next."""

    share: int = Field(description="Of 100 customers so many.")
    simple: bool = Field(False, description="One simple record of the new side instead of two weighted ones.")


def is_simple(state: Shift) -> bool:
    """Tell whether there is one simple record and no weighted one."""
    return len(state.sets) == 1 and state.sets[0].id is None


def show(sets: tuple[RecordSet, ...]) -> str:
    """Say what is there: 'east 5, west 95' or 'simple 203.0.113.7'."""
    told = []
    for one in sets:
        name = one.id if one.id is not None else "simple"
        weight = one.foreign or (str(one.weight) if one.weight is not None else "")
        told.append(f"{name} {weight or ', '.join(one.values)}")
    return ", ".join(told) or "not there"
