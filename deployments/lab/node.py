"""A PostgreSQL node that behaves like a host: killed it stays dead, frozen it is silent, powered off it stays off."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import struct
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from . import processes, shm
from .addresses import Addresses, NodeName
from .errors import LabError, Refused
from .processes import Child
from .storage import Storage

State: TypeAlias = Literal["running", "frozen", "stopping", "stopped"]
_PATIENCE = 20.0  # seconds for a server to start: crash recovery on a loaded machine included
_POLL = 0.02


@dataclass(frozen=True)
class NodeStatus:
    """What the provider's control plane says about a node."""

    node: NodeName
    state: State
    stays_off: bool
    pid: int | None
    role: Literal["primary", "standby"]


class Node:
    """One node, used by the supervisor's main thread only; `changed` is awaited at each change of its state."""

    def __init__(
        self,
        name: NodeName,
        storage: Storage,
        adopt: Callable[[str, subprocess.Popen[bytes]], Child],
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = name
        self.addresses: Addresses = storage.addresses
        self.storage = storage
        self.data: Path = storage.data(name)
        self.lock = asyncio.Lock()  # one operation at a time
        self._adopt = adopt
        self._changed = changed
        self._postmaster: Child | None = None
        self._frozen = False
        self._stopping = False
        self._ready = False
        self._ends: set[asyncio.Future[None]] = set()  # a task nobody holds may vanish

    def status(self) -> NodeStatus:
        """Look at the node from outside the database, which may not answer."""
        postmaster = self._postmaster
        # PostgreSQL removes the file when a promotion ends, so it is true of a dead node as well.
        role: Literal["primary", "standby"] = "standby" if (self.data / "standby.signal").exists() else "primary"
        return NodeStatus(self.name, self.state, self.stays_off, postmaster.pid if postmaster else None, role)

    @property
    def state(self) -> State:
        if self._postmaster is None:
            return "stopped"
        return "frozen" if self._frozen else "stopping" if self._stopping else "running"

    @property
    def reachable(self) -> bool:
        """Whether connects to it are taken by a kernel: a frozen host's still does, a dead process's does not."""
        return self._postmaster is not None and self._ready

    def feeds(self) -> bool:
        """Whether a standby streams from it, by the title PostgreSQL gives its walsender."""
        titles = [processes.title(pid) for pid in self._members()]
        return any(b"walsender" in title and b" streaming " in title for title in titles)

    @property
    def stays_off(self) -> bool:
        return self._marker.exists()

    async def start(self) -> None:
        """Start PostgreSQL and return when it accepts connections. Refused while the node is fenced."""
        if self.stays_off:
            raise Refused(
                f"node {self.name}: powered off and stays off; POST /nodes/{self.name}/release allows it again"
            )
        if self._postmaster is not None:
            return
        self._clear_remains()
        self._postmaster = self._spawn()
        try:
            await asyncio.wait_for(self._accepting(self._postmaster), _PATIENCE)
        except TimeoutError:
            raise LabError(
                f"node {self.name}: no connection accepted within {_PATIENCE:g} s; see {self._log}"
            ) from None
        self._ready = True
        await self._changed()

    async def kill(self) -> None:
        """Kill every process of the node at once, as a loss of power does. Works on a frozen one."""
        postmaster = self._postmaster
        self._ready = False
        await self._changed()
        # Frozen first, so that no backend outlives the postmaster long enough to commit.
        with contextlib.suppress(LabError):
            processes.freeze(self._members)
        processes.kill(self._members)
        if postmaster is not None:
            await postmaster.exited.wait()
        self._clear_remains()

    async def power_off(self) -> None:
        """Kill the node and make sure that nothing starts it again until `release`."""
        self._marker.touch()
        await self.kill()

    def shut_down(self) -> None:
        """Begin to end it in good order: its standby gets every byte, the shutdown checkpoint's too. It stays off."""
        if self._frozen:
            raise Refused(f"node {self.name}: is frozen, so it cannot end in good order")
        self._marker.touch()
        if self._postmaster is not None and not self._stopping:
            self._stopping = True
            self._postmaster.signal(signal.SIGINT)

    def release(self) -> None:
        """Allow the node to be started again; it does not start by itself."""
        self._marker.unlink(missing_ok=True)

    async def freeze(self) -> None:
        """Stop all its processes: the host's kernel still accepts connections, nothing answers."""
        if self._postmaster is None:
            raise Refused(f"node {self.name}: is stopped, so it cannot be frozen")
        processes.freeze(self._members)
        self._frozen = True
        await self._changed()

    async def thaw(self) -> None:
        """Let a frozen node go on where it was."""
        if self._frozen:
            self._frozen = False
            processes.send(self._members(), signal.SIGCONT)
            await self._changed()

    @property
    def _marker(self) -> Path:
        return self.data.parent / "stays_off"

    @property
    def _log(self) -> Path:
        return self.addresses.folder / "logs" / f"postgres-{self.name}.log"

    def _members(self) -> list[int]:
        return processes.of_folder(self.data, "postgres")

    def _spawn(self) -> Child:
        binaries = self.storage.binaries
        argv = [binaries.program("postgres"), "-D", str(self.data)]
        popen = processes.start(argv, log=self._log, cwd=self.data, env=binaries.environment, user=binaries.user)
        child = self._adopt(f"postgres-{self.name}", popen)
        child.exited_hooks.append(self._died)
        return child

    def _died(self) -> None:
        self._postmaster, self._frozen, self._stopping, self._ready = None, False, False, False
        self._ends.add(task := asyncio.ensure_future(self._changed()))
        task.add_done_callback(self._ends.discard)

    def _clear_remains(self) -> None:
        """Remove what a power cycle removes: orphaned processes and shared memory.

        And the pid file, whose pid may by now be anybody's.
        """
        processes.kill(self._members)
        shm.remove(self.data / "postmaster.pid")
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    async def _accepting(self, postmaster: Child) -> None:
        endpoint = self.addresses.own_side(self.name)
        while not await accepts(endpoint.host, endpoint.port):
            if not postmaster.running:
                raise LabError(f"node {self.name}: PostgreSQL ended while it started; see {self._log}")
            await asyncio.sleep(_POLL)


async def accepts(host: str, port: int) -> bool:
    """Tell whether a PostgreSQL server begins a session: it asks for the password, or says it is not ready."""
    body = struct.pack("!I", 196608) + b"user\0failover\0database\0postgres\0\0"  # protocol 3.0
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        writer.write(struct.pack("!I", len(body) + 4) + body)
        return await reader.readexactly(1) == b"R"
    except (OSError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.transport.abort()
