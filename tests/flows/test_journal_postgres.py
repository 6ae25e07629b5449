"""What a journal on a server must keep besides: machines share it, and it shows no password."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from flows.events import Answer
from flows.journal import Busy, Halted, Held, JournalError, SaidAboutGate
from flows.journal_postgres import PostgresJournal, _half, server_time
from flows.journal_postgres_schema import INBOX_LOCK, SCHEMA_LOCK
from tests.flows.journals import WAITING, Aside, PostgresPlace
from tests.flows.test_journal import NOW, TTL, begin, holder, note
from tests.tasks.postgres_nodes import Installation, until

ROOT = Path(__file__).parents[2]
SHORT = timedelta(seconds=1)
SAID = SaidAboutGate(gate="go", answer=Answer.approve, by="kim")


def test_leases_go_by_the_clock_of_the_server(shared: PostgresPlace) -> None:
    one, ahead = shared.open(lease_clock=server_time), shared.open(lease_clock=server_time)
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


def test_an_entry_is_not_seen_before_one_with_a_smaller_number(shared: PostgresPlace) -> None:
    journal = shared.open()
    with shared.session() as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(%s, %s)", (INBOX_LOCK, _half("e1")))
        other.execute(
            "INSERT INTO failover.inbox (key, execution, at, body) VALUES (gen_random_uuid(), 'e1', now(), %s)",
            (SAID.model_dump_json(),),
        )
        second = shared.open()
        putting = Aside(lambda: second.put("e1", SAID, NOW))
        until(lambda: shared.node.ask(WAITING) == 1)
        assert journal.inbox("e1") == []
    number = putting.end()
    assert [one.number for one in journal.inbox("e1")] == [number - 1, number]
    journal.close()
    second.close()


def test_when_a_halt_returns_no_announcement_that_missed_it_is_under_way(shared: PostgresPlace) -> None:
    engine, person = shared.open(), shared.open()
    number = begin(engine)
    engine.acquire(["a"], holder("e1"), TTL, NOW)
    with shared.session() as other, other.transaction():
        other.execute("SELECT * FROM failover.leases FOR UPDATE")
        announcing = Aside(lambda: engine.append("e1", number, [note()], lease=holder("e1")))
        until(lambda: shared.node.ask(WAITING) == 1)
        halting = Aside(lambda: person.switch("a", "kim", "stop", NOW, on=True))
        until(lambda: shared.node.ask(WAITING) == 2)
    assert announcing.end() == 2
    assert halting.end() is None
    with pytest.raises(Halted):
        engine.append("e1", 2, [note()], lease=holder("e1"))
    engine.close()
    person.close()


def test_whoever_waited_for_the_tables_to_be_made_uses_them(shared: PostgresPlace) -> None:
    with shared.session() as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(%s, 0)", (SCHEMA_LOCK,))
        opening = [Aside(shared.open), Aside(shared.open)]
        until(lambda: shared.node.ask(WAITING) == 2)
    for one in opening:
        journal = one.end()
        assert journal.executions() == []
        journal.close()


def test_processes_that_start_at_once_make_one_journal(shared: PostgresPlace) -> None:
    script = f"import sys; {shared.python}\njournal = Opened(Address(sys.argv[1])); print(journal.executions()); journal.close()"
    children = [
        subprocess.Popen([sys.executable, "-c", script, shared.address], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(4)
    ]
    assert [child.communicate(timeout=60)[0] for child in children] == ["[]\n"] * 4
    with shared.session() as other:
        assert other.execute("SELECT count(*) FROM failover.schema_version").fetchone() == (1,)


def test_a_journal_of_a_newer_version_is_not_touched(shared: PostgresPlace) -> None:
    shared.open().close()
    shared.execute("INSERT INTO failover.schema_version VALUES (99)")
    with pytest.raises(JournalError, match="newer version"):
        shared.open()


@pytest.mark.parametrize("statement", [
    "TRUNCATE failover.events", "TRUNCATE failover.inbox", "UPDATE failover.inbox SET body = ''", "DELETE FROM failover.switches",
    "SET session_replication_role = replica; DELETE FROM failover.events",
])  # fmt: skip
def test_every_way_to_change_the_record_is_refused(shared: PostgresPlace, statement: str) -> None:
    shared.open().close()
    with pytest.raises(shared.refused):
        shared.execute(statement)


def test_the_rights_in_the_documents_are_enough_and_not_more(shared: PostgresPlace) -> None:
    shared.open().close()
    page = (ROOT / "docs" / "journal.md").read_text(encoding="utf-8")
    shared.execute(re.search(r"^```sql\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[1])
    journal = PostgresJournal(shared.address_as("failover_engine"))
    number = begin(journal)
    assert isinstance(journal.acquire(["a"], holder("e1"), TTL, NOW), Held)
    assert journal.append("e1", number, [note()], lease=holder("e1")) == 2
    journal.renew(holder("e1"), TTL, NOW)
    journal.put("e1", SAID, NOW)
    journal.switch("a", "kim", "stop", NOW, on=True)
    assert (len(journal.executions()), len(journal.inbox("e1")), len(journal.halts())) == (1, 1, 1)
    journal.release(holder("e1"), NOW)
    journal.close()
    with closing(shared.session("failover_engine")) as other:
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


def test_the_place_shows_no_password(shared: PostgresPlace) -> None:
    journal = PostgresJournal(shared.address_as("failover", "canary") + "?application_name=canary")
    assert journal.place == shared.address
    journal.close()
