"""What only a journal on a server must keep: it never hangs, never guesses, and several machines share it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from flows.clock import SystemClock
from flows.events import Answer
from flows.journal import Busy, Conflict, Halted, Held, Journal, JournalError, SaidAboutGate
from flows.journal_postgres import PostgresJournal, _half, server_time
from flows.journal_postgres_schema import EVENTS_LOCK, INBOX_LOCK
from flows.runs import Request, start
from tests.flows.journals import PostgresPlace
from tests.flows.test_journal import NOW, TTL, begin, holder, note
from tests.flows.wire import Wire
from tests.flows.world import WORLD, Set, World, make_plan, step
from tests.tasks.postgres_nodes import Installation, Node, until

ROOT = Path(__file__).parents[2]
SHORT = timedelta(seconds=1)
SAID = SaidAboutGate(gate="go", answer=Answer.approve, by="kim")
WAITING = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'failover journal'"


@pytest.fixture
def place(journal_server: Node) -> PostgresPlace:
    return PostgresPlace(journal_server)


@pytest.fixture
def own(installation: Installation) -> Iterator[PostgresPlace]:
    """A journal on a server that the test may break."""
    node = installation.node("own", fsync="on").start()
    yield PostgresPlace(node)
    node.discard()


@pytest.fixture
def wire(place: PostgresPlace) -> Iterator[Wire]:
    made = Wire(place.node.host, place.node.port)
    yield made
    made.close()


def through(wire: Wire, place: PostgresPlace) -> PostgresJournal:
    return PostgresJournal(f"postgresql://failover@127.0.0.1:{wire.port}/{place.database}")


class Aside:
    """A call on a thread of its own, and what became of it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.result: object = None
        self._thread = threading.Thread(target=self._go, args=(call,))
        self._thread.start()

    def _go(self, call: Callable[[], object]) -> None:
        try:
            self.result = call()
        except Exception as error:
            self.result = error

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> Any:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.result


def test_a_server_killed_while_an_act_is_announced_ends_the_run_and_nothing_was_done(own: PostgresPlace) -> None:
    WORLD[0] = world = World(real=True)
    journal = own.open(SHORT * 2, lease_clock=server_time)
    engine = start(journal, Request(make_plan(step("a", Set)), "kim", "test"), SystemClock())
    with own.session() as other, other.transaction():
        other.execute("SELECT * FROM failover.leases FOR UPDATE")  # only the announcement of an act asks for them
        run = Aside(engine.run)
        until(lambda: bool(own.node.ask(WAITING)))
        own.node.kill()
        other.close()
    assert isinstance(run.end(), JournalError)
    assert world.effects == []
    journal.close()
    own.node.start()
    journal = own.open()
    assert "acting" not in [event.kind for _, event in journal.read(engine.execution)]
    journal.close()


def test_a_commit_whose_answer_is_lost_is_found_and_not_written_twice(place: PostgresPlace, wire: Wire) -> None:
    journal = through(wire, place)
    number = begin(journal)
    wire.lose("answer", b"COMMIT")
    assert journal.append("e1", number, [note("a"), note("b")]) == 3
    assert wire.lost
    assert journal.append("e1", 3, [note("c")]) == 4
    assert [n for n, _ in journal.read("e1")] == [1, 2, 3, 4]
    assert journal.verify("e1") == []
    journal.close()


def test_a_commit_that_never_arrived_is_made_again_once(place: PostgresPlace, wire: Wire) -> None:
    journal = through(wire, place)
    number = begin(journal)
    wire.lose("question", b"COMMIT")
    assert journal.append("e1", number, [note("a")]) == 2
    assert wire.lost
    assert [n for n, _ in journal.read("e1")] == [1, 2]
    journal.close()


def test_after_a_lost_answer_what_somebody_else_wrote_is_a_conflict(place: PostgresPlace, wire: Wire) -> None:
    journal, other = through(wire, place), place.open()
    number = begin(journal)
    with other._line._session.transaction():
        other._line._session.execute(f"SELECT pg_advisory_xact_lock({EVENTS_LOCK}, {_half('e1')})")
        wire.lose("question", b"pg_advisory")
        late = Aside(lambda: journal.append("e1", number, [note("mine")]))
        until(lambda: bool(place.node.ask(WAITING)))
        other._line._session.execute(
            "INSERT INTO failover.events SELECT execution, 2, at, kind, body, hash FROM failover.events WHERE number = 1"
        )
    assert isinstance(late.end(), Conflict)
    journal.close()
    other.close()


