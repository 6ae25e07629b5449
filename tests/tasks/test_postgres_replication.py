"""What a standby tells of itself, its primary and the loss."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tasks.clients import Clients
from tasks.contract import ActionFailed
from tasks.postgres_promote import Promote
from tasks.postgres_replication import Replication
from tasks.postgres_server import Heartbeat, Server
from tests.tasks.conftest import Pair
from tests.tasks.parties import blackhole, closed_port
from tests.tasks.postgres_nodes import caught_up, until

MakePair = Callable[..., Pair]


def test_an_attached_standby_is_reported_with_its_primary(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    step = Replication(primary=primary.server(), standby=standby.server(), heartbeat=Heartbeat(), max_lag="1h")
    until(lambda: step.observe(clients).lag_bytes == 0)
    state = step.observe(clients)
    assert (state.in_recovery, state.attached, state.timeline, state.primary_answers) == (True, True, 1, True)
    assert state.system_id == state.primary_system_id
    assert [one.name for one in state.replicas] == ["west"]
    assert state.synchronous is False
    assert state.loss_at_least_seconds == 0.0
    assert state.loss_at_most_seconds is not None
    assert step.done(state)


def test_the_loss_is_a_range_from_what_both_know(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    step = Replication(primary=primary.server(), standby=standby.server(), heartbeat=Heartbeat())
    standby.freeze_receiver()
    primary.do("UPDATE heartbeat SET at = now() + interval '7 s'", "INSERT INTO orders SELECT generate_series(1, 1000)")
    state = step.observe(clients)
    standby.thaw()
    assert 7 <= state.loss_at_least_seconds < 20
    assert state.lag_bytes is not None
    assert state.lag_bytes > 10_000


def test_a_dead_primary_leaves_its_part_unknown(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    until(lambda: caught_up(primary, standby))
    primary.kill()
    step = Replication(primary=primary.server(), standby=standby.server(), heartbeat=Heartbeat(), max_lag="1h")
    until(lambda: not step.observe(clients).attached)
    state = step.observe(clients)
    assert (state.primary_answers, state.lag_bytes, state.loss_at_least_seconds) == (False, None, 0.0)
    assert state.loss_at_most_seconds is not None
    assert "cannot be asked" in state.detail
    assert not step.done(state)


def test_a_primary_that_hangs_costs_the_patience_once(pair: MakePair, clients: Clients) -> None:
    _, standby = pair()
    with blackhole() as hole:
        server = Server(host="127.0.0.1", port=hole, database="shop", user="failover")
        step = Replication(primary=server, standby=standby.server(), patience="300ms")
        began = time.monotonic()
        assert "no answer within 0.3s" in step.observe(clients).detail
        step.observe(clients)
        assert time.monotonic() - began < 0.8


def test_a_primary_of_another_system_is_not_believed(pair: MakePair, clients: Clients) -> None:
    _, standby = pair()
    step = Replication(primary=standby.server(), standby=standby.server())
    state = step.observe(clients)
    assert state.lag_bytes is None
    assert "is in recovery" in state.detail


def test_a_standby_that_cannot_be_asked_is_a_failure_worth_a_retry(clients: Clients) -> None:
    server = Server(host="127.0.0.1", port=closed_port(), database="shop", user="failover")
    with pytest.raises(ActionFailed) as failed:
        Replication(standby=server).observe(clients)
    assert failed.value.retry


def test_logical_slots_that_a_promotion_loses_are_named_before_and_after(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair(wal_level="logical")
    primary.do(*(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')" for name in ("cdc", "search")))
    step = Replication(primary=primary.server(), standby=standby.server())
    state = step.observe(clients)
    assert (state.logical_slots, state.logical_slots_kept, state.logical_slots_known) == (("cdc", "search"), (), True)
    assert "cdc, search" in step.explain(state)
    primary.kill()
    unknown = step.observe(clients)
    assert (unknown.logical_slots, unknown.logical_slots_known) == ((), False)
    assert "not known" in step.explain(unknown)
    declared = Replication(primary=primary.server(), standby=standby.server(), logical_slots=("cdc",)).observe(clients)
    assert (declared.logical_slots, declared.logical_slots_known) == (("cdc",), True)
    promote = Promote(standby=standby.server(), logical_slots=("cdc", "search"))
    assert "cdc, search" in promote.describe(promote.observe(clients))
    standby.do("SELECT pg_promote(false)")
    until(lambda: standby.ask("SELECT pg_is_in_recovery()") is False)
    assert promote.observe(clients).lost_logical_slots == ("cdc", "search")


def test_a_slot_that_the_standby_has_too_is_not_lost(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair(wal_level="logical")
    primary.do("SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')")
    with standby.session() as session:  # PostgreSQL 16 lets a standby decode; it waits for a word of its primary
        primary.do("SELECT pg_log_standby_snapshot()")
        done = threading.Event()

        def nudge() -> None:
            while not done.wait(0.05):
                primary.do("SELECT pg_log_standby_snapshot()")

        thread = threading.Thread(target=nudge)
        thread.start()
        try:
            session.execute("SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')")
        finally:
            done.set()
            thread.join()
    state = Replication(primary=primary.server(), standby=standby.server()).observe(clients)
    assert (state.logical_slots, state.logical_slots_kept) == ((), ("cdc",))


def test_a_failover_slot_that_was_synced_is_not_lost(pair_of_18: MakePair, clients: Clients) -> None:
    """Such slots came with PostgreSQL 17."""
    primary, standby = pair_of_18(wal_level="logical")
    primary.do("SELECT pg_create_physical_replication_slot('west')")
    primary.do("SELECT pg_create_logical_replication_slot('cdc', 'pgoutput', false, false, true)")
    primary.do("SELECT pg_create_logical_replication_slot('search', 'pgoutput')")
    told = f"host={primary.host} port={primary.port} user=failover application_name=west dbname=postgres"
    standby.do(
        f"ALTER SYSTEM SET primary_conninfo = '{told}'", "ALTER SYSTEM SET primary_slot_name = 'west'",
        "ALTER SYSTEM SET sync_replication_slots = on", "SELECT pg_reload_conf()",
    )  # fmt: skip
    step = Replication(primary=primary.server(), standby=standby.server())

    def synced() -> bool:
        primary.do("INSERT INTO orders VALUES (1)", "SELECT pg_replication_slot_advance('cdc', pg_current_wal_lsn())")
        return step.observe(clients).logical_slots_kept == ("cdc",)

    until(synced, 120)  # the slot worker sleeps up to 30 s
    assert step.observe(clients).logical_slots == ("search",)
