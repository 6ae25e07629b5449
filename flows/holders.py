"""Who holds a lease: a process that is dead or alive for certain, and a drill, which makes way for a live run."""

from __future__ import annotations

import os
import platform
import secrets
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from flows.clock import boot_id
from flows.events import ExecutionStarted
from flows.journal import Busy, Holder, Journal, SaidMakeWay
from runbooks.model import Mode


class Drills:
    """Of one live run: the drills that it met, each asked once to make way.

    Must never happen: a lease is taken from a drill whose call may be out. So nothing is taken here: a drill gives its
    leases back when its act has ended, or they end by themselves, because it renews them no more.
    """

    def __init__(self, journal: Journal, execution: str) -> None:
        self._journal = journal
        self._execution = execution
        self._met: dict[str, bool] = {}

    def hold(self, busy: Busy, now: datetime) -> bool | None:
        """Tell whether a drill holds it, which makes way now; None when the holder has not even written its first event."""
        name = busy.holder.name
        if name not in self._met:
            rows = self._journal.read(busy.holder.execution)
            if not rows:
                return None
            started = rows[0][1]
            self._met[name] = isinstance(started, ExecutionStarted) and started.mode is Mode.drill
            if self._met[name] and not is_dead(busy.holder):
                asks = SaidMakeWay(
                    by=f"execution {self._execution}", reason=f"live execution {self._execution} needs {busy.target}", holder=name
                )
                self._journal.put(busy.holder.execution, asks, now)
        if self._met[name] and is_dead(busy.holder):
            self._journal.break_lease(busy.holder, now)
        return self._met[name]


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
