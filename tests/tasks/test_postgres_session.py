"""Sessions that can be taken back and never hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from tasks.clients import Clients
from tasks.errors import ActionFailed, Revoked
from tasks.postgres_server import Server, connect
from tasks.postgres_session import Unanswered
from tests.tasks.conftest import Pair
from tests.tasks.parties import blackhole, closed_port
from tests.tasks.postgres_nodes import Installation

MakePair = Callable[..., Pair]


def at(port: int, host: str = "127.0.0.1") -> Server:
    return Server(host=host, port=port, database="shop", user="failover", password="hunter2")  # type: ignore[arg-type]


def never() -> None:
    """Refuse nothing."""


def test_a_server_that_accepts_and_never_answers_costs_the_timeout(clients: Clients) -> None:
    with blackhole() as hole:
        began = time.monotonic()
        with pytest.raises(ActionFailed, match=r"no answer within 0\.3s") as failed:
            connect(at(hole), never, timedelta(milliseconds=300))
        assert time.monotonic() - began < 0.6
        assert failed.value.retry


def test_a_name_that_hangs_in_the_resolver_costs_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: release.wait(5) or [])
    began = time.monotonic()
    with pytest.raises(ActionFailed, match="no answer within"):
        connect(at(5432, "slow.example"), never, timedelta(milliseconds=200))
    assert time.monotonic() - began < 0.5
    release.set()


def test_every_statement_and_every_transaction_checks_right_before_it_leaves(postgres: Installation) -> None:
    node = postgres.node("east").start()
    calls: list[int] = []
    session = connect(node.server(), lambda: calls.append(1), timedelta(seconds=2))
    before = len(calls)
    session.execute("SELECT 1")
    assert len(calls) == before + 1
    with session.transaction():
        session.execute("SELECT 1")
    assert len(calls) == before + 4
    session.close()


def test_after_revoke_no_statement_leaves(postgres: Installation) -> None:
    node = postgres.node("east").start()
    node.do("CREATE TABLE t (n int)")
    halted = False

    def guard() -> None:
        if halted:
            raise Revoked("halted")

    attempt = Clients(guard)
    session = attempt.postgres(node.server())
    halted = True
    with pytest.raises(Revoked):
        session.execute("INSERT INTO t VALUES (1)")
    halted = False
    session.execute("INSERT INTO t VALUES (2)")
    attempt.close()
    assert node.ask("SELECT array_agg(n) FROM t") == [2]


def test_a_statement_on_a_server_that_freezes_ends_and_the_session_is_replaced(postgres: Installation) -> None:
    node = postgres.node("east").start()
    attempt = Clients(timeout=timedelta(milliseconds=500))
    session = attempt.postgres(node.server())
    node.freeze()
    began = time.monotonic()
    with pytest.raises(Unanswered):
        session.execute("SELECT 1")
    assert time.monotonic() - began < 1
    node.thaw()
    assert attempt.postgres(node.server()).execute("SELECT 1").fetchone() == (1,)
    attempt.close()


def test_revoke_ends_a_statement_that_hangs(postgres: Installation) -> None:
    node = postgres.node("east").start()
    attempt = Clients(timeout=timedelta(seconds=30))
    session = attempt.postgres(node.server())
    ended = threading.Event()

    def hang() -> None:
        with pytest.raises(psycopg.Error):
            session.execute("SELECT pg_sleep(30)")
        ended.set()

    threading.Thread(target=hang, daemon=True).start()
    while node.ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(30)'") == 0:
        time.sleep(0.01)
    attempt.revoke("timed out")
    assert ended.wait(1)
    with pytest.raises(Revoked):
        attempt.postgres(node.server())


def test_errors_carry_the_sqlstate_and_whether_to_retry_and_no_password(postgres: Installation) -> None:
    node = postgres.node("east").start()
    cases = {
        "3D000": node.server(database="nowhere"),
        "28000": node.server(user="nobody"),
    }
    for code, server in cases.items():
        with pytest.raises(ActionFailed) as failed:
            connect(server.model_copy(update={"sslmode": "disable"}), never, timedelta(seconds=2))
        assert (failed.value.code, failed.value.retry) in ((code, False), ("3D000", False))
    with pytest.raises(ActionFailed) as failed:
        connect(at(closed_port()), never, timedelta(seconds=1))
    assert failed.value.retry
    assert "hunter2" not in repr(failed.value) + repr(failed.value.__cause__) + repr(at(1))


def test_a_server_s_name_holds_no_secret_and_servers_can_be_kept_by() -> None:
    assert at(1).name == "127.0.0.1:1/shop"
    assert hash(at(1)) == hash(at(1))
