"""What every journal tells of the past: bounded, and not spoiled by what it cannot read."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

from flows.events import HistoryLearned, Noted, Status, StepFinished, StepStarted
from flows.history import read
from flows.journal import Journal
from tests.flows.journals import Place
from tests.flows.world import make_plan, started, step

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def run(journal: Journal, name: str, number: int = 0, runbook: str = "shop") -> None:
    at = NOW + timedelta(hours=number)
    begun = started(make_plan(step("a")), at).model_copy(update={"runbook": runbook, "text": f'"runbook":"{runbook}"\n'})
    end = StepFinished(at=at + timedelta(seconds=2 + number), step="a", attempt=1, status=Status.done, detail="")
    journal.append(name, 0, [begun, StepStarted(at=at, step="a", attempt=1), Noted(at=at, text="x" * 100), end])


def test_the_newest_executions_of_a_runbook_are_told_newest_first(journal: Journal) -> None:
    for number in range(4):
        run(journal, f"e{number}", number)
    run(journal, "other", 9, runbook="shop-two")
    assert [past.execution for past in journal.past("shop", 3)] == ["e3", "e2", "e1"]
    assert len(journal.past("shop", 1)[0].bodies) == 3  # a note tells nothing about times
    assert journal.past("sho", 9) == []


def test_a_damaged_execution_is_left_out_with_a_note_and_spoils_no_other(journal: Journal, place: Place) -> None:
    for number in range(3):
        run(journal, f"e{number}", number)
    for statement in place.spoil:
        place.execute(statement)
    place.execute(f"UPDATE {place.events} SET body = 'not json' WHERE execution = 'e1' AND number = 4")
    place.execute(f"UPDATE {place.events} SET body = replace(body, 'step-finished', 'step-vanished') WHERE execution = 'e2' AND number = 4")
    learned = read(journal, "shop")
    assert isinstance(learned, HistoryLearned)
    assert learned.steps["a"].seconds == (2.0,)
    assert [one.split()[1] for one in learned.skipped] == ["e2", "e1"]


def test_a_second_connection_of_the_same_process_takes_nothing_from_the_first(journal: Journal, place: Place) -> None:
    """With a file: its locks are the process's, and closing any descriptor of it would give them all away."""
    run(journal, "e1")
    place.open().close()
    look = f"{place.python}; found = Opened(Address({place.address!r})); print(len(found.read('e1'))); found.close()"
    command = [sys.executable, "-c", look]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout == "4\n"
    journal.append("e1", 4, [Noted(at=NOW, text="after")])
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout == "5\n"


def test_the_hash_of_an_event_seals_everything_up_to_it(journal: Journal, place: Place) -> None:
    run(journal, "e1")
    run(journal, "e2")
    ours, others = journal.stored("e1"), journal.stored("e2")
    for sealed in ([row.hash for row in ours], [row.seal for row in ours]):
        assert [len(one) for one in sealed] == [64, 64, 64, 64]
        assert len({*sealed}) == 4
    assert others[3].hash != ours[3].hash
    assert others[3].seal != ours[3].seal
    assert journal.head("e1") == ours[3]
    assert journal.head("e3") is None
