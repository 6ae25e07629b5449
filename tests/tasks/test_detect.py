"""What each kind of signal says of real servers that are up, killed, frozen, cut off or strange."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tasks.clients import Clients
from tasks.contract import Seen
from tasks.detect import DetectOutage, Outage
from tasks.signals import Reading, Says
from tests.tasks.conftest import Pair
from tests.tasks.parties import blackhole, closed_port, dropper, web
from tests.tasks.postgres_nodes import Installation, Node, caught_up, until

MakePair = Callable[..., Pair]


def probe(signals: dict[str, object], **more: object) -> DetectOutage:
    return DetectOutage.model_validate({"signals": signals, "agree": 1, **more})


class Watching:
    """Looks, as the engine does, keeping the history."""

    def __init__(self, step: DetectOutage, clients: Clients) -> None:
        self.step, self.clients, self.seen = step, clients, None

    seen: Seen[Outage] | None

    def look(self) -> dict[str, Reading]:
        state, at = self.step.observe(self.clients), datetime.now(UTC)
        self.seen = Seen(self.step.fold(self.seen, Seen(state, at)), at)
        return {one.name: one for one in self.seen.state.signals}

    def until(self, name: str, says: Says, seconds: float = 4.0) -> Reading:
        end = time.monotonic() + seconds
        while (found := self.look()[name]).says is not says:
            assert time.monotonic() < end, found
            time.sleep(0.02)
        return found


def test_a_killed_primary_is_dead_within_one_look(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    signals = {
        "primary": {"postgres": primary.server()},
        "port": {"tcp": {"host": primary.host, "port": primary.port}},
        "standby": {"standby": standby.server()},
    }
    watching = Watching(probe(signals, agree=3), clients)
    for name in signals:
        watching.until(name, Says.up)
    primary.kill()
    began = time.monotonic()
    found = watching.look()
    assert {name: one.says for name, one in found.items() if name != "standby"} == {"primary": "dead", "port": "dead"}
    assert time.monotonic() - began < 0.15
    watching.until("standby", Says.dead, 0.5)
    while watching.look() and not (watching.seen and watching.seen.state.outage):
        time.sleep(0.05)
    taken = time.monotonic() - began
    assert taken < 2.0
    print(f"killed -> confirmed by three signals in {taken:.2f} s")


def test_a_frozen_primary_is_silent_and_up_again_when_it_thaws(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    watching = Watching(probe({"primary": {"postgres": primary.server()}, "other": {"control": _running()}}), clients)
    watching.until("primary", Says.up)
    primary.freeze()
    try:
        reading = watching.until("primary", Says.silent)
        assert reading.down_since is not None
    finally:
        primary.thaw()
    watching.until("primary", Says.up)


def _running() -> dict[str, object]:
    return {"command": ["echo", "running"]}


def test_a_session_ended_by_an_administrator_is_no_death(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    watching = Watching(probe({"primary": {"postgres": primary.server()}}), clients)
    watching.until("primary", Says.up)
    primary.ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'failover'")
    assert {watching.look()["primary"].says for _ in range(5)} == {"up"}


def test_a_server_that_starts_up_is_silent_not_dead(postgres: Installation, clients: Clients) -> None:
    primary = postgres.node("east").start()
    starting = postgres.node("west", follows=primary, hot_standby="off").start(ready=False)
    until(lambda: _listens(starting))
    watching = Watching(probe({"db": {"postgres": starting.server()}}), clients)
    assert "57P03" in watching.until("db", Says.silent).detail


def _listens(node: Node) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((node.host, node.port), timeout=1):
        return True
    return False


def test_a_wrong_password_or_name_is_unknown_never_evidence(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    nobody = primary.server(user="nobody_here")
    elsewhere = primary.server().model_copy(update={"host": "no-such-host.invalid"})
    watching = Watching(probe({"role": {"postgres": nobody}, "name": {"postgres": elsewhere}}, patience="3s"), clients)
    watching.until("role", Says.unknown)
    watching.until("name", Says.unknown)
    assert all(not one.past for one in watching.look().values())


def test_the_standby_tells_a_lost_stream_from_a_server_that_is_no_standby(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    watching = Watching(
        probe({"right": {"standby": standby.server()}, "wrong": {"standby": primary.server()}}), clients
    )
    watching.until("right", Says.up)
    assert watching.until("wrong", Says.unknown).detail == "not a standby"
    primary.kill()
    watching.until("right", Says.dead)


@pytest.mark.parametrize(("status", "says"), [(200, "up"), (302, "up"), (503, "silent"), (404, "silent")])
def test_an_http_answer_that_is_not_expected_is_silence(status: int, says: str, clients: Clients) -> None:
    with web(lambda _: (status, {})) as server:
        reading = Watching(probe({"health": {"http": {"url": server.url}}}), clients).until("health", Says(says))
    assert reading.answered


def test_refused_and_reset_are_dead_blackholed_is_silent(clients: Clients) -> None:
    shut = closed_port()
    with blackhole() as hole, dropper() as drops:
        server = {"host": "127.0.0.1", "database": "shop", "user": "failover"}
        signals: dict[str, object] = {
            "tcp refused": {"tcp": {"host": "127.0.0.1", "port": shut}},
            "http refused": {"http": {"url": f"http://127.0.0.1:{shut}/"}},
            "http dropped": {"http": {"url": f"http://127.0.0.1:{drops}/"}},
            "postgres refused": {"postgres": {**server, "port": shut}},
            "postgres dropped": {"postgres": {**server, "port": drops}},
            "http silent": {"http": {"url": f"http://127.0.0.1:{hole}/"}},
            "postgres silent": {"postgres": {**server, "port": hole}},
        }
        watching = Watching(probe(signals, patience="400ms"), clients)
        for name in signals:
            watching.until(name, Says.silent if "silent" in name else Says.dead)


def test_a_party_that_hangs_delays_no_proof_that_another_is_dead(clients: Clients) -> None:
    with blackhole() as hole:
        signals = {
            "hangs": {"http": {"url": f"http://127.0.0.1:{hole}/"}},
            "refused": {"tcp": {"host": "127.0.0.1", "port": closed_port()}},
        }
        watching = Watching(probe(signals), clients)
        began = time.monotonic()
        assert watching.look()["refused"].says is Says.dead
        assert time.monotonic() - began < 0.5


def test_what_the_provider_says_is_taken_at_its_word(clients: Clients) -> None:
    state = {"state": "running", "stays_off": False}
    with web(lambda _: (200, state)) as server:
        control: dict[str, object] = {"url": server.url}
        watching = Watching(probe({"host": {"control": control}}), clients)
        for word, says in (("running", "up"), ("frozen", "silent"), ("stopped", "dead"), ("on holiday", "unknown")):
            state["state"] = word
            watching.until("host", Says(says))
    watching.until("host", Says.unknown)
    by_command = probe({"host": {"control": {"command": ["echo", "stopped"]}}})
    Watching(by_command, clients).until("host", Says.dead)


def test_looking_leaves_no_threads_and_no_sessions_behind(pair: MakePair) -> None:
    primary, _ = pair()
    attempt = Clients(timeout=timedelta(seconds=2))
    watching = Watching(probe({"primary": {"postgres": primary.server()}}), attempt)
    for _ in range(20):
        watching.look()
    attempt.close()
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'failover'"
    end = time.monotonic() + 3
    while primary.ask(mine) != 0:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_revoked_attempt_asks_nobody(clients: Clients) -> None:
    with web() as server:
        clients.revoke("halted")
        with contextlib.suppress(Exception):
            probe({"health": {"http": {"url": server.url}}}).observe(clients)
        assert server.calls == []


@pytest.mark.parametrize("bad", [{}, {"tcp": {"host": "a", "port": 1}, "http": {"url": "http://a"}}, {"control": {}}])
def test_a_signal_asks_in_exactly_one_way(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"asks in one way|either `url` or `command`"):
        probe({"odd": bad})


def test_a_look_that_begins_after_the_kill_finds_the_stream_closed(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    primary.do("CREATE TABLE beat (at timestamptz)")
    until(lambda: caught_up(primary, standby))
    primary.kill()
    watching = Watching(probe({"standby": {"standby": standby.server()}}), clients)
    assert watching.until("standby", Says.dead, 2).closed