@pytest.mark.parametrize("lost", ["question", "answer"])
def test_nothing_that_people_say_is_kept_twice_when_the_line_breaks(place: PostgresPlace, wire: Wire, lost: Any) -> None:
    journal = through(wire, place)
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
    with place.session() as other:
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
    until(lambda: bool(own.node.ask(WAITING)))  # the first commit hangs, and a second connection waits for its end
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
def test_a_frozen_server_costs_the_time_out_and_no_more(journal_server: Node, place: PostgresPlace, call: Callable[[Journal], object]) -> None:
    journal = place.open(SHORT)
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


def test_a_frozen_server_is_not_waited_for_at_the_start(journal_server: Node, place: PostgresPlace) -> None:
    journal_server.freeze()
    try:
        begun = time.monotonic()
        with pytest.raises(JournalError, match="no answer"):
            place.open(SHORT)
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


def test_a_writer_that_froze_in_its_transaction_is_not_waited_for_for_ever(place: PostgresPlace) -> None:
    frozen, other = place.open(SHORT), place.open(SHORT * 10)
    number = begin(frozen)
    frozen._line._session.execute(f"BEGIN; SELECT pg_advisory_xact_lock({EVENTS_LOCK}, {_half('e1')})")
    assert other.append("e1", number, [note()]) == 2
    frozen.close()
    other.close()


def test_leases_go_by_the_clock_of_the_server(place: PostgresPlace) -> None:
    one, ahead = place.open(lease_clock=server_time), place.open(lease_clock=server_time)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    number = begin(one)
    one.acquire(["a"], holder("e1"), TTL, datetime.now(UTC))
    busy = ahead.acquire(["a"], holder("e2"), TTL, tomorrow)
    assert isinstance(busy, Busy)
    assert timedelta(0) < busy.left <= TTL
    assert one.append("e1", number, [note(at=tomorrow)], lease=holder("e1")) == 2
    one.renew(holder("e1"), timedelta(milliseconds=50), tomorrow)
    until(lambda: isinstance(ahead.acquire(["a"], holder("e2"), TTL, NOW), Held))
    one.close()
    ahead.close()


def test_an_entry_is_not_seen_before_one_with_a_smaller_number(place: PostgresPlace) -> None:
    journal = place.open()
    with place.session() as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(%s, %s)", (INBOX_LOCK, _half("e1")))
        other.execute(
            "INSERT INTO failover.inbox (key, execution, at, body) VALUES (gen_random_uuid(), 'e1', now(), %s)",
            (SAID.model_dump_json(),),
        )
        second = place.open()
        putting = Aside(lambda: second.put("e1", SAID, NOW))
        until(lambda: bool(place.node.ask(WAITING)))
        assert journal.inbox("e1") == []
    number = putting.end()
    assert [one.number for one in journal.inbox("e1")] == [number - 1, number]
    journal.close()
    second.close()


def test_when_a_halt_returns_no_announcement_that_missed_it_is_under_way(place: PostgresPlace) -> None:
    engine, person = place.open(), place.open()
    number = begin(engine)
    engine.acquire(["a"], holder("e1"), TTL, NOW)
    with place.session() as other, other.transaction():
        other.execute("SELECT * FROM failover.leases FOR UPDATE")
        announcing = Aside(lambda: engine.append("e1", number, [note()], lease=holder("e1")))
        until(lambda: place.node.ask(WAITING.replace("> 0", "= 1")))
        halting = Aside(lambda: person.switch("a", "kim", "stop", NOW, on=True))
        until(lambda: place.node.ask(WAITING.replace("> 0", "= 2")))
    assert announcing.end() == 2
    assert halting.end() is None
    with pytest.raises(Halted):
        engine.append("e1", 2, [note()], lease=holder("e1"))
    engine.close()
    person.close()


