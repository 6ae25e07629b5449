"""Promotion on real servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from tasks.clients import Clients
from tasks.contract import ActionFailed, Seen
from tasks.postgres_facts import LOCK
from tasks.postgres_promote import Promote, Promotion
from tasks.postgres_server import Heartbeat
from tests.tasks.conftest import Pair
from tests.tasks.postgres_nodes import caught_up, until

MakePair = Callable[..., Pair]


def look(step: Promote, clients: Clients, earlier: Seen[Promotion] | None = None) -> Seen[Promotion]:
    state, at = step.observe(clients), datetime.now(UTC)
    return Seen(step.fold(earlier, Seen(state, at)), at)


def carry_out(step: Promote, clients: Clients, limit: float = 10.0) -> Promotion:
    """Observe, act, and act again every `resend`, as the engine does."""
    seen = look(step, clients)
    end, last_act = time.monotonic() + limit, 0.0
    while not step.done(seen.state):
        assert time.monotonic() < end, step.explain(seen.state)
        assert step.refuse(seen.state) is None
        assert step.resend is not None
        if time.monotonic() - last_act >= step.resend.total_seconds():
            step.act(seen.state, clients)
            last_act = time.monotonic()
        time.sleep(step.interval.total_seconds())
        seen = look(step, clients, seen)
    return seen.state


def test_a_standby_becomes_a_writable_primary_without_the_five_second_stall(pair: MakePair, clients: Clients) -> None:
    taken = []
    for _ in range(4):
        primary, standby = pair()
        step = Promote(standby=standby.server(), heartbeat=Heartbeat())
        step.observe(clients)
        primary.kill()
        began = time.monotonic()
        state = carry_out(step, clients)
        taken.append(time.monotonic() - began)
        assert (state.timeline_before, state.timeline, state.writable) == (1, 2, True)
        assert state.loss_seconds_at_most is not None
        standby.do("INSERT INTO orders VALUES (1)")
    assert max(taken) < 2.0, taken
    print("promotions took", [round(one, 3) for one in taken])


def test_the_lock_is_held_after_the_promotion_and_until_the_attempt_ends(pair: MakePair, clients: Clients) -> None:
    _, standby = pair()
    carry_out(Promote(standby=standby.server()), clients)
    held = f"SELECT NOT pg_try_advisory_lock({LOCK})"
    assert standby.ask(held) is True
    clients.close()
    until(lambda: standby.ask(held) is False)


def test_a_rival_who_holds_the_lock_keeps_us_out(pair: MakePair, clients: Clients) -> None:
    _, standby = pair()
    step = Promote(standby=standby.server())
    with standby.session() as rival:
        rival.execute(f"SELECT pg_advisory_lock({LOCK})")
        with pytest.raises(ActionFailed, match="someone else is promoting") as refused:
            step.act(step.observe(clients), clients)
    assert "test" in refused.value.reason
    assert standby.ask("SELECT pg_is_in_recovery()") is True


def test_inherited_synchronous_names_do_not_hang_the_first_commit(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    standby.do("ALTER SYSTEM SET synchronous_standby_names = 'west'", "SELECT pg_reload_conf()")
    step = Promote(standby=standby.server())
    step.observe(clients)
    primary.kill()
    state = carry_out(step, clients)
    assert (state.synchronous_before, state.synchronous_now, state.commits_wait) == ("west", "", False)
    with standby.session("shop") as session:
        session.execute("SET statement_timeout = '2s'")
        session.execute("INSERT INTO orders VALUES (1)")


def test_keep_leaves_the_names_and_says_that_commits_wait(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    standby.do("ALTER SYSTEM SET synchronous_standby_names = 'west'", "SELECT pg_reload_conf()")
    step = Promote(standby=standby.server(), synchronous="keep")
    step.observe(clients)
    primary.kill()
    state = carry_out(step, clients)
    assert (state.synchronous_now, state.commits_wait) == ("west", True)


def test_a_server_that_was_writable_all_along_is_not_taken_for_ours(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    step = Promote(standby=primary.server())
    state = look(step, clients).state
    assert not step.done(state)
    assert "nothing says that it is the right server" in (step.refuse(state) or "")
    behind = Promote(standby=primary.server(), system_id=state.system_id, timeline=1)
    assert not behind.done(state)
    assert "a promotion would have left 1" in (behind.refuse(state) or "")


def test_a_promotion_found_after_a_crash_is_taken_when_system_and_timeline_fit(
    pair: MakePair, clients: Clients
) -> None:
    _, standby = pair()
    first = carry_out(Promote(standby=standby.server()), clients)
    again = Promote(standby=standby.server(), system_id=first.system_id, timeline=1)
    assert again.done(look(again, clients).state)


def test_act_on_a_server_that_is_promoted_already_does_nothing(pair: MakePair, clients: Clients) -> None:
    _, standby = pair()
    step = Promote(standby=standby.server())
    state = carry_out(step, clients)
    step.act(state, clients)
    assert step.observe(clients).timeline == 2


def test_who_is_not_eligible_is_refused_with_the_reason(pair: MakePair, clients: Clients) -> None:
    _, standby = pair()
    step = Promote(standby=standby.server(), heartbeat=Heartbeat(), max_loss=timedelta(seconds=30))
    state = step.observe(clients)
    assert step.refuse(state) is None
    refusals = {
        "system": (step.model_copy(update={"system_id": "42"}), state),
        "timeline": (step.model_copy(update={"timeline": 9}), state),
        "paused": (step, state.model_copy(update={"replay_paused": True})),
        "no WAL": (step, state.model_copy(update={"received_lsn": None, "heartbeat_at": None})),
        "may be lost": (step, state.model_copy(update={"loss_seconds_at_most": 31.0})),
        "not known": (step, state.model_copy(update={"loss_seconds_at_most": None})),
    }
    for part, (asked, seen) in refusals.items():
        assert part in (asked.refuse(seen) or "")


def test_the_loss_ends_when_the_fence_held_not_when_we_look(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    beat = primary.ask("SELECT max(at) FROM heartbeat")
    assert isinstance(beat, datetime)
    step = Promote(standby=standby.server(), heartbeat=Heartbeat(), acknowledged_until=beat + timedelta(seconds=4))
    assert step.observe(clients).loss_seconds_at_most == 4.0


def test_a_heartbeat_that_is_not_there_does_not_stop_a_recovery(pair: MakePair, clients: Clients) -> None:
    _, standby = pair()
    state = Promote(standby=standby.server(), heartbeat=Heartbeat(table="pulse")).observe(clients)
    assert state.heartbeat_at is None
    assert "pulse" in state.detail


def test_the_write_test_leaves_no_row_and_sees_read_only(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    primary.do("ALTER ROLE failover SET default_transaction_read_only = on")
    state = Promote(standby=primary.server()).observe(clients)
    assert not state.writable
    assert "read-only" in state.detail
    assert Promote(standby=primary.server()).observe(clients).in_recovery is False


def test_a_role_with_the_documented_grants_and_no_more_can_promote(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    primary.do(
        "CREATE ROLE engine LOGIN IN ROLE pg_monitor",
        "GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf() TO engine",
        "GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO engine",
        "GRANT SELECT ON heartbeat TO engine",
    )
    until(lambda: caught_up(primary, standby))
    standby.do("ALTER SYSTEM SET synchronous_standby_names = 'west'", "SELECT pg_reload_conf()")
    step = Promote(standby=standby.server(user="engine"), heartbeat=Heartbeat())
    step.observe(clients)
    primary.kill()
    state = carry_out(step, clients)
    assert (state.writable, state.synchronous_now, state.loss_seconds_at_most is not None) == (True, "", True)


def test_revoked_clients_promote_nothing(pair: MakePair) -> None:
    _, standby = pair()
    attempt = Clients()
    step = Promote(standby=standby.server())
    state = step.observe(attempt)
    attempt.revoke("the step timed out")
    with pytest.raises(Exception, match="timed out"):
        step.act(state, attempt)
    assert standby.ask("SELECT pg_is_in_recovery()") is True


def test_hands_are_told_to_choose_where_nobody_was_chosen_yet() -> None:
    server = {"host": "a.example", "database": "shop", "user": "failover"}
    (line,) = Promote.model_validate({"standbys": {"a": server, "b": server}, "chosen": None}).by_hand()
    assert "received most" in line
    for wrong in ({"standbys": {"a": server}}, {"standby": server, "chosen": "a"}, {}, {"standby": server, "standbys": {"a": server}}):
        with pytest.raises(ValidationError):
            Promote.model_validate(wrong)
