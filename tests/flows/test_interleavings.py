"""Two runners of one execution, interleaved in more than 10 000 ways: one holder at a time, and every effect once.

And a live run that comes while a drill is under way, in 1000: the drill makes way, and nobody takes anything from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from sqlite3 import Connection
from time import sleep

import pytest

from flows import holders, lease_keeper
from flows.clock import SystemClock, uptime
from flows.engine import Engine
from flows.journal import Busy, Halt, Held, Holder, Received, SaidMakeWay
from flows.journal_sqlite import SqliteJournal
from flows.journal_sqlite_leases import Leases
from flows.lease_keeper import LeaseKeeper
from flows.runs import Request, start
from tests.flows.drill_and_live import LATE, DrillAndLive
from tests.flows.two_runners import Broken, Draw, explore, machine
from tests.flows.world import Set, make_plan, step

SCHEDULES = 10_100
"""Of which a few are alike."""
WAYS = 1000
"""Of a live run that comes while a drill is under way."""
ENOUGH = range(1000)
"""Schedules within which what is broken on purpose must be found."""
HARD = Draw(stalls=(1.0, 4.5), stops=(13.0, 16.0, 25.0), calls=(2.0, 4.0), settles=(20.0,), troubles=6)
"""More of what matters, so that it is found soon."""


@pytest.mark.timeout(600)
def test_two_runners_never_call_at_the_same_time_and_no_effect_happens_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = explore(monkeypatch, tmp_path, range(SCHEDULES))
    assert len(seen.schedules) >= 10_000
    for what in ("announced", "taken over", "killed", "stopped beyond the TTL", "LeaseLost", "Conflict", "TargetBusy"):
        assert seen.counts[what] > 10, what  # else the schedules do not come where it matters


def test_nothing_is_found_in_the_same_schedules_when_nothing_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert explore(monkeypatch, tmp_path, range(100), HARD).counts["taken over"] > 100


def test_without_the_guard_it_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(LeaseKeeper, "guard", lambda _self: None)
    with pytest.raises(Broken):
        explore(monkeypatch, tmp_path, ENOUGH, HARD)


def test_a_guard_that_leaves_no_room_for_the_call_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lease_keeper, "CALL", timedelta(0))
    with pytest.raises(Broken):
        explore(monkeypatch, tmp_path, ENOUGH, HARD)


def test_a_dead_holders_lease_that_is_taken_while_its_call_is_out_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(holders, "may_have_a_call_out", lambda *_: False)
    with pytest.raises(Broken):
        explore(monkeypatch, tmp_path, ENOUGH, HARD)


def test_a_lease_that_is_shorter_than_its_holder_thinks_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    renew = SqliteJournal.renew
    monkeypatch.setattr(
        SqliteJournal, "renew", lambda self, holder, ttl, now: renew(self, holder, ttl - timedelta(seconds=3), now)
    )
    with pytest.raises(Broken):
        explore(monkeypatch, tmp_path, ENOUGH, HARD)


def test_a_journal_that_gives_a_held_lease_away_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    acquire = Leases.acquire

    def hasty(_self: Leases, db: Connection, targets: Iterable[str], holder: Holder, ttl: timedelta, now: datetime) -> Held | Busy:
        return acquire(Leases(lambda: machine().now + ttl.total_seconds()), db, targets, holder, ttl, now)

    monkeypatch.setattr(Leases, "acquire", hasty)
    with pytest.raises(Broken):
        explore(monkeypatch, tmp_path, ENOUGH, HARD)


def test_an_announcement_without_a_look_at_the_lease_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(SqliteJournal, "_may_act", lambda *_: None)
    with pytest.raises(Broken):
        explore(monkeypatch, tmp_path, ENOUGH, HARD)


def test_a_drill_that_makes_way_never_calls_beside_the_live_run_and_is_not_disturbed_before_it_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = explore(monkeypatch, tmp_path, range(WAYS), LATE, DrillAndLive)
    assert len(seen.schedules) >= 0.95 * WAYS
    for what in ("asked", "made way", "live refused", "taken over", "killed", "stopped beyond the TTL", "LeaseLost"):
        assert seen.counts[what] > 10, what


def test_a_live_run_that_takes_a_living_drills_lease_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(holders, "is_dead", lambda _: True)
    with pytest.raises(Broken, match="its process lives"):
        explore(monkeypatch, tmp_path, ENOUGH, LATE, DrillAndLive)


def test_a_drill_that_gives_its_leases_back_while_its_call_is_out_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def at_once(keeper: LeaseKeeper) -> None:
        keeper._gives_way = True
        keeper._journal.release(keeper.holder, keeper._clock.now())

    monkeypatch.setattr(LeaseKeeper, "make_way", at_once)
    with pytest.raises(Broken):
        explore(monkeypatch, tmp_path, ENOUGH, LATE, DrillAndLive)


def test_a_drill_that_obeys_what_another_one_was_asked_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hear = Engine._hear

    def meant(engine: Engine, received: Received) -> None:
        said = received.said
        if isinstance(said, SaidMakeWay):
            received = replace(received, said=said.model_copy(update={"holder": engine._leases.holder.name}))
        hear(engine, received)

    monkeypatch.setattr(Engine, "_hear", meant)
    with pytest.raises(Broken, match="nobody asked it to"):
        explore(monkeypatch, tmp_path, ENOUGH, LATE, DrillAndLive)


def test_a_slow_look_at_the_kill_switch_does_not_lengthen_the_lease(tmp_path: Path) -> None:
    """Found by the schedules: the time that the journal counts from was taken long before the engine's own."""

    class Slow(SqliteJournal):
        def halts(self) -> list[Halt]:
            sleep(0.3)
            return super().halts()

    journal, clock = Slow(tmp_path / "journal.db"), SystemClock()
    engine = start(journal, Request(make_plan(step("a", Set)), "kim", "test"), clock)
    by_the_journal = min(lease.left for lease in journal.leases())
    assert engine.leases[2] - uptime() <= by_the_journal.total_seconds() + 0.01
    journal.close()
