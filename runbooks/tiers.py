"""Tiers: recovery objectives by name, shipped in tiers.yaml and read by the same strict loader."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from runbooks.loader import read, validate
from runbooks.model import Part, Slug
from runbooks.yaml_tree import compose, decode
from tasks.contract import Duration

FILE = Path(__file__).with_name("tiers.yaml")

Drill = Literal["weekly", "monthly", "quarterly", "semi-annual", "annual"]


class Tier(Part):
    """Recovery objectives under a name; what its document gives no number for is missing."""

    title: str | None = Field(None, description="What it stands for.")
    rto: Duration | None = Field(None, description="Recovery time objective.")
    rpo: Duration | None = Field(None, description="Recovery point objective.")
    drill: Drill | None = Field(None, description="How often the document wants it rehearsed.")
    says: str | None = Field(None, description="The document's own words, where they are not the plain time.")


class TierSet(Part):
    """Tiers of one document."""

    title: str = Field(description="What the set grades by.")
    source: str = Field(description="The document and its section.")
    tiers: dict[Slug, Tier] = Field(description="Tiers by name.")


class Tiers(Part):
    """The file tiers.yaml."""

    schema_: Literal["failover-tiers/v1"] = Field(alias="schema", description="The format's version.")
    sets: dict[Slug, TierSet] = Field(description="Sets by name.")


@cache
def all_tiers() -> Tiers:
    """Everything in tiers.yaml."""
    return validate(Tiers, compose(decode(read(FILE), str(FILE)), str(FILE)))


@cache
def by_name() -> Mapping[str, Tier]:
    """Tiers as runbooks name them: 'clients/premium'."""
    return {f"{kind}/{name}": tier for kind, each in all_tiers().sets.items() for name, tier in each.tiers.items()}
