"""Journals for tests: a file, and a database on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.journal import Journal
from tests.flows.journals import Place, PostgresPlace, SqlitePlace
from tests.tasks.postgres_nodes import Installation, Node


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


@pytest.fixture
def shared(journal_server: Node) -> PostgresPlace:
    """A journal on a server that other tests use."""
    return PostgresPlace(journal_server)


@pytest.fixture
def own(installation: Installation) -> Iterator[PostgresPlace]:
    """A journal on a server that the test may break."""
    node = installation.node("own", fsync="on").start()
    yield PostgresPlace(node)
    node.discard()
