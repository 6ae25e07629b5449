"""Nobody without the key changes the record unseen: every kind of change, on a real file and on a real server."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.anchors import anchor, anchors_in, check
from flows.export import export, read
from flows.journal import Journal, JournalError, KeyMissing, SaidNote
from flows.journal_chain import Finding, Key, Row, Vouch, chain, examine, extend, link, vouch
from flows.journal_keys import KeyFile
from flows.journal_sqlite import SqliteJournal
from flows.journal_sqlite_schema import _FIRST
from tests.flows.journals import PostgresPlace
from tests.flows.test_journal import NOW, begin, note

OURS, OTHERS = Key(b"k" * 64), Key(b"a" * 64)
Rows = dict[str, list[Row]]
ROW = "execution, number, at, kind, body, hash, key, mac"


def find(key: str) -> Key | None:
    return OURS if key == OURS.id else None


def written(folder: Path, text: str = "k" * 64) -> KeyFile:
    path = folder / "a.key"
    path.write_text(text)
    return KeyFile(path)


def fill(journal: Journal) -> None:
    """Two executions that look alike."""
    for name, count in (("e1", 6), ("e2", 4)):
        number = begin(journal, name)
        for at in range(count):
            number = journal.append(name, number, [note(f"{name} {at}", NOW + timedelta(seconds=at))])


# -- what somebody who owns the whole database may do, without the key


def renumber(execution: str, rows: list[Row], key: Key | None) -> list[Row]:
    """The rows made to fit again: the plain chain by anybody, the macs with a key of one's own or none."""
    if key is not None:
        return extend(execution, None, [(row.at, row.kind, row.body) for row in rows], key)
    made, previous = [], "0" * 64
    for number, row in enumerate(rows, start=1):
        previous = chain(previous, execution, number, row.body)
        made.append(replace(row, execution=execution, number=number, hash=previous))
    return made


def spoil(rows: Rows, what: str, pick: int) -> Rows:
    """One change. pick: which row, of those that can be chosen."""
    ours, theirs = rows["e1"], rows["e2"]
    at = pick % len(ours)
    one = ours[at]
    match what:
        case "body":
            changed = replace(one, body=one.body.replace("2026", "2025", 1))
        case "body and chain":
            changed = replace(one, body=one.body.replace("2026", "2025", 1))
            return {**rows, "e1": renumber("e1", [*ours[:at], changed, *ours[at + 1 :]], None)}
        case "time":
            changed = replace(one, at=one.at + timedelta(seconds=1))
        case "kind":
            changed = replace(one, kind="acting")
        case "mac":
            changed = replace(one, mac=one.mac[::-1])
        case "key's name":
            changed = replace(one, key=OTHERS.id)
        case "without mac":
            changed = replace(one, key="", mac="")
        case "removed":
            return {**rows, "e1": [*ours[:at], *ours[at + 1 :]]}
        case "removed, moved up":
            return {**rows, "e1": renumber("e1", [*ours[:at], *ours[at + 1 :]], None)}
        case "cut off":
            return {**rows, "e1": ours[: at or None][:-1] if at == 0 else ours[:at]}
        case "inserted":
            return {**rows, "e1": renumber("e1", [*ours[:at], theirs[pick % len(theirs)], *ours[at:]], None)}
        case "added":
            return {**rows, "e1": [*ours, *extend("e1", ours[-1], [(one.at, one.kind, one.body)], OTHERS)]}
        case "swapped":
            order = [*ours]
            other = (at + 1) % len(ours)
            order[at], order[other] = order[other], order[at]
            return {**rows, "e1": renumber("e1", order, None)}
        case "executions swapped":
            return {"e1": renumber("e1", theirs, None), "e2": renumber("e2", ours, None)}
        case "all sealed by another key":
            return {**rows, "e1": renumber("e1", theirs, OTHERS)}
        case "all without macs":
            return {**rows, "e1": [replace(row, key="", mac="") for row in renumber("e1", theirs, None)]}
        case "everything removed":
            return {**rows, "e1": []}
    return {**rows, "e1": [*ours[:at], changed, *ours[at + 1 :]]}


