"""Processes: start them so that they die with us, know them again, freeze, thaw and kill whole trees."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)  # loaded before any fork: the child must not import or allocate much
_ROUNDS = 50


@dataclass(frozen=True)
class Identity:
    """A process that cannot be confused with a later one of the same pid: pid and start time in clock ticks."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return (stat := _stat(self.pid)) is not None and stat.started == self.started and stat.state not in "ZX"


@dataclass(frozen=True)
class User:
    """An account to run a program under."""

    uid: int
    gid: int


class Child:
    """A process of ours. It dies when the thread that started it ends, so start it from the main thread."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.popen = popen
        self.pid = popen.pid
        self.identity = identity(popen.pid)
        self.exited = asyncio.Event()
        self.exited_hooks: list[Callable[[], None]] = []
        self._pidfd = os.pidfd_open(popen.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.popen.wait()
        self.exited.set()
        for hook in self.exited_hooks:
            hook()

    @property
    def running(self) -> bool:
        return not self.exited.is_set()

    def signal(self, number: signal.Signals) -> None:
        if self.running:
            self.popen.send_signal(number)

    async def stop(self, grace: float = 0.0) -> None:
        """End it: SIGTERM and `grace` seconds if there are any, then SIGKILL; return when it is gone."""
        if grace:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.exited.wait(), grace)
        self.signal(signal.SIGKILL)
        await self.exited.wait()


def start(
    argv: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str], user: User | None = None
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own that gets SIGKILL when this process dies."""
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own programs
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no Python locks
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )


def die_with_parent() -> Callable[[], None]:
    """Make what a child runs before its program, so that it gets SIGKILL when the thread that started it ends."""
    parent = os.getpid()

    def arrange() -> None:
        # After the change of user, which would clear it. Checked, because the parent may have died in between.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def identity(pid: int) -> Identity:
    """Return who `pid` is now. Fails when there is no such process."""
    if (stat := _stat(pid)) is None:
        raise LabError(f"process {pid}: gone before it could be looked at")
    return Identity(pid, stat.started)


def of_folder(folder: Path, program: str) -> list[int]:
    """List the live processes running `program` whose working directory is `folder` or below it.

    That is how a PostgreSQL tree is known: every process of it sits in its data folder, also those whose postmaster
    is gone, and a shell of a user who went there to look is left alone.
    """
    return [pid for pid in _pids() if _stands_in(pid, folder) and _program(pid) == program and _alive(pid)]


def with_environment(name: str, value: str) -> list[int]:
    """List the live processes that were started with `name=value` in their environment, ourselves excepted."""
    wanted = f"{name}={value}".encode()
    found = []
    for pid in _pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:  # gone, or another user's
            continue
        if wanted in environment and pid != os.getpid() and _alive(pid):
            found.append(pid)
    return found


def title(pid: int) -> bytes:
    """Return what a process calls itself; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def freeze(members: Callable[[], Iterable[int]]) -> None:
    """Stop every process of a tree, and look again until no new one appears."""
    for _ in range(_ROUNDS):
        moving = [pid for pid in members() if (stat := _stat(pid)) and stat.state not in "TtZX"]
        if not moving:
            return
        send(moving, signal.SIGSTOP)
        time.sleep(0.001)  # a stop is delivered, not awaited
    raise LabError(f"processes {moving}: still running after SIGSTOP")


def kill(members: Callable[[], Iterable[int]], patience: float = 10.0) -> None:
    """Kill a tree and return when none of it lives; zombies are gone. Fails after `patience` seconds."""
    until = time.monotonic() + patience
    while remaining := list(members()):
        if time.monotonic() > until:
            raise LabError(f"processes {remaining}: still there {patience:g} s after SIGKILL")
        send(remaining, signal.SIGKILL)
        time.sleep(0.001)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass(frozen=True)
class _Stat:
    state: str
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return _Stat(state=fields[0], started=int(fields[19]))


def _alive(pid: int) -> bool:
    return (stat := _stat(pid)) is not None and stat.state not in "ZX"


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - hot, names only


def _stands_in(pid: int, folder: Path) -> bool:
    try:
        here = str(Path(f"/proc/{pid}/cwd").readlink()).removesuffix(" (deleted)")
    except OSError:
        return False
    return here == str(folder) or here.startswith(f"{folder}/")


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)")
    except OSError:
        return ""
