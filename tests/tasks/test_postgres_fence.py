"""Fences on real servers: what is stopped stays off, what is rejected stays rejected, and nobody else is touched."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from tasks.clients import Clients
from tasks.contract import ActionFailed, Seen
from tasks.postgres_fence import Fence, Fencing
from tests.tasks.conftest import Pair
from tests.tasks.parties import Call, Web, blackhole, closed_port, web
from tests.tasks.postgres_nodes import Node, caught_up, streaming, until

MakePair = Callable[..., Pair]


@contextmanager
def provider(node: Node) -> Iterator[Web]:
    """A control endpoint that really kills the node."""
    state = {"state": "running", "stays_off": False}

    def answer(call: Call) -> tuple[int, object]:
        if call.method == "POST" and call.path.endswith("/stop"):
            if state["state"] != "stopped":
                node.kill()
            state.update(state="stopped", stays_off=True)
        return 200, state

    with web(answer) as server:
        yield server


def carry_out(step: Fence, clients: Clients) -> Fencing:
    seen: Seen[Fencing] | None = None
    end, acted = time.monotonic() + 8, 0.0
    while True:
        state, at = step.observe(clients), datetime.now(UTC)
        state = step.fold(seen, Seen(state, at))
        seen = Seen(state, at)
        if step.done(state):
            return state
        assert time.monotonic() < end, step.explain(state)
        assert step.refuse(state) is None
        assert step.resend is not None
        if not step.underway(state) and time.monotonic() - acted >= step.resend.total_seconds():
            step.act(state, clients)
            acted = time.monotonic()
        time.sleep(0.03)


def by_control(node: Node, server: Web, **more: object) -> Fence:
    return Fence.model_validate({"node": node.server(), "method": {"control": {"url": server.url}}, **more})


def by_sql(node: Node, **more: object) -> Fence:
    return Fence.model_validate({"node": node.server(), "method": {"sql": more}})


def refused(node: Node, user: str = "shop") -> bool:
    try:
        with node.session(user) as session:
            session.execute("INSERT INTO orders VALUES (1)")
    except psycopg.Error:
        return True
    return False


def test_a_provider_stops_the_node_and_the_evidence_names_what_is_known(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    with provider(primary) as server:
        state = carry_out(by_control(primary, server), clients)
    assert (state.state, state.stays_off, state.reachable) == ("stopped", True, False)
    assert state.system_id is not None
    assert state.held_since is not None
    assert "stays off" in state.evidence
    assert "does not answer" in state.evidence


def test_a_stopped_word_against_a_node_that_answers_is_no_fence(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    with web(lambda _: (200, {"state": "stopped", "stays_off": True})) as server:
        step = by_control(primary, server)
        state = step.observe(clients)
    assert not step.done(state)
    assert "and yet it answers as a primary" in state.evidence


def test_a_node_that_gives_us_no_session_still_answers_so_stopped_is_not_believed(
    pair: MakePair, clients: Clients
) -> None:
    primary, _ = pair()
    with web(lambda _: (200, {"state": "stopped", "stays_off": True})) as server:
        nobody = primary.server(user="nobody")
        step = Fence.model_validate({"node": nobody, "method": {"control": {"url": server.url}}})
        state = step.observe(clients)
    assert (state.reachable, step.done(state)) == (True, False)


def test_what_was_a_standby_is_refused_after_it_stopped_answering(pair: MakePair, clients: Clients) -> None:
    _, standby = pair()
    with web(lambda _: (200, {"state": "running", "stays_off": False})) as server:
        step = by_control(standby, server)
        seen = Seen(step.observe(clients), datetime.now(UTC))
        standby.kill()
        gone = step.fold(seen, Seen(step.observe(clients), datetime.now(UTC)))
    assert gone.reachable is False
    assert "is a standby" in (step.refuse(gone) or "")


def test_stopped_without_staying_off_is_no_fence(clients: Clients) -> None:
    with web(lambda _: (200, {"state": "stopped", "stays_off": False})) as server:
        node = {"host": "127.0.0.1", "port": closed_port(), "database": "shop", "user": "failover"}
        step = Fence.model_validate({"node": node, "method": {"control": {"url": server.url}}})
        assert not step.done(step.observe(clients))


def test_a_lost_answer_of_the_provider_is_found_done_by_looking_again(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    with provider(primary) as server:
        step = by_control(primary, server)
        before = step.observe(clients)
        server.drop_answers = True
        with pytest.raises(ActionFailed) as failed:
            step.act(before, clients)
        server.drop_answers = False
        assert failed.value.retry
        assert step.done(step.observe(clients))
        assert [call.method for call in server.calls].count("POST") == 1


def test_a_frozen_or_cut_off_node_is_fenced_by_its_provider(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    with provider(primary) as server:
        primary.freeze()
        step = by_control(primary, server, patience="300ms")
        began = time.monotonic()
        assert step.observe(clients).reachable is False
        assert time.monotonic() - began < 1
        assert step.done(carry_out(step, clients))


def test_a_provider_that_cannot_be_asked_is_a_failure_worth_a_retry(clients: Clients) -> None:
    node = {"host": "127.0.0.1", "port": closed_port(), "database": "shop", "user": "failover"}
    step = Fence.model_validate(
        {"node": node, "method": {"control": {"url": f"http://127.0.0.1:{closed_port()}/east"}}}
    )
    with pytest.raises(ActionFailed) as failed:
        step.observe(clients)
    assert failed.value.retry


def test_commands_stop_and_tell(pair: MakePair, clients: Clients, tmp_path: Path) -> None:
    primary, _ = pair()
    flag = tmp_path / "stopped"
    stop, status = tmp_path / "stop", tmp_path / "status"
    assert primary.process is not None
    stop.write_text(f"#!/bin/sh\nkill -INT {primary.process.pid} && touch {flag}\n")
    status.write_text(f"#!/bin/sh\n[ -e {flag} ] || exit 1\n")
    for script in (stop, status):
        script.chmod(stat.S_IRWXU)
    method = {"command": {"stop": [str(stop)], "status": [str(status)]}}
    step = Fence.model_validate({"node": primary.server(), "method": method})
    assert carry_out(step, clients).evidence.count("stopped for good") == 1
    broken = Fence.model_validate(
        {"node": primary.server(), "method": {"command": {"stop": ["x"], "status": ["false2"]}}}
    )
    with pytest.raises(ActionFailed, match="did not start"):
        broken.observe(clients)


def test_sql_rejects_clients_ends_their_sessions_and_survives_a_restart(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    pinned = primary.session("shop")
    pinned.execute("INSERT INTO orders VALUES (0)")
    step = by_sql(primary, as_client=primary.server(user="shop"))
    state = carry_out(step, clients)
    assert (state.state, state.sessions, state.stays_off) == ("rejecting", 0, True)
    with pytest.raises(psycopg.Error):
        pinned.execute("INSERT INTO orders VALUES (1)")
    pinned.close()
    assert refused(primary)
    clients.close()
    primary.stop()
    primary.start_fenced()
    assert refused(primary)
    again = Clients()
    until(lambda: step.done(step.observe(again)))
    again.close()
    assert standby.ask("SELECT count(*) FROM orders") == 1


def test_sql_leaves_the_standby_and_its_stream_alone(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    carry_out(by_sql(primary), clients)
    session = clients.postgres(primary.server())
    row = session.execute("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").fetchone()
    assert row == (1,)
    with standby.session("shop") as client:
        assert client.execute("SELECT count(*) FROM orders").fetchone() == (0,)


def test_sql_keeps_a_copy_and_is_written_once(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    hba = primary.data / "pg_hba.conf"
    before = hba.read_text()
    step = by_sql(primary)
    carry_out(step, clients)
    step.act(step.observe(clients), clients)
    assert hba.read_text().count("failover fence: begin") == 1
    assert hba.read_text().endswith(before)
    assert (primary.data / "pg_hba.conf.before-failover").read_text() == before


def test_sql_says_that_a_client_still_gets_in_when_it_does(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    step = by_sql(primary, as_client=primary.server(user="shop"))
    state = step.observe(clients)
    assert not step.done(state)
    assert "lets clients in" in state.evidence


def test_sql_refuses_a_role_that_others_use_too(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    with primary.session("failover"):
        reason = by_sql(primary).refuse(by_sql(primary).observe(clients))
    assert "a role of its own" in (reason or "")


def test_sql_on_a_node_that_does_not_answer_is_could_not_ask(clients: Clients) -> None:
    with blackhole() as hole:
        node = {"host": "127.0.0.1", "port": hole, "database": "shop", "user": "failover"}
        step = Fence.model_validate({"node": node, "method": {"sql": {}}, "patience": "200ms"})
        with pytest.raises(ActionFailed, match="method sql can neither fence it nor tell"):
            step.observe(clients)


def test_a_standby_is_never_fenced(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    for step in (by_sql(standby), by_sql(standby).model_copy(update={"method": by_sql(standby).method})):
        assert "is a standby" in (step.refuse(step.observe(clients)) or "")
    with provider(standby) as server:
        step = by_control(standby, server)
        assert "is a standby" in (step.refuse(step.observe(clients)) or "")
        assert [call.method for call in server.calls] == ["GET"]
    assert streaming(primary)
    assert caught_up(primary, standby)


def test_another_system_is_never_fenced(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    with provider(primary) as server:
        step = by_control(primary, server, system_id="4711")
        assert "expected 4711" in (step.refuse(step.observe(clients)) or "")


def test_what_the_node_said_of_itself_is_kept_after_it_is_gone(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    with provider(primary) as server:
        step = by_control(primary, server, system_id="4711")
        state, at = step.observe(clients), datetime.now(UTC)
        primary.freeze()
        gone = step.fold(Seen(state, at), Seen(step.observe(Clients()), at))
    assert "expected 4711" in (step.refuse(gone) or "")


@pytest.mark.parametrize("method", [{}, {"sql": {}, "control": {"url": "http://a"}}])
def test_a_fence_has_exactly_one_method(method: dict[str, object]) -> None:
    node = {"host": "a", "database": "shop", "user": "failover"}
    with pytest.raises(ValueError, match="write one of control, command, sql"):
        Fence.model_validate({"node": node, "method": method})