CHANGES = ("body", "body and chain", "time", "kind", "mac", "key's name", "without mac", "removed", "removed, moved up",
           "cut off", "inserted", "added", "swapped", "executions swapped", "all sealed by another key",
           "all without macs", "everything removed")  # fmt: skip
PICKS = st.tuples(st.sampled_from(CHANGES), st.integers(0, 30))


def findings(journal: Journal, kept: list[str], find_key: Callable[[str], Key | None] = find) -> list[Finding]:
    """As `failover verify-journal` looks, with the heads that were written down before."""
    found: list[Finding] = []
    for execution in ("e1", "e2"):
        rows = journal.stored(execution)
        found += examine(execution, rows, journal.vouched(execution), find_key)
        found += check([(one, "an anchor") for text in kept for one in anchors_in(text) if one.execution == execution], rows)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows, list[str]]:
    """A file with two executions, what is in it, and its anchors."""
    folder = tmp_path_factory.mktemp("whole")
    journal = SqliteJournal(folder / "journal.db", keys=written(folder))
    fill(journal)
    rows, kept = {name: journal.stored(name) for name in ("e1", "e2")}, [anchor(journal, name) for name in ("e1", "e2")]
    assert findings(journal, kept) == []
    journal.close()
    return folder / "journal.db", rows, kept


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=PICKS)
def test_every_change_of_a_file_is_found(whole: tuple[Path, Rows, list[str]], tmp_path: Path, change: tuple[str, int]) -> None:
    path, rows, kept = whole
    spoiled = tmp_path / f"{uuid4()}.db"
    shutil.copy(path, spoiled)
    with closing(sqlite3.connect(spoiled)) as other:
        other.executescript("DROP TRIGGER events_stay; DROP TRIGGER events_remain; DELETE FROM events")
        for row in (row for part in spoil(rows, *change).values() for row in part):
            other.execute(f"INSERT INTO events ({ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                          (row.execution, row.number, row.at.isoformat(), row.kind, row.body, row.hash, row.key, row.mac))  # fmt: skip
        other.commit()
    journal = SqliteJournal(spoiled)
    assert findings(journal, kept) != []
    if change[0] not in {"key's name", "added"}:  # sealed by a key that we do not have: that much can be told, and is
        assert any(not one.unchecked for one in findings(journal, kept))
    journal.close()


@pytest.fixture(scope="module")
def table(journal_server) -> Iterator[tuple[PostgresPlace, Rows, list[str], Journal]]:
    """The same in a database, open to changes."""
    place = PostgresPlace(journal_server)
    journal = place.open()
    fill(journal)
    rows, kept = {name: journal.stored(name) for name in ("e1", "e2")}, [anchor(journal, name) for name in ("e1", "e2")]
    for statement in place.spoil:
        place.execute(statement)
    yield place, rows, kept, journal
    journal.close()


@settings(max_examples=40, deadline=None)
@given(change=PICKS)
def test_every_change_of_a_database_is_found(table: tuple[PostgresPlace, Rows, list[str], Journal], change: tuple[str, int]) -> None:
    place, rows, kept, journal = table
    with closing(place.session()) as other, other.transaction():
        put_back(other, spoil(rows, *change))
    assert findings(journal, kept, KeyFile().find) != []
    with closing(place.session()) as other, other.transaction():
        put_back(other, rows)
    assert findings(journal, kept, KeyFile().find) == []


def put_back(other: psycopg.Connection, rows: Rows) -> None:
    other.execute("TRUNCATE failover.events")
    for row in (row for part in rows.values() for row in part):
        other.execute(f"INSERT INTO failover.events ({ROW}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                      (row.execution, row.number, row.at, row.kind, row.body, row.hash, row.key, row.mac))  # fmt: skip


def test_a_cut_off_end_shows_against_an_anchor_only(whole: tuple[Path, Rows, list[str]]) -> None:
    _, rows, kept = whole
    short = rows["e1"][:-1]
    assert examine("e1", short, None, find) == []
    assert check([(one, "a report") for one in anchors_in(kept[0])], short) != []


def test_what_came_after_an_anchor_does_not_matter_to_it(whole: tuple[Path, Rows, list[str]]) -> None:
    _, rows, kept = whole
    longer = [*rows["e1"], *extend("e1", rows["e1"][-1], [(NOW, "noted", note().model_dump_json())], OURS)]
    assert check([(one, "a report") for one in anchors_in(kept[0])], longer) == []


def test_a_missing_key_is_told_as_that_and_not_as_a_change(whole: tuple[Path, Rows, list[str]]) -> None:
    _, rows, _ = whole
    found = examine("e1", rows["e1"], None, lambda _id: None)
    assert [one.unchecked for one in found] == [True]
    assert OURS.id in found[0].text


def test_rows_of_two_keys_are_intact_when_both_are_in_the_file(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db", keys=written(tmp_path, "k" * 64))
    number = begin(journal)
    journal.close()
    journal = SqliteJournal(tmp_path / "journal.db", keys=written(tmp_path, f"{'n' * 64}\n# until yesterday\n{'k' * 64}\n"))
    journal.append("e1", number, [note()])
    assert journal.verify("e1") == []
    assert len({row.key for row in journal.stored("e1")}) == 2
    journal.close()


# -- the key


def test_a_first_run_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    keys = KeyFile(environ={"XDG_CONFIG_HOME": str(tmp_path / "config")})
    made = keys.current()
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.path.parent.stat().st_mode) == 0o700
    assert KeyFile(environ={"XDG_CONFIG_HOME": str(tmp_path / "config")}).current() == made
    assert [path.name for path in keys.path.parent.iterdir()] == ["journal.key"]


def test_a_key_is_shown_by_nothing(tmp_path: Path) -> None:
    text = "canary" * 10
    key = written(tmp_path, text).current()
    assert "canary" not in f"{key!r} {key} {key.id} {key.mac('x')}"


@pytest.mark.parametrize("text", [None, "", "too short", "# nothing\n"])
def test_without_a_key_nothing_is_written_and_reading_goes_on(tmp_path: Path, text: str | None) -> None:
    journal = SqliteJournal(tmp_path / "journal.db", keys=written(tmp_path))
    begin(journal)
    journal.close()
    path = tmp_path / "a.key"
    path.unlink() if text is None else path.write_text(text)
    journal = SqliteJournal(tmp_path / "journal.db", keys=KeyFile(path))
    with pytest.raises(KeyMissing):
        journal.append("e1", 1, [note()])
    assert [number for number, _ in journal.read("e1")] == [1]
    journal.close()


def test_a_second_key_is_not_made_where_the_first_one_is_only_missing(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db", keys=written(tmp_path))
    begin(journal)
    journal.close()
    elsewhere = KeyFile(environ={"XDG_CONFIG_HOME": str(tmp_path / "config")})
    journal = SqliteJournal(tmp_path / "journal.db", keys=elsewhere)
    with pytest.raises(KeyMissing, match=OURS.id):
        journal.append("e1", 1, [note()])
    assert not elsewhere.path.exists()
    journal.close()


# -- journals of schema 1


def old_rows(execution: str, count: int) -> list[Row]:
    return [replace(row, key="", mac="") for row in extend(execution, None, [(NOW, "noted", note().model_dump_json())] * count, OURS)]


def test_a_file_of_schema_1_is_vouched_for_and_goes_on_sealed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(_FIRST)
        old.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
                        [(row.execution, row.number, row.at.isoformat(), row.kind, row.body, row.hash) for row in old_rows("e1", 3)])  # fmt: skip
        old.execute("PRAGMA user_version=1")
        old.commit()
    journal = SqliteJournal(path, keys=written(tmp_path))
    assert journal.verify("e1") == []
    assert journal.append("e1", 3, [note()]) == 4
    assert journal.verify("e1") == []
    assert [row.key for row in journal.stored("e1")] == ["", "", "", OURS.id]
    assert_plain_rows_cannot_be_forged(journal)
    journal.close()


def test_a_database_of_schema_1_is_vouched_for_and_goes_on_sealed(shared: PostgresPlace, tmp_path: Path) -> None:
    shared.open().close()
    shared.execute("DROP TABLE failover.vouches, failover.imports; ALTER TABLE failover.events DROP COLUMN key, DROP COLUMN mac; "
                   "ALTER TABLE failover.schema_version RENAME TO old; CREATE TABLE failover.schema_version AS SELECT 1 AS number")  # fmt: skip
    with shared.session() as old:
        for row in old_rows("e1", 3):
            old.execute("INSERT INTO failover.events VALUES (%s, %s, %s, %s, %s, %s)",
                        (row.execution, row.number, row.at, row.kind, row.body, row.hash))  # fmt: skip
    journal = shared.open(keys=written(tmp_path))
    assert journal.verify("e1") == []
    assert journal.append("e1", 3, [note()]) == 4
    assert journal.verify("e1") == []
    assert_plain_rows_cannot_be_forged(journal)
    journal.close()
    shared.open(keys=written(tmp_path)).close()


def assert_plain_rows_cannot_be_forged(journal: Journal) -> None:
    """Neither other plain rows, nor more, nor fewer, nor a vouch of one's own."""
    rows, ours = journal.stored("e1"), journal.vouched("e1")
    plain = rows[:3]
    other = renumber("e1", [plain[0], replace(plain[1], body=plain[1].body.replace("2026", "2025")), plain[2]], None)
    for forged in (other, plain[:2], [replace(row, key="", mac="") for row in rows], []):
        assert examine("e1", forged, ours, find) != []
        assert examine("e1", forged, vouch("e1", len(forged), forged[-1].hash if forged else "", OTHERS), find) != []
    assert examine("e1", plain, None, find) != []
    assert examine("e1", plain, replace(vouch("e1", 3, plain[-1].hash, OTHERS), key=OURS.id), find) != []


# -- exports


@pytest.fixture
def exported(tmp_path: Path) -> str:
    journal = SqliteJournal(tmp_path / "journal.db", keys=written(tmp_path))
    fill(journal)
    journal.put("e1", SaidNote(by="kim", reason="seen"), NOW)
    text = export(journal, "e1", find)
    assert export(journal, "e1", find) == text
    journal.close()
    return text


def test_an_export_is_verified_without_its_journal(exported: str) -> None:
    whole = read(exported, find)
    assert (whole.execution, len(whole.rows), whole.findings) == ("e1", 7, ())


def test_an_auditor_without_the_key_is_told_what_was_not_checked(exported: str) -> None:
    found = read(exported, lambda _id: None).findings
    assert found
    assert all(one.unchecked for one in found)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(0, 100_000), how=st.sampled_from(["change", "cut", "drop line", "double line"]), keyed=st.booleans())
def test_no_change_of_an_export_goes_unseen(exported: str, where: int, how: str, keyed: bool) -> None:
    lines = exported.splitlines(keepends=True)
    at, line = where % (len(exported) - 1), where % len(lines)
    changed = {
        "change": exported[:at] + ("0" if exported[at] != "0" else "1") + exported[at + 1 :],
        "cut": exported[:at],
        "drop line": "".join([*lines[:line], *lines[line + 1 :]]),
        "double line": "".join([*lines[:line], lines[line], *lines[line:]]),
    }[how]
    if not keyed and changed.splitlines()[:-1] == exported.splitlines()[:-1]:
        return  # the last line's own mac says nothing to somebody without the key
    try:
        found = read(changed, find if keyed else lambda _id: None).findings
    except JournalError:
        return
    assert any(not one.unchecked for one in found) or (keyed and found), (how, at)


def test_a_seal_names_execution_number_and_text() -> None:
    seals = {OURS.mac(link(*parts)) for parts in (("0", "e1", 1, "x"), ("0", "e2", 1, "x"), ("0", "e1", 2, "x"), ("1", "e1", 1, "x"))}
    assert len(seals) == 4


def test_a_vouch_is_of_its_own_execution() -> None:
    rows = old_rows("e2", 2)
    borrowed: Vouch = replace(vouch("e1", 2, rows[-1].hash, OURS), execution="e2")
    assert examine("e2", rows, borrowed, find) != []
