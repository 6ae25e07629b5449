"""Who holds a lease: a live run or a drill, and a process that is dead or alive for certain."""

from __future__ import annotations

import os
import platform
import secrets
from contextlib import suppress
from pathlib import Path

from flows.clock import boot_id
from flows.events import ExecutionStarted
from flows.journal import Holder, Journal
from runbooks.model import Mode


def mode_of(journal: Journal, execution: str) -> Mode | None:
    """The mode of an execution; None when it has no first event (yet)."""
    started = next((event for _, event in journal.read(execution)), None)
    return started.mode if isinstance(started, ExecutionStarted) else None


def is_dead(holder: Holder) -> bool:
    """Proof that a holder's process is gone: same machine, and another boot, no such process, or another one of its id.

    A host's name proves nothing: machines that share a journal may have the same one.
    """
    ours = me(holder.execution)
    machine, _, born = holder.boot.rpartition("/")
    if holder.host != ours.host or not machine:
        return False
    here = ours.boot.rpartition("/")[0]
    if machine == here:
        return _born(holder.pid) != born
    return _installation() != "" and machine.split("/")[:2] == here.split("/")[:2]


def lives_here(holder: Holder) -> bool:
    """Proof that a holder's process lives: this machine's, of this boot, and started when it says."""
    machine, _, born = holder.boot.rpartition("/")
    ours = me(holder.execution)
    same = machine != "" and holder.host == ours.host and machine == ours.boot.rpartition("/")[0]
    return same and _born(holder.pid) == born


def me(execution: str) -> Holder:
    """Give this process as the holder of an execution's leases."""
    pid = os.getpid()
    boot, started = "", boot_id()
    with suppress(OSError):  # Linux only; elsewhere, and where any of it is hidden, a takeover waits for the lease
        boot = f"{_installation()}/{Path('/proc/self/ns/pid').readlink()}/{started}/{_born(pid)}" if started else ""
    return Holder(execution, f"{execution}/{secrets.token_hex(8)}", platform.node(), pid, boot)


def _installation() -> str:
    """The machine's own id, which outlives its boots; '' when it has none."""
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError:
        return ""


def _born(pid: int) -> str:
    """Start time of a process in clock ticks since boot; '' when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
