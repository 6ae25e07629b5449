"""After a lab, however it ended: no process, no shared memory, no folder."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from . import processes, shm
from .addresses import Addresses
from .processes import Identity
from .programs import MARK

_TRIES = 20


def sweep(addresses: Addresses) -> list[str]:
    """Remove every trace of the lab and tell what was found. The caller holds the lab's lock, or is alone with it."""
    folder = addresses.folder
    found = [f"process {pid}" for pid in _members(folder)]
    processes.kill(lambda: _members(folder))
    pid_files = folder.glob("nodes/**/postmaster.pid")
    found += [f"shared memory of {pid_file.parent}" for pid_file in pid_files if shm.remove(pid_file)]
    _remove(folder)
    return found


def _remove(folder: Path) -> None:
    """Remove a folder in which a thread of ours that is being stopped may still have written a file."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)
    shutil.rmtree(folder)  # says why not


def _members(folder: Path) -> list[int]:
    """Find by the state file, by environment and by working directory: each misses what another knows.

    The state file misses what was started a moment ago, PostgreSQL overwrites its environment, and its helpers have
    not yet gone to their folder when they begin.
    """
    known = [identity.pid for identity in _recorded(folder / "state.json") if identity.alive]
    everything = {*known, *processes.with_environment(MARK, str(folder)), *processes.of_folder(folder, "postgres")}
    return sorted(everything - {os.getpid()})


def _recorded(state: Path) -> Iterable[Identity]:
    try:
        rows = json.loads(state.read_text(encoding="utf-8"))
        return [Identity(int(row["pid"]), int(row["started"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []
