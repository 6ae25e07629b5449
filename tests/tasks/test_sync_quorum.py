"""A lost quorum of synchronous standbys as a fence: what it stops on a primary that lives, what not, and what never counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from flows.step import Work, act
from tasks.clients import Clients
from tasks.contract import ActionFailed, Seen
from tasks.postgres_candidates import DEAD_END, Upstream
from tasks.postgres_elect import Elect
from tasks.postgres_fence import Fence, Fencing
from tasks.postgres_promote import Promote
from tasks.postgres_replication import Replication
from tasks.sync_quorum import Commits, StandbySeen
from tests.tasks.conftest import Pair
from tests.tasks.parties import closed_port, web
from tests.tasks.postgres_nodes import Installation, Node, until
from tests.tasks.test_postgres_fence import carry_out

MakePair = Callable[..., Pair]
AWAY = {"control": {"url": f"http://127.0.0.1:{closed_port()}"}}  # a provider that is away
SERVER = {"host": "db.west.example", "database": "shop", "user": "failover"}
WAITS = Commits(names="west", level="on", attached=("west",))


def declared(**more: object) -> dict[str, Any]:
    return {"rule": "west", "standbys": {"west": SERVER}, "sessions": "every-commit-waits", **more}


def fence(node: object = None, method: object = None, system_id: str | None = "7", **more: object) -> Fence:
    node = node or {"host": "127.0.0.1", "port": closed_port(), "database": "shop", "user": "failover"}
    return Fence.model_validate({
        "node": node, "method": method or AWAY, "system_id": system_id, "if_unreachable": "sync-quorum",
        "sync_quorum": declared(**more),
    })  # fmt: skip


def synchronous(pair: MakePair, **settings: str) -> Pair:
    primary, standby = pair(**settings)
    primary.do("ALTER SYSTEM SET synchronous_standby_names = 'west'", "SELECT pg_reload_conf()")
    until(lambda: primary.ask("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1)
    return primary, standby


def of(standby: Node, **more: Any) -> Fence:
    """A fence of a primary that no answer comes from, though it lives."""
    return fence(system_id=str(standby.ask("SELECT system_identifier::text FROM pg_control_system()")),
                 standbys={"west": standby.server()}, **more)  # fmt: skip


@contextmanager
def writing(node: Node) -> Iterator[Callable[[], bool]]:
    """A session of a client that writes once; tells whether that was acknowledged."""
    over = threading.Event()
    session = node.session("shop")

    def write() -> None:
        try:
            session.execute("INSERT INTO orders VALUES (1)")
            over.set()
        except psycopg.Error:
            pass

    client = threading.Thread(target=write, daemon=True)
    client.start()
    until(lambda: over.is_set() or waiting(node) > 0)
    yield over.is_set
    node.ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    client.join(5)
    session.close()


def waiting(node: Node) -> int:
    return int(str(node.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")))


def receiver(standby: Node) -> bool:
    return bool(standby.ask("SELECT EXISTS (SELECT FROM pg_stat_wal_receiver)"))


def test_a_living_primary_that_nobody_reaches_acknowledges_nothing_while_its_standby_is_promoted(
    pair: MakePair, clients: Clients
) -> None:
    primary, standby = synchronous(pair)
    step = of(standby)
    state = carry_out(step, clients)
    assert (state.state, state.stays_off, state.reachable) == ("sync-quorum-lost", True, False)
    elect = Elect(standbys={"west": standby.server()})
    assert elect.observe(clients).chosen == "west"
    assert elect.done(elect.observe(clients))  # nobody is left to stop
    assert state.standbys[0].followed == Upstream(host=primary.host, port=str(primary.port))
    with writing(primary) as acknowledged:
        promote = Promote.model_validate({"standby": standby.server(), "system_id": step.system_id})
        until(lambda: _promoted(promote, clients))
        assert step.done(step.observe(clients))  # what the engine asks before each promotion that it sends, and after
        assert not acknowledged()
        assert waiting(primary) == 1


def _promoted(step: Promote, clients: Clients) -> bool:
    state = step.observe(clients)
    if not step.done(state):
        step.act(state, clients)
    return step.done(state)


def test_what_it_said_while_it_answered_counts_at_the_look_before_the_promotion_too(pair: MakePair, clients: Clients) -> None:
    """As when its provider had stopped it, an election has cut the standbys off, and now the provider is away."""
    _, standby = synchronous(pair)
    step = of(standby)
    stopped = carry_out(step, clients).model_copy(
        update={"state": "stopped", "commits": Commits(names="", level="on"), "standbys": ()}
    )
    promote = Promote.model_validate({"standby": standby.server(), "system_id": step.system_id})
    work = Work(promote, clients, {"fence": step}, fences_seen={"fence": Seen(stopped, datetime.now(UTC))})
    failure = act(work, promote.observe(clients))
    assert failure is not None
    assert failure.code == "unfenced"
    assert standby.ask("SELECT pg_is_in_recovery()")
    assert act(replace(work, fences_seen={}), promote.observe(clients)) is None


def test_it_survives_restarts_of_the_standby_and_of_the_old_primary(pair: MakePair, clients: Clients) -> None:
    primary, standby = synchronous(pair)
    step = of(standby)
    carry_out(step, clients)
    for node in (standby, primary):
        node.kill()
        node.start()
    assert step.done(step.observe(clients))
    assert not receiver(standby)
    with writing(primary) as acknowledged:
        assert not acknowledged()


def test_a_session_that_does_not_wait_is_acknowledged_which_is_why_sessions_must_be_declared(
    pair: MakePair, clients: Clients
) -> None:
    """The limit of this option, as a test: the fence holds, and three sessions of the old primary write all the same."""
    primary, standby = synchronous(pair)
    primary.do("CREATE UNLOGGED TABLE carts (id int)", "GRANT ALL ON carts TO shop")
    step = of(standby)
    carry_out(step, clients)
    with primary.session("shop") as lowered:
        lowered.execute("SET synchronous_commit = local")
        lowered.execute("INSERT INTO orders VALUES (1)")
    with primary.session("shop") as unlogged:
        unlogged.execute("INSERT INTO carts VALUES (1)")
    with writing(primary) as acknowledged:
        primary.do("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        until(acknowledged)
    assert step.done(step.observe(clients))


def test_of_two_that_must_both_confirm_one_that_is_cut_off_is_enough(
    pair: MakePair, postgres: Installation, clients: Clients
) -> None:
    primary, west = pair()
    postgres.node("north", follows=primary).start()
    primary.do("ALTER SYSTEM SET synchronous_standby_names = 'ANY 2 (west, north)'", "SELECT pg_reload_conf()")
    until(lambda: primary.ask("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'") == 2)
    system = str(primary.ask("SELECT system_identifier::text FROM pg_control_system()"))
    step = fence(rule="ANY 2 (west, north)", system_id=system, standbys={"west": west.server()})
    assert not step.done(step.observe(clients))
    with writing(primary) as acknowledged:
        assert acknowledged()
    assert carry_out(step, clients).state == "sync-quorum-lost"
    with writing(primary) as acknowledged:
        assert not acknowledged()


def test_a_statement_timeout_does_not_end_the_wait(pair: MakePair, clients: Clients) -> None:
    primary, standby = synchronous(pair)
    primary.do("ALTER ROLE shop SET statement_timeout = '100ms'")
    carry_out(of(standby), clients)
    with writing(primary) as acknowledged:
        until(lambda: bool(primary.ask(
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND clock_timestamp() > query_start + interval '500ms'"
        )))  # fmt: skip
        assert not acknowledged()


def test_a_standby_whose_replay_is_paused_confirms_until_it_goes_on(pair: MakePair, clients: Clients) -> None:
    primary, standby = synchronous(pair)
    standby.do("SELECT pg_wal_replay_pause()")
    step = of(standby)
    step.act(step.observe(clients), clients)
    until(lambda: step.observe(clients).standbys[0].told_nobody)
    with writing(primary) as acknowledged:  # it receives on, although it is told to follow nobody
        assert acknowledged()
    assert step.observe(clients).standbys[0].confirms(step.system_id) == "has a receiver still"
    standby.do("SELECT pg_wal_replay_resume()")
    until(lambda: step.done(step.observe(clients)))


def test_receivers_that_try_the_dead_end_again_and_again_do_not_end_the_fence(pair: MakePair, clients: Clients) -> None:
    _, standby = synchronous(pair, wal_retrieve_retry_interval="1ms")
    step = of(standby)
    carry_out(step, clients)
    until(lambda: bool(standby.ask("SELECT clock_timestamp() > pg_conf_load_time() + interval '1.5s'")))
    assert [state.evidence for _ in range(100) if not step.done(state := step.observe(clients))] == []


def test_it_takes_two_looks_and_keeps_what_the_standby_needs_to_return(pair: MakePair, clients: Clients) -> None:
    primary, standby = synchronous(pair)
    step = of(standby)
    assert step.steady.times == 2
    before = step.observe(clients)
    assert not step.done(before)
    for _ in range(2):  # may be repeated
        step.act(before, clients)
    until(lambda: step.done(step.observe(clients)))
    assert f"host={DEAD_END}" in str(standby.ask("SHOW primary_conninfo"))
    assert "follow nobody" in Replication(standby=standby.server()).observe(clients).detail  # whoever looks sees it
    back = str(standby.ask("SHOW primary_conninfo")).replace(f"host={DEAD_END}", f"host={primary.host} port={primary.port}")
    standby.do(f"ALTER SYSTEM SET primary_conninfo = '{back}'", "SELECT pg_reload_conf()")
    until(lambda: primary.ask("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1)
    assert not step.done(step.observe(clients))
    assert not Replication(standby=standby.server()).observe(clients).detail


def test_a_primary_that_answers_is_neither_cut_off_nor_fenced_by_its_standbys(pair: MakePair, clients: Clients) -> None:
    primary, standby = synchronous(pair)
    system = str(primary.ask("SELECT system_identifier::text FROM pg_control_system()"))
    step = fence(primary.server(), system_id=system, standbys={"west": standby.server()})
    state = step.observe(clients)
    step.act(state, clients)
    assert receiver(standby)
    assert state.commits == WAITS
    carry_out(of(standby), clients)
    state = step.observe(clients)
    assert (state.reachable, step.done(state)) == (True, False)


def test_a_standby_that_connects_by_a_service_is_not_counted(pair: MakePair, clients: Clients) -> None:
    _, standby = synchronous(pair)
    standby.do("ALTER SYSTEM SET primary_conninfo = 'service=east application_name=west'", "SELECT pg_reload_conf()")
    step = of(standby)
    until(lambda: "service" in step.observe(clients).standbys[0].trouble)


def test_a_provider_that_stops_the_host_spares_the_standbys(pair: MakePair, clients: Clients) -> None:
    _, standby = synchronous(pair)
    host = {"state": "running", "stays_off": False}

    def answer(call: Any) -> tuple[int, object]:
        if call.method == "POST":
            host.update(state="stopped", stays_off=True)
        return 200, host

    with web(answer) as provider:
        step = of(standby)
        step = step.model_copy(update={"method": Fence.model_validate({
            **step.model_dump(), "method": {"control": {"url": provider.url}}}).method})  # fmt: skip
        assert carry_out(step, clients).state == "stopped"
    assert receiver(standby)


def test_nothing_is_cut_off_where_that_would_prove_nothing(pair: MakePair, clients: Clients) -> None:
    _, standby = synchronous(pair)
    away = {**SERVER, "host": "127.0.0.1", "port": closed_port()}
    system = str(standby.ask("SELECT system_identifier::text FROM pg_control_system()"))
    step = fence(rule="FIRST 2 (west, north)", system_id=system, standbys={"north": away})
    with pytest.raises(ActionFailed, match="north"):
        step.act(step.observe(clients), clients)
    said_otherwise = of(standby)
    seen = said_otherwise.observe(clients).model_copy(update={"commits": Commits(names="", level="on")})
    with pytest.raises(ActionFailed, match="nobody"):
        said_otherwise.act(seen, clients)
    assert receiver(standby)


def test_who_lowers_synchronous_commit_is_read_from_the_primary_and_named(pair: MakePair, clients: Clients) -> None:
    primary, standby = synchronous(pair)
    primary.do(
        "ALTER ROLE shop SET synchronous_commit = off",
        "ALTER DATABASE postgres SET synchronous_commit = 'remote_write'",
    )
    step = fence(primary.server(), standbys={"west": standby.server()})
    told = step.observe(clients).commits
    assert told is not None
    assert told.lowered_for == ("role shop (off)",)
    primary.do("ALTER SYSTEM SET synchronous_commit = local", "SELECT pg_reload_conf()")
    clients.close()
    told = step.observe(clients).commits
    assert told is not None
    assert told.level != "on"  # hidden behind the database's own


def standby(name: str = "west", **more: object) -> StandbySeen:
    off: dict[str, object] = {
        "name": name, "calls_itself": name, "system_id": "7", "in_recovery": True, "receiver": False, "kept": True,
        "upstream": Upstream(host=DEAD_END),
    }  # fmt: skip
    return StandbySeen.model_validate(off | more)


@pytest.mark.parametrize("fine", [standby(), standby(in_recovery=False), standby(calls_itself="WEST")])
def test_a_standby_that_follows_nobody_for_good_confirms_nothing(fine: StandbySeen) -> None:
    assert fine.confirms("7") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"trouble": "no answer"},
        {"calls_itself": "north"},
        {"calls_itself": "walreceiver"},
        {"system_id": "8"},
        {"receiver": True},
        {"kept": False},
        {"upstream": Upstream(host="db.east.example")},
        {"in_recovery": False, "upstream": Upstream(host="db.east.example")},
        {"in_recovery": False, "upstream": None},
    ],
    ids=str,
)
def test_a_standby_that_may_confirm_is_not_counted(wrong: dict[str, object]) -> None:
    assert standby(**wrong).confirms("7")
    assert standby().confirms(None)  # of which system is not known


def folded(step: Fence, commits: Commits | None, version: int | None = None) -> Fencing:
    """What a look tells at which the quorum is lost, after one at which the old primary answered."""
    common = {"method": "control", "evidence": "…", "system_id": "7", "in_recovery": False}
    earlier = Fencing.model_validate({**common, "reachable": True, "state": "unknown", "stays_off": False,
                                      "commits": commits, "server_version": version})  # fmt: skip
    now = Fencing.model_validate({**common, "reachable": False, "state": "sync-quorum-lost", "stays_off": True,
                                  "standbys": (standby(),)})  # fmt: skip
    return step.fold(Seen(earlier, datetime.now(UTC)), Seen(now, datetime.now(UTC)))


def test_what_the_old_primary_said_while_it_answered_is_kept_and_told() -> None:
    state = folded(fence(), WAITS, 160014)
    assert state.holds
    assert state.held_since is not None
    assert "it said itself" in state.evidence
    assert folded(fence(), None).holds  # never read in this run: the declaration counts, and that is told
    assert "as the runbook says" in folded(fence(), None).evidence


@pytest.mark.parametrize(
    ("names", "level", "lowered", "attached", "version"),
    [
        ("", "on", (), ("west",), None),
        ("west, north", "on", (), ("west",), None),
        ("ANY 1 (west)", "on", (), ("west",), None),
        ("north", "on", (), ("west",), None),
        ("*", "on", (), ("west",), None),
        ("west", "local", (), ("west",), None),
        ("west", "off", (), ("west",), None),
        ("west", "on", ("role shop (off)",), ("west",), None),
        ("west", "on", (), ("west", "West"), None),
        ("west", "on", (), ("west",), 160008),
    ],
)
def test_what_the_old_primary_said_beats_the_declaration(names, level, lowered, attached, version) -> None:
    state = folded(fence(), Commits(names=names, level=level, lowered_for=lowered, attached=attached), version)
    assert not state.holds
    assert not state.stays_off
    assert "but " in state.evidence


@pytest.mark.parametrize(
    "wrong",
    [
        {"sessions": "most-wait"},
        {"sessions": None},
        {"rule": ""},
        {"rule": "*"},
        {"rule": "ANY 1 (west, *)"},
        {"rule": "north"},
        {"rule": "ANY 2 (west)"},
        {"rule": "FIRST 1 (west, north)"},
        {"rule": "ANY 1 (west, north)", "standbys": {"west": SERVER, "north": SERVER}},
        {"standbys": {}},
        {"standbys": {"west": SERVER, "north": SERVER}},
    ],
    ids=str,
)
def test_what_could_never_hold_or_was_not_vouched_for_is_refused_in_the_runbook(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        fence(**wrong)


def test_the_option_its_inputs_and_the_system_need_each_other() -> None:
    node = {"host": "127.0.0.1", "port": 1, "database": "shop", "user": "failover"}
    whole = {"node": node, "method": {"sql": {}}, "system_id": "7", "if_unreachable": "sync-quorum", "sync_quorum": declared()}
    Fence.model_validate(whole)
    for missing in ("system_id", "if_unreachable", "sync_quorum"):
        with pytest.raises(ValidationError):
            Fence.model_validate({key: value for key, value in whole.items() if key != missing})
    with pytest.raises(ValidationError):
        Fence.model_validate({**whole, "sync_quorum": declared(standbys={"west": node})})


def test_people_who_decide_are_told_what_it_leans_on_and_what_it_costs() -> None:
    step = fence()
    said = step.describe(folded(step, None))
    assert "every session" in said
    assert "hang" in said
    assert "follows it again" in "\n".join(step.by_hand())


def test_evidence_is_data() -> None:
    state = folded(fence(), WAITS)
    assert Fencing.model_validate_json(state.model_dump_json()) == state


def test_a_preflight_holds_the_declaration_against_the_living_primary(pair: MakePair, clients: Clients) -> None:
    primary, standby = synchronous(pair)
    step = fence(primary.server(), system_id=None, standbys={"west": standby.server()})  # which an earlier step will tell

    def problems() -> dict[str, str]:
        return {need.what: need.found for need in step.preflight(clients) if need.problem}

    assert problems() == {}
    primary.do("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
    until(lambda: list(problems()) == ["sync-quorum: the old primary"])
    standby.kill()
    assert set(problems()) == {"sync-quorum: the old primary", "sync-quorum: standby west"}
