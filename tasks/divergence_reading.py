"""How divergence is read: the fork from the new primary's history, the rest by the old primary's host."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from tasks.clients import Clients
from tasks.errors import ActionFailed
from tasks.lost import KEY, LostTransaction
from tasks.postgres_divergence import LISTED, Divergence, DivergenceProbe, Found, LostRow
from tasks.postgres_host import HostState, ask_divergence, ask_state
from tasks.postgres_link import absent_keys, fork_of, look_at_pair
from tasks.postgres_pair import Following, Pair


def read(step: DivergenceProbe, clients: Clients) -> Divergence:
    """Look once; `found.read` is False while the host still reads."""
    seen = look_at_pair(step.primary, step.node, Pair(name="unknown"), clients)
    if seen.primary is None or seen.primary.in_recovery:
        what = seen.detail or "it is in recovery"
        raise ActionFailed(f"{step.primary.name} is no primary: {what}; name the new primary as `primary`", retry=True)
    if seen.standby is not None:
        return _of_a_running(step, seen)
    host = ask_state(step.host, clients)
    if not host.off or host.control is None:
        if host.job.state == "running" or host.state == "stopping":
            return Divergence(found=Found())
        off = "stopped, but nothing keeps it off" if host.state == "stopped" else host.state
        raise ActionFailed(f"{step.node.name} is {off}; fence it first, then look again", retry=host.job.state == "done")
    if host.control.system_id != seen.primary.system_id:
        raise ActionFailed(
            f"{step.node.name} belongs to system {host.control.system_id}, {step.primary.name} to {seen.primary.system_id}; "
            "they are no pair"
        )
    fork = fork_of(step.primary, host.control.timeline, clients)
    if fork is None:
        raise ActionFailed(
            f"{step.primary.name} (timeline {seen.primary.timeline}) never left timeline {host.control.timeline}, on which "
            f"{step.node.name} is: where they parted is not known; rebuild the node by hand, from a base backup"
        )
    tables = ",".join(f"{one.table}:{one.key}" for one in step.tables)
    told = ask_divergence(step.host, {"timeline": host.control.timeline, "fork": fork, "tables": tables}, clients)
    if told.get("state") != "read":
        return Divergence(found=Found(timeline=host.control.timeline, fork_lsn=fork, system_id=host.control.system_id))
    return _read(step, host, fork, told, clients)


def _of_a_running(step: DivergenceProbe, seen: Following) -> Divergence:
    one, other = seen.primary, seen.standby
    assert one is not None and other is not None  # noqa: S101, PT018 - asked by the caller
    if not other.in_recovery:
        raise ActionFailed(f"{step.node.name} runs as a primary beside {step.primary.name}; fence it first, then look again")
    if other != one.model_copy(update={"in_recovery": True}):
        raise ActionFailed(
            f"{step.node.name} runs as a standby of system {other.system_id} on timeline {other.timeline}, {step.primary.name} "
            f"is on {one.timeline}: it does not follow; stop it for good, then look again", retry=True,
        )  # fmt: skip
    found = Found(read=True, system_id=other.system_id, timeline=other.timeline)
    return Divergence(found=found.model_copy(update={"digest": digest(found, {})}))


def _read(step: DivergenceProbe, host: HostState, fork: str, told: dict[str, Any], clients: Clients) -> Divergence:
    assert host.control is not None  # noqa: S101 - asked by the caller
    try:
        commits = [LostTransaction(xid=one["xid"], lsn=one["lsn"], at=_time(one["at"])) for one in told["transactions"]]
        tables = [(str(one["table"]), str(one["key"]), int(one["count"]), _rows(one)) for one in told["tables"]]
        count, end, detail = int(told["count"]), told["end"], str(told["detail"])
    except (AttributeError, KeyError, TypeError, ValueError):  # pydantic raises a ValueError
        raise ActionFailed("the host's answer is no divergence; see docs/failback.md for what it should tell") from None
    rows, written, lost, cut = [], 0, 0, False
    for table, key, wrote, listed in tables:
        by_key = {row.key: row for row in listed}
        absent = absent_keys(step.primary, table, key, list(by_key), clients)
        rows += [by_key[one] for one in absent]
        written, lost, cut = written + wrote, lost + len(absent), cut or wrote > len(listed)
    if cut:
        detail = "; ".join(filter(None, (detail, "more rows were written than the host lists")))
    found = Found(read=True, diverged=count > 0, system_id=host.control.system_id, timeline=host.control.timeline,
                  fork_lsn=fork, end_lsn=end, transactions=count)  # fmt: skip
    return Divergence(
        found=found.model_copy(update={"digest": digest(found, told)}),
        first_at=min((one.at for one in commits), default=None), last_at=max((one.at for one in commits), default=None),
        commits=tuple(commits[:LISTED]), written=written, lost=lost, rows=tuple(_bounded(row) for row in rows[:LISTED]),
        file=str(told.get("file") or ""), detail=detail,
    )  # fmt: skip


def _rows(told: dict[str, Any]) -> list[LostRow]:
    return [
        LostRow(table=str(told["table"]), key=str(one["key"]), at=_time(one["at"]) if one.get("at") else None, row=json.dumps(one["row"])[:500])
        for one in told["rows"]
    ]


def _bounded(row: LostRow) -> LostRow:
    return row if len(row.key) <= KEY else row.model_copy(update={"key": row.key[: KEY - 1] + "…"})


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def digest(found: Found, told: dict[str, Any]) -> str:
    """SHA-256 over where it forked and ended and over all that the host listed."""
    facts = [found.model_dump(mode="json", exclude={"digest"}), told]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
