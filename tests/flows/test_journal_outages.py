"""A journal whose server dies, freezes or loses answers: it never hangs, and it never guesses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from flows.clock import SystemClock
from flows.events import Answer
from flows.journal import Conflict, Journal, JournalError, SaidAboutGate
from flows.journal_postgres import PostgresJournal, _half, server_time
from flows.journal_postgres_schema import EVENTS_LOCK
from flows.runs import Request, start
from tests.flows.journals import WAITING, Aside, PostgresPlace
from tests.flows.test_journal import NOW, TTL, begin, holder, note
from tests.flows.wire import Wire
from tests.flows.world import WORLD, Set, World, make_plan, step
from tests.tasks.postgres_nodes import Node, until

SHORT = timedelta(seconds=1)
SAID = SaidAboutGate(gate="go", answer=Answer.approve, by="kim")


@pytest.fixture
def wire(shared: PostgresPlace) -> Iterator[Wire]:
    made = Wire(shared.node.host, shared.node.port)
    yield made
    made.close()


def through(wire: Wire, shared: PostgresPlace) -> PostgresJournal:
    return PostgresJournal(f"postgresql://failover@127.0.0.1:{wire.port}/{shared.database}")


def test_a_server_killed_while_an_act_is_announced_ends_the_run_and_nothing_was_done(own: PostgresPlace) -> None:
    WORLD[0] = world = World(real=True)
    journal = own.open(SHORT * 2, lease_clock=server_time)
    engine = start(journal, Request(make_plan(step("a", Set)), "kim", "test"), SystemClock())
    with own.session() as other, other.transaction():
        other.execute("SELECT * FROM failover.leases FOR UPDATE")  # only the announcement of an act asks for them
        run = Aside(engine.run)
        until(lambda: own.node.ask(WAITING) == 1)
        own.node.kill()
        other.close()
    assert isinstance(run.end(), JournalError)
    assert world.effects == []
    journal.close()
    own.node.start()
    journal = own.open()
    assert "acting" not in [event.kind for _, event in journal.read(engine.execution)]
    journal.close()


def test_a_commit_whose_answer_is_lost_is_found_and_not_written_twice(shared: PostgresPlace, wire: Wire) -> None:
    journal = through(wire, shared)
    number = begin(journal)
    wire.lose("answer", b"COMMIT")
    assert journal.append("e1", number, [note("a"), note("b")]) == 3
    assert wire.lost
    assert journal.append("e1", 3, [note("c")]) == 4
    assert [n for n, _ in journal.read("e1")] == [1, 2, 3, 4]
    assert journal.verify("e1") == []
    journal.close()


def test_a_commit_that_never_arrived_is_made_again_once(shared: PostgresPlace, wire: Wire) -> None:
    journal = through(wire, shared)
    number = begin(journal)
    wire.lose("question", b"COMMIT")
    assert journal.append("e1", number, [note("a")]) == 2
    assert wire.lost
    assert [n for n, _ in journal.read("e1")] == [1, 2]
    journal.close()


def test_after_a_lost_answer_what_somebody_else_wrote_is_a_conflict(shared: PostgresPlace, wire: Wire) -> None:
    journal, other = through(wire, shared), shared.open()
    number = begin(journal)
    with other._line._session.transaction():
        other._line._session.execute(f"SELECT pg_advisory_xact_lock({EVENTS_LOCK}, {_half('e1')})")
        wire.lose("question", b"pg_advisory")
        late = Aside(lambda: journal.append("e1", number, [note("mine")]))
        until(lambda: shared.node.ask(WAITING) == 1)
        other._line._session.execute(
            "INSERT INTO failover.events SELECT execution, 2, at, kind, body, hash FROM failover.events WHERE number = 1"
        )
    assert isinstance(late.end(), Conflict)
    journal.close()
    other.close()


@pytest.mark.parametrize("lost", ["question", "answer"])
def test_nothing_that_people_say_is_kept_twice_when_the_line_breaks(shared: PostgresPlace, wire: Wire, lost: Any) -> None:
    journal = through(wire, shared)
    for call in (
        lambda: journal.put("e1", SAID, NOW),
        lambda: journal.switch("a", "kim", "stop", NOW, on=True),
        lambda: journal.acquire(["b"], holder("e1"), TTL, NOW),
        lambda: journal.renew(holder("e1"), TTL, NOW),
        lambda: journal.release(holder("e1"), NOW),
    ):
        wire.lose(lost, b"COMMIT")
        call()
        assert wire.lost
    with shared.session() as other:
        counted = other.execute(
            "SELECT (SELECT count(*) FROM failover.inbox), (SELECT count(*) FROM failover.switches), (SELECT token FROM failover.leases)"
        ).fetchone()
    assert counted == (1, 1, 1)
    journal.close()


def test_a_commit_that_hangs_is_waited_for_and_looked_up(own: PostgresPlace) -> None:
    journal = own.open(SHORT * 6)
    number = begin(journal)
    own.node.do("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
    until(lambda: own.node.ask("SHOW synchronous_standby_names") == "nobody")
    written = Aside(lambda: journal.append("e1", number, [note("a")]))
    until(lambda: own.node.ask(WAITING) == 1)  # the first commit hangs, and a second connection waits for its end
    assert written.waits
    own.node.do("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
    assert written.end() == 2
    assert [n for n, _ in journal.read("e1")] == [1, 2]
    journal.close()


def test_a_commit_that_never_ends_is_told_as_not_known(own: PostgresPlace) -> None:
    journal = own.open(SHORT)
    number = begin(journal)
    own.node.do("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
    until(lambda: own.node.ask("SHOW synchronous_standby_names") == "nobody")
    begun = time.monotonic()
    with pytest.raises(JournalError, match="not known"):
        journal.append("e1", number, [note("a")])
    assert time.monotonic() - begun < 2
    journal.close()


@pytest.mark.parametrize("call", [
    lambda journal: journal.append("e1", 1, [note()], lease=holder("e1")),
    lambda journal: journal.read("e1"),
    lambda journal: journal.renew(holder("e1"), TTL, NOW),
    lambda journal: journal.put("e1", SAID, NOW),
    lambda journal: journal.halts(),
], ids=["append", "read", "renew", "put", "halts"])  # fmt: skip
def test_a_frozen_server_costs_the_time_out_and_no_more(journal_server: Node, shared: PostgresPlace, call: Callable[[Journal], object]) -> None:
    journal = shared.open(SHORT)
    begin(journal)
    journal.acquire(["a"], holder("e1"), TTL, NOW)
    journal_server.freeze()
    try:
        begun = time.monotonic()
        with pytest.raises(JournalError):
            call(journal)
        assert time.monotonic() - begun < 2
    finally:
        journal_server.thaw()
    until(journal_server.ready)
    assert len(journal.read("e1")) == 1
    journal.close()


def test_a_frozen_server_is_not_waited_for_at_the_start(journal_server: Node, shared: PostgresPlace) -> None:
    journal_server.freeze()
    try:
        begun = time.monotonic()
        with pytest.raises(JournalError, match="no answer"):
            shared.open(SHORT)
        assert time.monotonic() - begun < 2
    finally:
        journal_server.thaw()
    until(journal_server.ready)


def test_a_restarted_server_and_a_session_that_was_ended_are_no_matter(own: PostgresPlace) -> None:
    journal = own.open()
    number = begin(journal)
    own.node.do("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'failover journal'")
    number = journal.append("e1", number, [note()])
    own.node.stop()
    own.node.start()
    assert journal.append("e1", number, [note()]) == 3
    own.node.stop()
    back = threading.Timer(0.5, own.node.start)
    back.start()
    assert journal.append("e1", 3, [note()]) == 4  # it comes back within the time-out
    back.join()
    journal.close()


def test_a_writer_that_froze_in_its_transaction_is_not_waited_for_for_ever(shared: PostgresPlace) -> None:
    frozen, other = shared.open(SHORT), shared.open(SHORT * 10)
    number = begin(frozen)
    frozen._line._session.execute(f"BEGIN; SELECT pg_advisory_xact_lock({EVENTS_LOCK}, {_half('e1')})")
    assert other.append("e1", number, [note()]) == 2
    frozen.close()
    other.close()
