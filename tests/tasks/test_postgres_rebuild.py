"""What diverged, and the rebuild of an old primary, on real servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.clients import Clients
from tasks.contract import ActionFailed, Seen
from tasks.postgres_divergence import LISTED, Divergence, DivergenceProbe, Found
from tasks.postgres_rebuild import RebuildStandby
from tests.tasks.conftest import Pair
from tests.tasks.parties import Web
from tests.tasks.postgres_host import HostOf, as_command, carry_out, host_of, promote
from tests.tasks.postgres_nodes import Node, until

MakePair = Callable[..., Pair]
Fallen = tuple[Node, Node, HostOf, Web]


@contextmanager
def fallen(pair: MakePair, lost: int = 3, and_then: tuple[str, ...] = (), **settings: str) -> Iterator[Fallen]:
    """An old primary that committed `lost` orders more than its standby got, was stopped for good, and its successor."""
    # pg_rewind wants whole pages, and stumbles over a socket in the data folder
    old, new = pair(**{"full_page_writes": "on", "unix_socket_directories": "", **settings})
    new.stop()
    old.do(*(f"INSERT INTO orders VALUES ({100 + number})" for number in range(lost)), *and_then)
    with host_of(old, new) as (host, server):
        host.off()
        new.start()
        promote(new)
        yield old, new, host, server


def probe(old: Node, new: Node, way: dict[str, Any]) -> DivergenceProbe:
    tables = [{"table": "orders", "key": "id"}]
    return DivergenceProbe.model_validate({"node": old.server(), "primary": new.server(), "host": way, "tables": tables})


def by_control(server: Web) -> dict[str, Any]:
    return {"control": {"url": server.url}}


def rebuild(old: Node, new: Node, way: dict[str, Any], found: Found, **more: object) -> RebuildStandby:
    standby = {"name": old.name, "slot": old.name, **more}
    return RebuildStandby.model_validate(
        {"node": old.server(), "primary": new.server(), "host": way, "source": new.name, "standby": standby, "divergence": found}
    )


def test_every_row_that_the_new_primary_lacks_is_listed_and_none_that_was_sent_again(pair: MakePair, clients: Clients) -> None:
    with fallen(pair) as (old, new, _, server):
        new.do("INSERT INTO orders VALUES (101)")
        step = probe(old, new, by_control(server))
        state = step.observe(clients)
        assert step.done(state)
        assert (state.found.diverged, state.found.transactions, state.written, state.lost) == (True, 3, 3, 2)
        assert [row.key for row in state.rows] == ["100", "102"]
        assert json.loads(state.rows[0].row) == {"id": 100}
        assert [row.at for row in state.rows] == [state.commits[0].at, state.commits[2].at]
        assert state.first_at == state.commits[0].at < state.commits[2].at == state.last_at
        assert "orders 100, orders 102" in step.explain(state)
        assert step.observe(clients).found.digest == state.found.digest


def test_more_than_is_listed_is_counted(pair: MakePair, clients: Clients) -> None:
    with fallen(pair, lost=LISTED + 7) as (old, new, _, server):
        step = probe(old, new, by_control(server))
        state = step.observe(clients)
        assert (len(state.rows), state.lost) == (LISTED, LISTED + 7)
        assert (len(state.commits), state.found.transactions) == (LISTED, LISTED + 7)
        lost = step.lost(Divergence.model_validate(state.model_dump(mode="json")))
        assert lost is not None
        assert len(lost.lines()) == LISTED + 1
        assert "7 more" in lost.lines()[-1]


def test_the_time_of_a_row_that_a_subtransaction_wrote_is_that_of_its_commit(pair: MakePair, clients: Clients) -> None:
    nested = "DO $$ BEGIN INSERT INTO orders VALUES (200); EXCEPTION WHEN division_by_zero THEN NULL; END $$"
    with fallen(pair, lost=0, and_then=(nested,)) as (old, new, _, server):
        state = probe(old, new, by_control(server)).observe(clients)
        assert [(row.key, row.at) for row in state.rows] == [("200", state.commits[0].at)]


def test_nothing_diverged_where_the_standby_had_everything(pair: MakePair, clients: Clients) -> None:
    with fallen(pair, lost=0) as (old, new, _, server):
        step = probe(old, new, by_control(server))
        state = step.observe(clients)
        assert (step.done(state), state.found.diverged, state.lost) == (True, False, 0)
        state = carry_out(rebuild(old, new, by_control(server), state.found), clients)
        assert (state.method, state.kept) == ("start", "")
        again = step.observe(clients)
        assert (again.found.read, again.found.diverged) == (True, False)


def test_a_node_that_is_not_off_for_good_is_neither_read_nor_rebuilt(pair: MakePair, clients: Clients) -> None:
    old, other = pair()
    system_id = str(old.ask("SELECT system_identifier FROM pg_control_system()"))
    signed = Found(read=True, system_id=system_id, timeline=1, fork_lsn="0/1")
    with host_of(old, other) as (host, server):
        promote(other)
        with pytest.raises(ActionFailed, match="runs as a primary"):
            probe(old, other, by_control(server)).observe(clients)
        step = rebuild(old, other, by_control(server), signed)
        state = step.observe(clients)
        assert "never written over" in (step.refuse(state) or "")
        step.act(state, clients)
        old.kill()
        with pytest.raises(ActionFailed, match="nothing keeps it off"):
            probe(old, other, by_control(server)).observe(clients)
        assert "not off for good" in (step.refuse(step.observe(clients)) or "")
        assert host.job["number"] == 0


@pytest.mark.parametrize("way", ["control", "command"])
def test_an_old_primary_is_rewound_behind_what_is_kept_and_protects_again(
    pair: MakePair, clients: Clients, tmp_path: Path, way: str
) -> None:
    with fallen(pair) as (old, new, host, server):
        said = by_control(server) if way == "control" else {"command": as_command(server, tmp_path)}
        found = probe(old, new, said).observe(clients).found
        state = carry_out(rebuild(old, new, said, found, synchronous=old.name), clients)
        assert state.method == "rewind"
        assert host.kept is not None
        assert {file.name for file in (host.kept / "pg_wal").iterdir()}
        assert "COMMIT" in (host.kept / "waldump.txt").read_text()
        assert (state.link.slot, state.link.names) == ("active", old.name)
        new.do("INSERT INTO orders VALUES (200)")
        assert new.ask("SELECT sync_state FROM pg_stat_replication") == "sync"
        assert old.ask("SELECT count(*) FROM orders WHERE id BETWEEN 100 AND 102") == 0
        assert old.ask("SELECT pg_is_in_recovery()") is True


def test_a_base_backup_is_taken_where_rewinding_is_not_possible(pair: MakePair, clients: Clients) -> None:
    with fallen(pair, full_page_writes="off") as (old, new, host, server):
        found = probe(old, new, by_control(server)).observe(clients).found
        state = carry_out(rebuild(old, new, by_control(server), found), clients)
        assert state.method == "base-backup"
        assert host.kept is not None
        assert host.before is not None
        assert (host.before / "global" / "pg_control").is_file()


def test_only_what_was_signed_off_is_dropped(pair: MakePair, clients: Clients) -> None:
    with fallen(pair) as (old, new, host, server):
        found = probe(old, new, by_control(server)).observe(clients).found
        control = (old.data / "global" / "pg_control").read_bytes()
        less = rebuild(old, new, by_control(server), found.model_copy(update={"end_lsn": found.fork_lsn}))
        with pytest.raises(ActionFailed, match="signed off was"):
            less.act(less.observe(clients), clients)
        unread = rebuild(old, new, by_control(server), Found())
        assert "is not known" in (unread.refuse(unread.observe(clients)) or "")
        other = rebuild(old, new, by_control(server), found.model_copy(update={"timeline": 7}))
        assert "look at the divergence again" in (other.refuse(other.observe(clients)) or "")
        assert (old.data / "global" / "pg_control").read_bytes() == control
        assert host.job["number"] == 0


def test_a_rebuild_found_under_way_by_another_engine_is_waited_for_and_not_begun_again(pair: MakePair, clients: Clients) -> None:
    with fallen(pair) as (old, new, host, server):
        found = probe(old, new, by_control(server)).observe(clients).found
        host.go_on.clear()
        step = rebuild(old, new, by_control(server), found)
        step.act(step.observe(clients), clients)
        another = rebuild(old, new, by_control(server), found)
        state = another.observe(clients)
        assert (another.underway(state), another.done(state), another.move(state)) == (True, False, None)
        host.go_on.set()
        carry_out(another, clients)
        assert host.job["number"] == 1


def test_a_standby_that_streams_before_its_host_has_ended_is_waited_for(pair: MakePair, clients: Clients) -> None:
    with fallen(pair) as (old, new, host, server):
        found = probe(old, new, by_control(server)).observe(clients).found
        host.tell.clear()
        step = rebuild(old, new, by_control(server), found)
        step.act(step.observe(clients), clients)
        until(lambda: step.observe(clients).link.settled(step.standby), 20)
        state = step.observe(clients)
        assert (step.done(state), step.underway(state), step.move(state)) == (False, True, None)
        assert "running" in step.explain(state)
        host.tell.set()
        state = carry_out(step, clients)
        assert (state.method, state.kept, host.job["number"]) == ("rewind", str(host.kept), 1)


def test_a_rebuild_that_fails_in_this_attempt_is_told_and_not_begun_again_by_itself(pair: MakePair, clients: Clients) -> None:
    with fallen(pair) as (old, new, host, server):
        found = probe(old, new, by_control(server)).observe(clients).found
        step = rebuild(old, new, by_control(server), found)
        first = Seen(step.fold(None, Seen(step.observe(clients), datetime.now(UTC))), datetime.now(UTC))
        host.job = {"number": 1, "state": "failed", "phase": "base-backup", "error": "no space left"}
        failed = step.fold(first, Seen(step.observe(clients), datetime.now(UTC)))
        with pytest.raises(ActionFailed, match="no space left"):
            step.act(failed, clients)
        retried = step.fold(None, Seen(step.observe(clients), datetime.now(UTC)))
        assert (step.move(retried), step.refuse(retried)) == ("rebuild", None)
        half = retried.host.model_copy(update={
            "control": retried.host.control.model_copy(update={"timeline": 2}),
            "job": retried.job.model_copy(update={"kept": "/kept/east-1"}),
        })  # fmt: skip
        assert step.refuse(retried.model_copy(update={"host": half})) is None
        assert step.refuse(retried.model_copy(update={"host": half.model_copy(update={"job": retried.job})})) is not None


def test_the_list_is_bounded_and_the_count_is_not() -> None:
    step = DivergenceProbe.model_validate({
        "node": {"host": "a", "database": "d", "user": "u"}, "primary": {"host": "b", "database": "d", "user": "u"},
        "host": {"control": {"url": "http://x"}}, "tables": [{"table": "orders", "key": "ref"}],
    })  # fmt: skip
    rows = [{"table": "orders", "key": f"k{number}", "row": "{}"} for number in range(200)]
    state = Divergence.model_validate({"found": {"read": True, "diverged": True, "transactions": 999}, "written": 999, "lost": 999, "rows": rows})
    assert "989 more" in step.explain(state)
    assert "k10," not in step.explain(state)
