"""Several real replicas: the one that received most is chosen after the receivers stopped, and the others follow it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tasks.clients import Clients
from tasks.contract import ActionFailed, Change, Seen
from tasks.postgres_elect import Elect, Election
from tasks.postgres_follow import Follow, Followers
from tasks.postgres_promote import Promote
from tasks.postgres_replication import Replication
from tasks.postgres_server import Heartbeat, Server
from tests.tasks.parties import closed_port
from tests.tasks.postgres_nodes import Installation, Node, caught_up, until

Trio = tuple[Node, Node, Node]
SECRET = "hunter2-canary"


@pytest.fixture
def trio(postgres: Installation) -> Callable[..., Trio]:
    """A primary and two standbys that stream from it, with a password in primary_conninfo."""

    def make(**settings: str) -> Trio:
        primary = postgres.node("east").start()
        primary.do(
            "CREATE TABLE orders (id int)", "CREATE TABLE heartbeat (at timestamptz)", "INSERT INTO heartbeat VALUES (now())"
        )
        standbys = [standby(postgres, name, primary, **settings) for name in ("west-a", "west-b")]
        until(lambda: all(caught_up(primary, one) for one in standbys))
        return (primary, *standbys)

    return make


def standby(postgres: Installation, name: str, follows: Node, **settings: str) -> Node:
    made = postgres.node(name, follows=follows, **settings)
    told = f"host={follows.host} port={follows.port} user=failover password={SECRET} application_name={name}"
    with (made.data / "postgresql.conf").open("a") as conf:
        conf.write(f"primary_conninfo = '{told}'\n")
    return made.start()


def detach(node: Node) -> None:
    """Let a standby receive nothing more, as when its network is gone."""
    node.do("ALTER SYSTEM SET primary_conninfo = 'host=/nowhere user=failover'", "SELECT pg_reload_conf()")
    until(lambda: node.ask("SELECT count(*) = 0 FROM pg_stat_wal_receiver") is True)


def carry_out(step: Change, clients: Clients, limit: float = 10.0):  # noqa: ANN201
    """Observe and act as the engine does; the last state."""
    seen, acted, streak, end = None, None, 0, time.monotonic() + limit
    while True:
        seen = Seen(step.fold(seen, Seen(step.observe(clients), datetime.now(UTC))), datetime.now(UTC))
        streak = streak + 1 if step.done(seen.state) else 0
        if streak >= step.steady.times:
            return acted, seen.state
        assert time.monotonic() < end, step.explain(seen.state)
        if not streak and not step.underway(seen.state) and (acted is None or step.resend):
            assert step.refuse(seen.state) is None, step.refuse(seen.state)
            step.act(seen.state, clients)
            acted = acted or seen.state
        time.sleep(step.interval.total_seconds())


def servers(**nodes: Node | Server) -> dict[str, Server]:
    return {name.replace("_", "-"): one.server() if isinstance(one, Node) else one for name, one in nodes.items()}


def streams(node: Node) -> bool:
    return node.ask("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'") is True


def test_the_one_that_received_most_wins_and_nobody_receives_any_more(trio: Callable[..., Trio], clients: Clients) -> None:
    primary, a, b = trio()
    detach(a)
    primary.do("INSERT INTO orders SELECT generate_series(1, 1000)")
    until(lambda: caught_up(primary, b))
    primary.kill()
    _, state = carry_out(Elect(standbys=servers(west_a=a, west_b=b), prefer=("west-a",)), clients)
    assert (state.chosen, state.receiving, state.not_eligible) == ("west-b", (), {})
    assert b.ask("SELECT count(*) FROM orders") == 1000
    for node in (a, b):
        assert node.ask("SELECT count(*) FROM pg_stat_wal_receiver") == 0


def test_a_frozen_primary_holds_no_receiver_up(trio: Callable[..., Trio], clients: Clients) -> None:
    primary, a, b = trio()
    primary.freeze()
    assert streams(a)
    began = time.monotonic()
    _, state = carry_out(Elect(standbys=servers(west_a=a, west_b=b)), clients)
    assert time.monotonic() - began < 5
    assert state.chosen == "west-a"


def test_a_stopped_receiver_stays_stopped_over_a_restart_and_undo_lets_it_stream_again(
    trio: Callable[..., Trio], clients: Clients
) -> None:
    primary, a, b = trio()
    step = Elect(standbys=servers(west_a=a, west_b=b))
    before, state = carry_out(step, clients)
    assert SECRET not in before.model_dump_json() + state.model_dump_json() + step.describe(before)
    primary.do("INSERT INTO orders VALUES (1)")
    a.stop()
    a.start()
    time.sleep(0.3)
    assert not streams(a)
    clients.close()  # the restart ended its sessions
    step.undo(Election.model_validate(before.model_dump(mode="json")), clients)
    until(lambda: streams(a) and streams(b) and caught_up(primary, a) and caught_up(primary, b))
    assert SECRET in str(a.ask("SELECT current_setting('primary_conninfo')"))


def test_the_others_follow_the_new_primary_with_their_own_credentials(trio: Callable[..., Trio], clients: Clients) -> None:
    primary, a, b = trio()
    everyone = servers(west_a=a, west_b=b)
    primary.kill()
    _, chosen = carry_out(Elect(standbys=everyone), clients)
    promote = Promote(standbys=everyone, chosen=chosen.chosen, system_id=chosen.system_id, timeline=chosen.timeline)
    assert promote.target == f"postgres:{a.server().name}"
    carry_out(promote, clients)
    step = Follow(standbys=everyone, leader="west-a")
    before, state = carry_out(step, clients)
    assert (state.following, state.timeline, state.pending) == (("west-b",), 2, ())
    assert SECRET not in before.model_dump_json() + state.model_dump_json() + step.describe(before)
    a.do("INSERT INTO orders VALUES (7)")
    until(lambda: b.ask("SELECT count(*) FROM orders WHERE id = 7") == 1)
    assert SECRET in str(b.ask("SELECT current_setting('primary_conninfo')"))
    assert step.done(step.observe(clients))


def test_a_slot_of_the_old_primary_does_not_keep_a_replica_from_following(
    trio: Callable[..., Trio], clients: Clients
) -> None:
    primary, a, b = trio()
    primary.do("SELECT pg_create_physical_replication_slot('for_b')")
    b.do("ALTER SYSTEM SET primary_slot_name = 'for_b'", "SELECT pg_reload_conf()")
    until(lambda: primary.ask("SELECT active FROM pg_replication_slots") is True)
    everyone = servers(west_a=a, west_b=b)
    primary.kill()
    carry_out(Elect(standbys=everyone), clients)
    carry_out(Promote(standby=a.server()), clients)
    before, _ = carry_out(Follow(standbys=everyone, leader="west-a"), clients)
    assert b.ask("SELECT current_setting('primary_slot_name')") == ""
    Follow(standbys=everyone, leader="west-a").undo(Followers.model_validate(before.model_dump(mode="json")), clients)
    until(lambda: b.ask("SELECT setting FROM pg_settings WHERE name = 'primary_slot_name'") == "for_b")


def test_nobody_is_led_to_a_server_that_is_still_a_standby(trio: Callable[..., Trio], clients: Clients) -> None:
    _, a, b = trio()
    step = Follow(standbys=servers(west_a=a, west_b=b), leader="west-a")
    assert "still a standby" in (step.refuse(step.observe(clients)) or "")
    with pytest.raises(ActionFailed, match="no replica 'west-c'"):
        Follow(standbys=servers(west_a=a), leader="west-c").observe(clients)


def test_a_replica_that_cannot_be_asked_is_named_and_may_be_waited_for(trio: Callable[..., Trio], clients: Clients) -> None:
    primary, a, _ = trio()
    gone = Server(host="127.0.0.1", port=closed_port(), database="postgres", user="failover")
    everyone = servers(west_a=a, west_c=gone)
    primary.kill()
    step = Elect(standbys=everyone, if_unreachable="refuse")
    assert "west-c" in (step.refuse(step.observe(clients)) or "")
    _, state = carry_out(Elect(standbys=everyone), clients)
    assert (state.chosen, state.unreachable) == ("west-a", ("west-c",))
    assert "may lose what only they have" in step.explain(state)
    seen = Replication(standbys=everyone, heartbeat=Heartbeat()).observe(clients)
    assert (seen.name, list(seen.not_eligible)) == ("west-a", ["west-c"])


def test_real_servers_say_why_they_are_not_eligible(
    trio: Callable[..., Trio], postgres: Installation, clients: Clients
) -> None:
    primary, a, b = trio()
    delayed = standby(postgres, "west-c", primary, recovery_min_apply_delay="1h")
    never = standby(postgres, "west-d", b)  # cascades
    until(lambda: streams(delayed) and streams(never))
    fresh = postgres.node("west-e", follows=primary, primary_conninfo="host=/nowhere").start()
    a.do("SELECT pg_wal_replay_pause()")
    until(lambda: a.ask("SELECT pg_get_wal_replay_pause_state() = 'paused'") is True)
    everyone = servers(a=a, b=b, delayed=delayed, cascades=never, fresh=fresh, primary=primary)
    found = Elect(standbys=everyone).observe(clients)
    assert found.chosen == "b"
    for name, said in {
        "a": "paused", "delayed": "3600s behind", "cascades": "follows b", "fresh": "streamed nothing", "primary": "not in recovery",
    }.items():  # fmt: skip
        assert said in found.not_eligible[name], name
    assert found.receiving == ("a", "b", "delayed", "fresh")  # the one below b gets no more than b has


def test_a_replica_whose_replay_waits_for_a_query_is_not_eligible(trio: Callable[..., Trio], clients: Clients) -> None:
    primary, a, b = trio(max_standby_streaming_delay="-1")
    with a.session() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM orders")
        primary.do("ALTER TABLE orders ADD COLUMN note text")
        step = Elect(standbys=servers(west_a=a, west_b=b))
        until(lambda: "west-a" in step.observe(clients).not_eligible)
        found = step.observe(clients)
        assert "Lock" in found.not_eligible["west-a"]
        assert found.chosen == "west-b"


def test_whoever_belongs_to_another_system_is_never_chosen(
    trio: Callable[..., Trio], postgres: Installation, clients: Clients
) -> None:
    _, a, b = trio()
    step = Elect(standbys=servers(west_a=a, west_b=b), system_id="42")
    found = step.observe(clients)
    assert found.chosen is None
    assert "no replica is eligible" in (step.refuse(found) or "")
    assert found.receiving == ()  # and nobody else's receivers are touched
