"""Journals for tests: a file, and a database on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.journal import Journal
from tests.flows.journals import Place, PostgresPlace, SqlitePlace


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return SqlitePlace(tmp_path)
    return PostgresPlace(request.getfixturevalue("journal_server"))


@pytest.fixture
def journal(place: Place) -> Iterator[Journal]:
    journal = place.open()
    yield journal
    journal.close()
