"""A primary and the standby that follows it, in types and pure decisions; `tasks.postgres_link` asks the servers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.contract import Frozen


class Pair(Frozen):
    """What the standby is to be to its primary."""

    name: str = Field(description="The standby's application_name (primary_conninfo), as pg_stat_replication shows it.",
                      min_length=1, max_length=63, examples=["east"])  # fmt: skip
    slot: str | None = Field(
        None, description="Its physical slot on the primary, made where it is missing; unset: it uses none.",
        pattern="^[a-z0-9_]{1,63}$",
    )  # fmt: skip
    synchronous: str | None = Field(
        None,
        description="synchronous_standby_names of the primary once the standby has caught up; unset: as it is.",
        examples=["east", ""],
    )
    max_lag_bytes: int = Field(65536, description="Caught up: no more WAL than this is missing or not replayed.", ge=0)


class Side(Frozen):
    """One server."""

    system_id: str = Field(description="System identifier of its cluster.")
    in_recovery: bool = Field(description="Whether it is a standby.")
    timeline: int = Field(description="Its timeline.")


class Following(Frozen):
    """How one server follows another, as both tell it."""

    primary: Side | None = Field(None, description="The one to follow; null: it cannot be asked.")
    standby: Side | None = Field(None, description="The one that follows; null: it cannot be asked.")
    state: str = Field("", description="pg_stat_replication.state; empty: it is not attached.")
    sync_state: str = Field("", description="async, potential, sync or quorum.")
    behind_bytes: int | None = Field(None, description="WAL that the standby has not flushed.")
    replay_bytes: int | None = Field(None, description="WAL that the standby has not replayed.")
    slot: Literal["missing", "idle", "active", "lost"] = Field("missing", description="Its slot on the primary.")
    names: str | None = Field(None, description="synchronous_standby_names of the primary.")
    detail: str = Field("", description="What could not be asked and why.")

    def caught_up(self, pair: Pair) -> bool:
        """Streaming in recovery on the primary's timeline, flushed and replayed up to the allowed lag."""
        one, other = self.primary, self.standby
        if one is None or other is None or one.in_recovery or not other.in_recovery:
            return False
        same = (one.system_id, one.timeline) == (other.system_id, other.timeline)
        lags = (self.behind_bytes, self.replay_bytes)
        near = all(lag is not None and lag <= pair.max_lag_bytes for lag in lags)
        return same and self.state == "streaming" and near and (pair.slot is None or self.slot == "active")

    def settled(self, pair: Pair) -> bool:
        """Caught up, and synchronous_standby_names is what it should be."""
        return self.caught_up(pair) and (pair.synchronous is None or self.names == pair.synchronous)

    def told(self) -> str:
        """Say it in one line."""
        if self.primary is None or self.standby is None:
            return self.detail or "one of both cannot be asked"
        if not self.state:
            return "not attached"
        names = f", synchronous_standby_names '{self.names}'" if self.names else ""
        return f"{self.state} on timeline {self.standby.timeline}, {self.behind_bytes} bytes behind, slot {self.slot}{names}"