def test_processes_that_start_at_once_make_one_journal(place: PostgresPlace) -> None:
    script = f"import sys; {place.python}\njournal = Opened(Address(sys.argv[1])); print(journal.executions()); journal.close()"
    children = [
        subprocess.Popen([sys.executable, "-c", script, place.address], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(4)
    ]
    assert [child.communicate(timeout=60)[0] for child in children] == ["[]\n"] * 4
    with place.session() as other:
        assert other.execute("SELECT count(*) FROM failover.schema_version").fetchone() == (1,)


def test_a_journal_of_a_newer_version_is_not_touched(place: PostgresPlace) -> None:
    place.open().close()
    place.execute("INSERT INTO failover.schema_version VALUES (99)")
    with pytest.raises(JournalError, match="newer version"):
        place.open()


@pytest.mark.parametrize("statement", [
    "TRUNCATE failover.events", "TRUNCATE failover.inbox", "UPDATE failover.inbox SET body = ''", "DELETE FROM failover.switches",
    "SET session_replication_role = replica; DELETE FROM failover.events",
])  # fmt: skip
def test_every_way_to_change_the_record_is_refused(place: PostgresPlace, statement: str) -> None:
    place.open().close()
    with pytest.raises(place.refused):
        place.execute(statement)


def test_the_rights_in_the_documents_are_enough_and_not_more(place: PostgresPlace) -> None:
    place.open().close()
    page = (ROOT / "docs" / "journal.md").read_text(encoding="utf-8")
    place.execute(re.search(r"^```sql\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[1])
    journal = PostgresJournal(place.address_as("failover_engine"))
    number = begin(journal)
    assert isinstance(journal.acquire(["a"], holder("e1"), TTL, NOW), Held)
    assert journal.append("e1", number, [note()], lease=holder("e1")) == 2
    journal.renew(holder("e1"), TTL, NOW)
    journal.put("e1", SAID, NOW)
    journal.switch("a", "kim", "stop", NOW, on=True)
    assert (len(journal.executions()), len(journal.inbox("e1")), len(journal.halts())) == (1, 1, 1)
    journal.release(holder("e1"), NOW)
    journal.close()
    with closing(place.session("failover_engine")) as other:
        for statement in ("UPDATE failover.events SET body = ''", "DELETE FROM failover.inbox", "TRUNCATE failover.events",
                          "DROP TRIGGER stays ON failover.events", "DELETE FROM failover.leases"):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute(statement)


def test_of_several_hosts_the_one_that_can_be_written_to_is_used(own: PostgresPlace, installation: Installation) -> None:
    standby = installation.node("standby", follows=own.node).start()
    hosts = f"{standby.host}:{standby.port},{own.node.host}:{own.node.port}"
    journal = PostgresJournal(f"postgresql://failover@{hosts}/{own.database}")
    assert begin(journal) == 1
    assert journal.place == f"postgresql://failover@{hosts}/{own.database}"
    journal.close()
    with pytest.raises(JournalError, match="read-only"):
        PostgresJournal(f"postgresql://failover@{standby.host}:{standby.port}/{own.database}")
    standby.discard()


@pytest.mark.parametrize("address", [
    "postgresql://kim:can@ry@db.example/journal", "postgresql://kim:canary/x@db.example/journal",
    "postgresql://kim:canary%zz@db.example/journal", "postgresql://kim:canary[@db.example/journal",
    "postgresql:///journal?password=canary", "postgresql://kim:canary@127.0.0.1:1/journal?sslmode=canary",
    "postgresql://kim:canary@127.0.0.1:1/journal", "postgresql://kim:canary@nowhere.invalid/journal",
])  # fmt: skip
def test_no_error_shows_a_password(address: str) -> None:
    with pytest.raises(JournalError) as caught:
        PostgresJournal(address, SHORT)
    assert "canary" not in str(caught.value).replace('value: "canary"', "")
    assert "ry@" not in str(caught.value)


def test_the_place_shows_no_password(place: PostgresPlace) -> None:
    journal = PostgresJournal(place.address_as("failover", "canary") + "?application_name=canary")
    assert journal.place == place.address
    journal.close()
