"""Who holds a lease, whether that process is dead for certain, and how long its right lasts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows import acquiring, holders
from flows.acquiring import Acquiring
from flows.clock import SystemClock, uptime
from flows.events import Event
from flows.holders import is_dead
from flows.journal import Busy, Held, Holder
from flows.journal_sqlite import SqliteJournal
from flows.lease_keeper import LEASE
from flows.runs import Request, start
from tests.flows.world import Set, make_plan, step

ROOT = Path(__file__).parents[2]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holders, "_installation", lambda: "this-machine")


def changed(holder: Holder, part: int, to: str) -> Holder:
    """The holder, with another machine (0), process namespace (1), boot (2) or birth (3)."""
    parts = holder.boot.split("/")
    parts[part] = to
    return replace(holder, boot="/".join(parts))


def test_a_process_is_dead_when_it_ended_and_not_before() -> None:
    script = "from flows.holders import me; one = me('e1'); print(one.host, one.pid, one.boot, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        host, pid, boot = child.stdout.readline().split(" ", 2)
        holder = Holder("e1", "e1/x", host, int(pid), boot.strip())
        assert not is_dead(holder)
        child.communicate("\n")
    assert is_dead(holder)


def test_another_process_of_the_same_number_is_another_one(machine: None) -> None:
    assert not is_dead(holders.me("e1"))
    assert is_dead(changed(holders.me("e1"), 3, "1"))


def test_a_process_of_an_earlier_boot_of_this_machine_is_dead(machine: None) -> None:
    assert is_dead(changed(holders.me("e1"), 2, "yesterday"))


@pytest.mark.parametrize("part", [0, 1])
def test_another_machine_or_container_of_the_same_name_is_not_known_to_be_dead(machine: None, part: int) -> None:
    other = changed(changed(changed(holders.me("e1"), part, "another"), 2, "another-boot"), 3, "1")
    assert not is_dead(other)


def test_who_cannot_tell_its_boot_is_never_proven_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that sees no /proc/sys: the same machine and namespace, and the process lives."""
    monkeypatch.setattr(holders, "boot_id", lambda: "")
    service = holders.me("e1")
    monkeypatch.undo()
    assert not is_dead(service)


def test_without_an_id_of_the_machine_another_boot_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holders, "_installation", lambda: "")
    assert not is_dead(changed(holders.me("e1"), 2, "another-boot"))


def test_a_slow_journal_does_not_lengthen_the_lease(tmp_path: Path) -> None:
    class Slow(SqliteJournal):
        def append(self, execution: str, after: int, events: Sequence[Event], lease: Holder | None = None) -> int:
            time.sleep(0.3)
            return super().append(execution, after, events, lease)

    journal = Slow(tmp_path / "journal.db")
    engine = start(journal, Request(make_plan(step("a", Set)), "kim", "test"), SystemClock())
    assert engine.leases[2] - uptime() <= LEASE.total_seconds() - 0.3
    journal.close()


def test_a_slow_look_at_a_lease_is_no_sign_that_its_holder_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that waited for the file longer than the next one must not make the lease look renewed."""

    class Slow(SqliteJournal):
        asked = 0

        def acquire(self, targets: Iterable[str], holder: Holder, ttl: timedelta, now: datetime) -> Held | Busy:
            self.asked += 1
            time.sleep(0.3 if self.asked == 2 else 0)
            return super().acquire(targets, holder, ttl, now)

    monkeypatch.setattr(acquiring, "LEASE", timedelta(seconds=2))
    journal = Slow(tmp_path / "journal.db")
    journal.acquire(["execution:e1", "sim:a"], Holder("e1", "e1/x", "elsewhere", 1, ""), acquiring.LEASE, datetime.now(UTC))
    took = Acquiring(journal, holders.me("e1"), SystemClock(), live=False, tell=print).take_over(["sim:a"])
    assert set(took.tokens) == {"execution:e1", "sim:a"}
    assert journal.asked > 3
    journal.close()
