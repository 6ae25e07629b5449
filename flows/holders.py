"""Who holds a lease: a process that is dead or alive for certain, and a drill, which makes way for a live run."""

from __future__ import annotations

import os
import platform
import secrets
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from flows.clock import boot_id, uptime
from flows.events import ExecutionFinished, ExecutionStarted, Interrupted
from flows.journal import Busy, Holder, Journal, SaidMakeWay, Unreadable
from flows.state import fold
from runbooks.model import Mode


class Dead:
    """Of one taker: the holders whose process is gone, each from when it was first seen so.

    Must never happen: a lease passes on while the last call of its dead holder is out; it would land after the taker had
    looked, and the taker would make it again. `let_go` waits for the longest call where the journal knows of one.
    """

    def __init__(self, journal: Journal, call: timedelta) -> None:
        self._journal, self._call = journal, call
        self._over: dict[str, float] = {}

    def let_go(self, holder: Holder, now: datetime) -> bool:
        """Tell whether a holder is dead for certain; end its leases as soon as its last call is over."""
        if not is_dead(holder):
            return False
        if holder.name not in self._over:
            wait = self._call.total_seconds() if may_have_a_call_out(self._journal, holder.execution) else 0.0
            self._over[holder.name] = uptime() + wait
        if uptime() >= self._over[holder.name]:
            self._journal.break_lease(holder, now)
        return True


class Drills:
    """Of one live run: the drills that it met, each asked once to make way.

    Must never happen: a lease is taken from a drill whose call may be out. So nothing is taken here: a drill gives its
    leases back when its act has ended, or they end by themselves, because it renews them no more.
    """

    def __init__(self, journal: Journal, execution: str, call: timedelta) -> None:
        """call: how long the last call of a drill that died may be out."""
        self._journal = journal
        self._execution = execution
        self._met: dict[str, bool] = {}
        self._dead = Dead(journal, call)

    def hold(self, busy: Busy, now: datetime) -> bool | None:
        """Tell whether a drill holds it, which makes way now; None when the holder has not even written its first event."""
        name = busy.holder.name
        if name not in self._met:
            is_drill = self._is_drill(busy.holder.execution)
            if is_drill is None:
                return None
            self._met[name] = is_drill
            if self._met[name] and not is_dead(busy.holder):
                asks = SaidMakeWay(
                    by=f"execution {self._execution}", reason=f"live execution {self._execution} needs {busy.target}", holder=name
                )
                self._journal.put(busy.holder.execution, asks, now)
        if self._met[name]:
            self._dead.let_go(busy.holder, now)
        return self._met[name]

    def _is_drill(self, execution: str) -> bool | None:
        """None before its first event. What a newer version wrote and this one cannot read is no drill: it is left alone."""
        try:
            rows = self._journal.read(execution)
        except Unreadable:
            return False
        if not rows:
            return None
        started = rows[0][1]
        return isinstance(started, ExecutionStarted) and started.mode is Mode.drill


def may_have_a_call_out(journal: Journal, execution: str) -> bool:
    """Whether, by the journal, a dead process may have left a call behind: an act or an undo that did not end well."""
    try:
        steps = fold(event for _, event in journal.read(execution)).steps.values()
    except Unreadable:  # a newer version wrote what this one cannot read
        return True
    return any(one.undoing or (one.acting and (one.status is None or not one.status.lets_go_on)) for one in steps)


def has_ended(journal: Journal, execution: str) -> bool:
    """Whether an execution came to its end, or stopped in good order."""
    try:
        rows = journal.read(execution)
    except Unreadable:
        return False
    return bool(rows) and isinstance(rows[-1][1], ExecutionFinished | Interrupted)


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
