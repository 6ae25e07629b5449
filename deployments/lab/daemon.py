"""A lab's supervisor from outside: whether it lives, how it starts, how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .addresses import Addresses, base_folder
from .cleanup import sweep
from .errors import LabError, Refused
from .processes import Identity
from .programs import MARK, package_path

_UP = 90.0  # seconds; 3 to 5 on a machine of 2 cores
_TRIES = 10
_END = 10.0  # seconds from SIGTERM to SIGKILL


def log(addresses: Addresses) -> Path:
    """Where the supervisor writes; outside the lab's folder, which goes when it fails."""
    return base_folder() / f"{addresses.number}.log"


def lives(addresses: Addresses) -> bool:
    """Whether a supervisor, or somebody who is starting one, holds the lab's lock."""
    try:
        with addresses.lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def start(addresses: Addresses, options: dict[str, Any]) -> None:
    """Start the supervisor and return when its lab is ready. Where that fails, or is interrupted, nothing is left."""
    _prepare(base_folder())
    lock = _take(addresses)
    try:
        answer = _launch(addresses, json.dumps(options), lock)
    except BaseException:
        os.close(lock)  # before the end, which waits until nobody holds it
        end(addresses)
        raise
    os.close(lock)
    if "error" in answer:
        end(addresses)  # it has swept already, and is about to be gone
        raise LabError(f"lab {addresses.number}: {answer['error']}; {log(addresses)} tells more")


def end(addresses: Addresses) -> list[str]:
    """End the supervisor nicely, else by force, and sweep; return what had been left over."""
    identity = _recorded(addresses.folder / "state.json")
    until = time.monotonic() + _END
    if identity is not None and identity.alive and lives(addresses):
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, signal.SIGTERM)
        while identity.alive and time.monotonic() < until:
            time.sleep(0.02)
    found = sweep(addresses)
    while lives(addresses):  # one that is being started: it has the lock before it can be found
        if time.monotonic() > until:
            raise LabError(f"lab {addresses.number}: {addresses.lock} is still held; see who with fuser")
        time.sleep(0.02)
        found += sweep(addresses)
    return found


def _take(addresses: Addresses) -> int:
    """Take the lab's lock. Whoever inherits it holds it too, from before it is a process of its own."""
    lock = os.open(addresses.lock, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)  # perhaps somebody who only looks
        else:
            return lock
    os.close(lock)
    raise Refused(f"lab {addresses.number}: is up already; `failover lab down` ends it")


def _launch(addresses: Addresses, options: str, lock: int) -> dict[str, Any]:
    """Start the supervisor and wait for the one line that it says."""
    ours, theirs = os.pipe()
    argv = [sys.executable, "-m", "deployments.lab.supervisor", "--lab", str(addresses.number), "--lock", str(lock)]
    ways = {"PYTHONPATH": package_path(), "PYTHONSAFEPATH": "1", MARK: str(addresses.folder)}
    with os.fdopen(ours, "rb") as report:
        with os.fdopen(theirs, "wb"), log(addresses).open("wb") as output:
            subprocess.run(  # noqa: S603 - our own program; it returns at once and goes on as a daemon
                [*argv, "--options", options, "--report", str(theirs)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs, lock],
                start_new_session=True,
                cwd=base_folder(),
                env=os.environ | ways,
                check=False,
            )
        answered = select.select([report], [], [], _UP)[0]
        line = report.readline() if answered else b""
    if not line:
        last = log(addresses).read_text(errors="replace").strip().splitlines()[-1:]
        raise LabError(f"lab {addresses.number}: its supervisor did not come up: {''.join(last) or 'it said nothing'}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _recorded(state: Path) -> Identity | None:
    try:
        row = json.loads(state.read_text())[0]
        return Identity(row["pid"], row["started"])
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _prepare(base: Path) -> None:
    """Make the folder of all labs; refuse one that somebody else could have made in a folder open to all."""
    base.mkdir(mode=0o711, exist_ok=True)
    info = base.lstat()
    if info.st_uid != os.getuid() or info.st_mode & 0o022 or not base.is_dir() or base.is_symlink():
        raise LabError(f"{base}: is not a folder of yours alone; remove it, or set TMPDIR to another place")
    base.chmod(0o711)
