"""A node becomes a standby again: what its host does when it is told to, one phase after the other.

What must never happen, and the line that prevents it:
- a running primary is written over: `_demand_stopped` before anything is touched, and again at each retry
- diverged data is gone before it is kept: `_keep` comes before the first program that writes, and `touched` is set between
- other data is dropped than was signed off: `_demand_signed`
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psycopg

from .addresses import DATABASE, NodeName, node_name, other
from .diverged import Table, Tail, control_data, keep, note, rows, tail
from .errors import LabError, Refused
from .events import EventLog
from .node import Node
from .programs import write_atomically
from .storage import Storage

Phase = Literal["", "keep", "rewind", "base-backup", "configure", "start"]
_CHECKPOINT = 60  # seconds
_PATIENCE = 15  # seconds


@dataclass(frozen=True)
class Job:
    """One rebuild, told at each look. `method`: how the data was brought in line; `kept`: where the old is."""

    number: int = 0
    state: Literal["idle", "running", "done", "failed"] = "idle"
    phase: Phase = ""
    method: Literal["", "start", "rewind", "base-backup"] = ""
    kept: str = ""
    error: str = ""
    touched: bool = False


@dataclass(frozen=True)
class Signed:
    """What may be dropped: exactly this. `end` is None where nothing was written after the fork."""

    timeline: int
    fork: str
    end: str | None


@dataclass
class Host:
    """What can be done on one node's host while its PostgreSQL is stopped."""

    node: Node
    source: Node
    storage: Storage
    events: EventLog
    start: Callable[[NodeName], Awaitable[None]]
    job: Job = field(default_factory=Job)
    _task: asyncio.Task[None] | None = None
    _reading: tuple[str, asyncio.Task[dict[str, Any]]] | None = None

    async def look(self) -> dict[str, Any]:
        """Tell the node's state from outside, its control file while it is stopped, and the last rebuild."""
        control = None
        if self.node.state == "stopped" and self.job.state != "running":
            found = await asyncio.to_thread(control_data, self.storage.binaries, self.node.data)
            control = {"system_id": found.system_id, "timeline": found.timeline, "clean": found.clean,
                       "checkpoint": found.checkpoint}  # fmt: skip
        status = self.node.status()
        return {"state": status.state, "stays_off": status.stays_off, "control": control, "job": asdict(self.job)}

    async def shut_down(self) -> dict[str, Any]:
        """Begin to end the node in good order, so that it stays off; return at once."""
        if self.job.state == "running":
            raise Refused(f"node {self.node.name}: is being rebuilt")
        self.events.add("shut-down", node=self.node.name)
        self.node.shut_down()
        return await self.look()

    async def divergence(self, content: dict[str, Any]) -> dict[str, Any]:
        """Tell what the stopped node has beyond the fork; `state` is 'reading' until that is known."""
        self._demand_stopped()
        signed = _signed(content)
        tables = [Table(*one.split(":", 1)) for one in str(content.get("tables", "")).split(",") if ":" in one]
        asked = json.dumps([asdict(signed), str(tables), (self.node.data / "global" / "pg_control").stat().st_mtime_ns])
        if self._reading is None or self._reading[0] != asked:
            self._reading = (asked, asyncio.create_task(asyncio.to_thread(self._read, signed, tables)))
        reading = self._reading[1]
        if not reading.done():
            return {"state": "reading"}
        if reading.exception() is not None:
            self._reading = None  # whoever asks next, reads anew
        return {"state": "read", **reading.result()}

    async def rebuild(self, content: dict[str, Any]) -> dict[str, Any]:
        """Begin to make the node a standby of `from`; asked again while it runs, it only tells how far it is."""
        if node_name(str(content.get("from", ""))) != self.source.name:
            raise ValueError(f"node {self.node.name} can follow {self.source.name} only")
        if self.job.state != "running":
            self._demand_stopped()
            signed = _signed(content)
            self.job = Job(
                self.job.number + 1, "running", kept=self.job.kept if self.job.touched else "", touched=self.job.touched
            )
            self._task = asyncio.create_task(self._run(signed))
        return await self.look()

    async def end(self) -> None:
        """Let what is under way come to its end, as before a reset: its programs write where the first day will be."""
        tasks = [one for one in (self._task, self._reading[1] if self._reading else None) if one is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_PATIENCE)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.job, self._task, self._reading = Job(number=self.job.number), None, None

    async def _run(self, signed: Signed) -> None:
        try:
            async with self.node.lock:
                self._demand_stopped()
                method = await asyncio.to_thread(self._bring_in_line, signed)
                self._note(phase="configure", method=method)
                await asyncio.to_thread(self._configure)
                self._note(phase="start", touched=False)
                self.node.release()
            await self.start(self.node.name)
            self._note(state="done")
            self.events.add("rebuilt", node=self.node.name, method=method, kept=self.job.kept)
        except (LabError, OSError, psycopg.Error) as error:
            self._note(state="failed", error=str(error).replace(self.storage.password, "***")[-500:])
            self.events.add("rebuild-failed", node=self.node.name, error=self.job.error)

    def _bring_in_line(self, signed: Signed) -> Literal["start", "rewind", "base-backup"]:
        if not self.job.touched:
            found = tail(self.storage.binaries, self.node.data, signed.timeline, signed.fork)
            self._demand_signed(signed, found)
            if not found.diverged:
                return "start"
            self._keep(found)
            try:
                self._rewind()
            except (LabError, psycopg.Error) as error:
                self.events.add("rewind-failed", node=self.node.name, error=str(error)[-300:])
            else:
                return "rewind"
        self._base_backup()
        return "base-backup"

    def _keep(self, found: Tail) -> None:
        """Copy aside what a rebuild would destroy, before it touches anything."""
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        kept = self._kept / f"{self.node.name}-{stamp}"
        self._note(phase="keep")
        told = self._reading[1] if self._reading and self._reading[1].done() else None
        keep(self.storage.binaries, self.node.data, kept, found, told.result() if told and not told.exception() else {})
        self._note(kept=str(kept), touched=True)

    def _rewind(self) -> None:
        self._note(phase="rewind")
        # Without it the source's control file still shows its old timeline, and pg_rewind sees nothing to do.
        with psycopg.connect(self._source("failover"), autocommit=True, connect_timeout=_CHECKPOINT) as session:
            session.execute("CHECKPOINT")
        binaries = self.storage.binaries
        binaries.run(binaries.program("pg_rewind"), "-D", str(self.node.data), "--source-server",
                     self._source("failover", secret=False), more=self._password)  # fmt: skip

    def _base_backup(self) -> None:
        self._note(phase="base-backup")
        binaries, fresh = self.storage.binaries, self.node.data.with_name("data.new")
        binaries.run("rm", "-rf", str(fresh))
        binaries.run(binaries.program("pg_basebackup"), "-D", str(fresh), "-d", self._source("replicator", secret=False),
                     "--checkpoint=fast", "--wal-method=stream", more=self._password)  # fmt: skip
        old = self.node.data.with_name(f"data.before-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
        if self.node.data.exists():
            self.node.data.rename(old)
        fresh.rename(self.node.data)

    def _configure(self) -> None:
        data = self.node.data
        self.storage.write_node(data, self.node.name)  # pg_rewind brought the source's
        for slot in (data / "pg_replslot").iterdir():
            shutil.rmtree(slot)  # of when it was the primary: nobody would ever move them on, and they hold WAL back
        (data / "standby.signal").touch()
        self.storage.own(data / "standby.signal")

    def _demand_stopped(self) -> None:
        if self.node.state != "stopped" or not self.node.stays_off:
            said = f"{self.node.state}{', stays off' if self.node.stays_off else ''}"
            raise Refused(f"node {self.node.name}: is {said}; only a node that is stopped and stays off is taken apart")

    def _demand_signed(self, signed: Signed, found: Tail) -> None:
        if found.end != signed.end:
            raise Refused(
                f"node {self.node.name}: has WAL on timeline {found.timeline} from {found.fork} to {found.end}, and what was "
                f"signed off ends at {signed.end}; look at the divergence again"
            )

    def _read(self, signed: Signed, tables: list[Table]) -> dict[str, Any]:
        found = tail(self.storage.binaries, self.node.data, signed.timeline, signed.fork)
        listed, detail = [], found.detail
        try:
            listed = rows(self.storage.binaries, self.node.data, found, tables, DATABASE)
        except LabError as error:
            detail = "; ".join(filter(None, (detail, str(error)[-300:])))
        commits = [{"xid": xid, "lsn": lsn, "at": at} for xid, lsn, at in found.transactions]
        told = {"end": found.end, "count": len(commits), "transactions": commits, "tables": listed, "detail": detail}
        return note(self._kept, self.node.name, told) if found.diverged else told

    @property
    def _kept(self) -> Path:
        """Where no rebuild and no reset removes anything."""
        return self.storage.addresses.folder / "kept"

    def _note(self, **changes: Any) -> None:
        self.job = replace(self.job, **changes)
        write_atomically(self.node.data.parent / "rebuild.json", json.dumps(asdict(self.job)))

    def _source(self, user: str, *, secret: bool = True) -> str:
        way = self.storage.addresses.way(other(self.node.name), "replication")
        made = psycopg.conninfo.make_conninfo(
            host=way.host, port=way.port, user=user, dbname="postgres", sslmode="disable", gssencmode="disable",
            connect_timeout=5,
        )  # fmt: skip
        return psycopg.conninfo.make_conninfo(made, password=self.storage.password) if secret else made

    @property
    def _password(self) -> dict[str, str]:
        return {"PGPASSWORD": self.storage.password}


def _signed(content: dict[str, Any]) -> Signed:
    try:
        return Signed(int(content["timeline"]), str(content["fork"]), content.get("end") or None)
    except (KeyError, TypeError, ValueError):
        raise ValueError("timeline (a number) and fork (a WAL position) must be given") from None
