"""Planned changes of roles on real servers: nothing lost, never two writers, and a way on after every crash."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

import psycopg
import pytest

from tasks.clients import Clients
from tasks.contract import ActionFailed, Seen
from tasks.postgres_switchover import Switching, Switchover
from tests.tasks.conftest import Pair
from tests.tasks.parties import Web
from tests.tasks.postgres_host import carry_out, host_of
from tests.tasks.postgres_nodes import Node, until

MakePair = Callable[..., Pair]


def switchover(old: Node, new: Node, server: Web, **after: object) -> Switchover:
    return Switchover.model_validate({
        "primary": old.server(), "standby": new.server(), "host": {"control": {"url": server.url}}, "source": new.name,
        "before": {"name": new.name}, "after": {"name": old.name, "slot": old.name, **after},
    })  # fmt: skip


class Orders:
    """Orders the node all the time; `acknowledged` are those whose commit was answered."""

    def __init__(self, node: Node) -> None:
        self.acknowledged: list[int] = []
        self._node, self._over = node, threading.Event()
        self._thread = threading.Thread(target=self._order)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: len(self.acknowledged) > 5)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _order(self) -> None:
        number = 1000
        while not self._over.is_set():
            try:
                with self._node.session() as session:
                    while not self._over.is_set():
                        number += 1
                        session.execute("INSERT INTO orders VALUES (%s)", [number])
                        self.acknowledged.append(number)
            except psycopg.Error:
                self._over.wait(0.02)


def test_roles_change_under_load_and_every_acknowledged_order_is_there(pair: MakePair, clients: Clients) -> None:
    old, new = pair()
    with host_of(old, new) as (host, server):
        step = switchover(old, new, server, synchronous=old.name)
        with Orders(old) as orders:
            state = carry_out(step, clients)
        assert (state.candidate.in_recovery, state.candidate.timeline, state.candidate.writable) == (False, 2, True)
        assert (state.link.names, host.job["method"]) == (old.name, "start")
        with new.session() as session:
            there = {row[0] for row in session.execute("SELECT id FROM orders")}
        assert set(orders.acknowledged) <= there
        assert old.ask("SELECT pg_is_in_recovery()") is True
        new.do("INSERT INTO orders VALUES (1)")
        assert step.done(step.observe(clients))


@pytest.mark.parametrize("move", ["stop", "promote", "reprotect"])
def test_an_engine_that_died_after_any_move_leaves_a_way_on(pair: MakePair, clients: Clients, move: str) -> None:
    old, new = pair()
    with host_of(old, new) as (host, server):
        step = switchover(old, new, server)
        while True:
            state = step.observe(clients)
            made = step.move(state)
            if not step.underway(state):
                step.act(state, clients)
            if made == move:
                break
        clients.close()
        until(lambda: not host.running or move == "reprotect")
        state = carry_out(switchover(old, new, server), clients)
        assert (state.candidate.timeline, host.job["number"]) == (2, 1)


def test_a_standby_that_does_not_follow_closely_is_refused_and_nothing_is_stopped(pair: MakePair, clients: Clients) -> None:
    old, new = pair()
    new.stop()
    old.do("INSERT INTO orders SELECT generate_series(1, 20000)")
    new_conf = new.data / "postgresql.conf"
    new_conf.write_text(new_conf.read_text() + "primary_conninfo = ''\n")
    new.start()
    with host_of(old, new) as (host, server):
        step = switchover(old, new, server)
        state = step.observe(clients)
        assert "not attached" in (step.refuse(state) or "")
        assert step.move(state) is None
        step.act(state, clients)
        assert host.running


def test_a_standby_without_the_last_byte_is_never_promoted(pair: MakePair, clients: Clients) -> None:
    old, new = pair(wal_sender_timeout="1s")
    with host_of(old, new) as (host, server):
        step = switchover(old, new, server)
        before = step.observe(clients)
        assert step.move(before) == "stop"
        new.freeze_receiver()
        old.do("INSERT INTO orders VALUES (1)")
        step.act(before, clients)
        until(lambda: not host.running)
        state = step.observe(clients)
        assert (state.stopped_clean, state.has_it_all, step.move(state)) == (True, False, None)
        step.act(state, clients)
        assert new.ask("SELECT pg_is_in_recovery()") is True


def test_a_crash_instead_of_a_clean_stop_is_no_switchover(pair: MakePair, clients: Clients) -> None:
    old, new = pair()
    with host_of(old, new) as (host, server):
        step = switchover(old, new, server)
        host.off()
        state = step.observe(clients)
        assert "did not shut down in good order" in (step.refuse(state) or "")
        with pytest.raises(ActionFailed, match="good order"):
            step.act(state, clients)
        assert new.ask("SELECT pg_is_in_recovery()") is True


def test_an_old_primary_that_came_back_after_the_look_stops_the_promotion(pair: MakePair, clients: Clients) -> None:
    old, new = pair()
    with host_of(old, new) as (host, server):
        step = switchover(old, new, server)
        step.act(step.observe(clients), clients)
        until(lambda: not host.running)
        until(lambda: step.move(step.observe(clients)) == "promote")
        state = step.observe(clients)
        old.start()  # somebody started it by hand, past its host's mark
        with pytest.raises(ActionFailed, match="does not hold any more"):
            step.act(state, clients)
        assert new.ask("SELECT pg_is_in_recovery()") is True


def test_what_only_the_time_before_could_tell_is_kept(pair: MakePair, clients: Clients) -> None:
    old, new = pair()
    with host_of(old, new) as (_, server):
        step = switchover(old, new, server)
        state: Switching = carry_out(step, clients)
        assert state.shutdown_lsn is not None
        assert state.candidate.replayed_lsn is not None
        assert state.has_it_all
        alone = step.fold(None, Seen(step.observe(clients), datetime.now(UTC)))
        assert alone.shutdown_lsn is None
        assert step.done(alone)
