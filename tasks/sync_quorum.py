"""The old primary waits for standbys before it acknowledges a commit, and they receive from it no more.

The argument. Enough of the standbys that its synchronous_standby_names demands are told, in their own
postgresql.auto.conf, to follow nobody, and their receivers have ended: so its quorum cannot be met (sync_rule), and no
commit that waits for the quorum is acknowledged, not after a restart of anybody either. What it may still acknowledge is
every member had confirmed before, and so whichever is promoted has it (other rules are refused: `_names_members`).

The weakest option, because it leans on the old node's own clients. Any session may SET synchronous_commit to local or
off and is acknowledged at once; a commit that waits and is cancelled (a driver's query timeout does) is acknowledged
with a warning; unlogged and temporary tables never wait; a superuser of the old node may clear synchronous_standby_names
or attach another standby of a member's name. PostgreSQL has no right that forbids any of this. So `sessions` must be
declared, and holds nothing but its author's word.

What must never count, and the line that prevents it: a standby that could not be asked, belongs to another system or
bears another name (`StandbySeen.confirms`), one that a restart would attach again (`kept`), one that was promoted but
not told to follow nobody, as its address may lead to the old primary (`told_nobody`), a rule that is not the one which
the old primary itself told while it answered (`contradiction`), and a node that answers (`Fencing.holds`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from tasks.contract import Frozen, Need
from tasks.postgres_candidates import DEAD_END, Upstream
from tasks.postgres_server import Server
from tasks.sync_rule import Rule, parse_rule

WAITING = ("on", "remote_apply", "remote_write")
"""Values of synchronous_commit at which a commit waits for standbys."""
WAITS_FROM_START = {13: 21, 14: 18, 15: 13, 16: 9, 17: 5}
"""Minor releases (May 2025) from which the first commits after a start wait too; before, they raced the checkpointer."""


class SyncQuorum(Frozen):
    """Whom the old primary's commits wait for, and where those standbys answer.

    The engine's role on each standby needs PostgreSQL 13, pg_monitor, ALTER SYSTEM on primary_conninfo and
    primary_slot_name, EXECUTE on pg_reload_conf.
    """

    rule: str = Field(
        description="synchronous_standby_names of the old primary, as it stands there. Where the old primary itself told "
        "another one in this run, the fence does not hold.",
        examples=["ANY 2 (west, north)"],
    )
    standbys: dict[str, Server] = Field(
        min_length=1,
        description="Where its members answer, by application_name, which no two standbys may share. Enough of them must "
        "be named to lose the quorum; those that are not count as confirming.",
        examples=[{}],
    )
    sessions: Literal["every-commit-waits"] = Field(
        description="What the old primary's clients do: none sets synchronous_commit to local or off, none cancels a "
        "commit that waits (query timeouts of drivers do), nobody there clears synchronous_standby_names, and its release "
        "is 13.21, 14.18, 15.13, 16.9, 17.5 or newer (before, the first commits after a start may not wait). "
        "PostgreSQL cannot forbid any of it. Only `every-commit-waits` counts; where it is not so, this proves nothing."
    )

    @field_validator("rule")
    @classmethod
    def _names_members(cls, value: str) -> str:
        rule = parse_rule(value)
        if rule is None or not rule.members_known:
            raise ValueError(f"'{value}' does not name who must confirm; write it as FIRST 1 (a, b), ANY 2 (a, b, c) or a, b")
        if rule.count > len(rule.members):
            raise ValueError(f"'{value}' waits for {rule.count} of {len(rule.members)} standbys, which never happens")
        if rule.count < len(rule.members):  # frozen, it may still hold the confirmation of one, and answer when it thaws
            raise ValueError(
                f"'{value}' is met by {rule.count} of {len(rule.members)} standbys, so whoever is promoted may lack what another "
                "one confirmed; only a rule that waits for every member can be lost safely"
            )
        return value

    @model_validator(mode="after")
    def _can_be_lost(self) -> SyncQuorum:
        named, rule = {name.lower() for name in self.standbys}, self.parsed
        if unknown := sorted(named - rule.members):
            raise ValueError(f"standbys names '{unknown[0]}', which is none of {rule}")
        if not rule.is_lost(named):
            raise ValueError(
                f"standbys names {len(named)} of {len(rule.members)} members, and {rule} is lost only when "
                f"{len(rule.members) - rule.count + 1} receive nothing; name more of them"
            )
        return self

    @property
    def parsed(self) -> Rule:
        """The declared rule."""
        rule = parse_rule(self.rule)
        assert rule is not None  # noqa: S101 - the field's own validator has read it
        return rule

    @property
    def intent(self) -> str:
        """What is done and what it leans on, for people who decide."""
        return (
            f"cut {', '.join(self.standbys)} off from it for good, so that its commits wait for {self.rule} in vain: that "
            "leans on every session of it waiting, and if it lives on, its writes hang until they follow it again"
        )

    def by_hand(self) -> tuple[str, ...]:
        """Cut the standbys off, see that nothing arrives any more; and how to attach them again."""
        stop = "ALTER SYSTEM SET primary_conninfo = 'host={} application_name={}'"
        look = "SELECT count(*) FROM pg_stat_wal_receiver"
        again = "ALTER SYSTEM SET primary_conninfo = 'host=… port=… user=… password=…'"
        reload = '-c "SELECT pg_reload_conf()"'
        lines = [
            line
            for name, server in self.standbys.items()
            for line in (
                f'{server.psql} -c "SHOW primary_conninfo"   # where it cannot be stopped as below: note what {name} says',
                f'{server.psql} -c "{stop.format(DEAD_END, name)}" {reload}',
                f'{server.psql} -c "{look}"   # must say 0, twice; it counts only if every session waits for {self.rule}',
            )
        ]
        return (
            *lines,
            *(
                f'# nothing is promoted after all? The old primary\'s writes hang until {name} follows it again: {server.psql} -c "{again}" {reload}'
                for name, server in self.standbys.items()
            ),
        )


class Commits(Frozen):
    """What the old primary said of its commits while it answered."""

    names: str = Field(description="Its synchronous_standby_names.")
    level: str = Field(description="Its synchronous_commit.")
    lowered_for: tuple[str, ...] = Field((), description="Roles and databases for which synchronous_commit is lowered.")
    attached: tuple[str, ...] = Field((), description="application_name of each standby that counted or could count.")


class StandbySeen(Frozen):
    """One of the standbys, as it was last seen."""

    name: str = Field(description="As the runbook calls it: its application_name.")
    trouble: str = Field("", description="Why it could not be asked; empty: it answered.")
    calls_itself: str = Field("", description="The application_name with which its receiver connects.")
    system_id: str | None = Field(None, description="System identifier of its cluster.")
    in_recovery: bool = Field(False, description="Whether it is a standby still.")
    receiver: bool = Field(True, description="Whether a WAL receiver is left that may lead to the old primary.")
    upstream: Upstream | None = Field(None, description="Whom its settings tell it to follow.")
    kept: bool = Field(False, description="Whether that stands in its postgresql.auto.conf, which a restart reads last.")
    followed: Upstream | None = Field(None, description="Whom it followed when it was last seen to follow anybody.")

    @property
    def told_nobody(self) -> bool:
        """Whether it is told to follow nobody, for good."""
        return self.kept and self.upstream is not None and self.upstream.stopped

    def foreign(self, system_id: str | None) -> str | None:
        """Why it is not the standby that is meant, as far as can be told, or None."""
        if self.trouble:
            return f"cannot be asked ({self.trouble})"
        if self.calls_itself.lower() != self.name.lower():
            return f"calls itself '{self.calls_itself}' (application_name)"
        if system_id is None:
            return "may belong to another system"
        if self.system_id != system_id:
            return f"belongs to system {self.system_id}, expected {system_id}"
        if not self.in_recovery and not self.told_nobody:
            return "is no standby (not in recovery), and was not told to follow nobody"
        return None

    def confirms(self, system_id: str | None) -> str | None:
        """Why it may confirm commits of the old primary, now or after a restart, or None."""
        if foreign := self.foreign(system_id):
            return foreign
        if not self.told_nobody:
            stopped = self.upstream is not None and self.upstream.stopped
            return "follows again after a restart" if stopped else "is told to follow"
        return "has a receiver still" if self.receiver else None


def contradiction(declared: SyncQuorum, told: Commits | None, version: int | None) -> str | None:
    """Why what the old primary itself told, while it answered, speaks against the declaration, or None."""
    if told is None:
        return None
    if not told.names.strip():
        return "its commits waited for nobody (synchronous_standby_names was empty)"
    if parse_rule(told.names) != declared.parsed:
        return f"its synchronous_standby_names was '{told.names}', and `rule` says '{declared.rule}'"
    if told.level not in WAITING:
        return f"its commits waited for no standby (synchronous_commit was {told.level})"
    if told.lowered_for:
        return f"synchronous_commit is lowered for {', '.join(told.lowered_for)}"
    attached = [name.lower() for name in told.attached]
    if twice := sorted(name for name in declared.parsed.members if attached.count(name) > 1):
        return f"{attached.count(twice[0])} standbys called themselves '{twice[0]}'"
    if version is not None and version % 10000 < WAITS_FROM_START.get(version // 10000, 0):
        return f"its PostgreSQL {version // 10000}.{version % 10000} may acknowledge before it waits, right after a start"
    return None


def is_lost(declared: SyncQuorum, standbys: tuple[StandbySeen, ...], system_id: str | None) -> bool:
    """Whether the quorum can be met no more."""
    return declared.parsed.is_lost([one.name for one in standbys if one.confirms(system_id) is None])


def cut_off_from(declared: SyncQuorum, standbys: tuple[StandbySeen, ...], system_id: str | None) -> str:
    """Say who receives nothing any more and what speaks against the others."""
    off = [one.name for one in standbys if one.confirms(system_id) is None]
    others = [f"{one.name} {why}" for one in standbys if (why := one.confirms(system_id)) is not None]
    said = "so its commits wait in vain" if is_lost(declared, standbys, system_id) else "which leaves a quorum"
    return "; ".join([f"{', '.join(off) or 'nobody'} of {declared.rule} is cut off from it for good, {said}", *others])


def to_cut_off(
    declared: SyncQuorum, standbys: tuple[StandbySeen, ...], system_id: str | None
) -> tuple[dict[str, Upstream], str | None]:
    """Whom to tell to follow nobody (their slots stay), or why cutting off those that answer would prove nothing."""
    meant = [one for one in standbys if one.foreign(system_id) is None]
    if not declared.parsed.is_lost([one.name for one in meant]):
        others = [f"{one.name} {why}" for one in standbys if (why := one.foreign(system_id)) is not None]
        return {}, f"too few members of {declared.rule} can be cut off from it: {'; '.join(others)}"
    slots = {one.name: one.upstream.slot if one.upstream else "" for one in meant if not one.told_nobody}
    return {name: Upstream(host=DEAD_END, slot=slot) for name, slot in slots.items()}, None


def needs(
    declared: SyncQuorum,
    told: Commits | None,
    version: int | None,
    standbys: tuple[StandbySeen, ...],
    system_id: str | None,
) -> list[Need]:
    """What a preflight finds: whether the old primary agrees, and each standby that could not be cut off."""
    against = contradiction(declared, told, version)
    found = f"waits for '{told.names}'" if told else "not asked, it gives no session"
    advice = "let `rule` and the old primary agree, or declare another if_unreachable"
    needs = [Need(what="sync-quorum: the old primary", found=against or found, problem=against is not None, advice=advice if against else "")]
    for one in standbys:
        why = one.foreign(system_id or one.system_id)
        able = "is cut off already" if one.told_nobody else "can be cut off"
        needs.append(
            Need(what=f"sync-quorum: standby {one.name}", found=why or able, problem=why is not None,
                 advice="name it as synchronous_standby_names does, and let it answer" if why else "")
        )  # fmt: skip
    return needs
