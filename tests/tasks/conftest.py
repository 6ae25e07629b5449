"""Real servers for the tests of actions: PostgreSQL, AWS by moto, HTTP and DNS of our own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from tasks.clients import Clients

from tests.tasks.postgres_nodes import Installation, Node, caught_up, installed, streaming, until

Pair = tuple[Node, Node]


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    with installed(worker) as found:
        yield found


@pytest.fixture
def postgres(installation: Installation) -> Iterator[Installation]:
    yield installation
    installation.discard()


@pytest.fixture
def pair(postgres: Installation) -> Callable[..., Pair]:
    """Make a primary and its streaming standby; `standby_settings` go to the standby, others to both."""

    def make(standby_settings: dict[str, str] | None = None, **settings: str) -> Pair:
        primary = postgres.node("east", **settings).start()
        primary.do(
            "CREATE ROLE shop LOGIN",
            "CREATE TABLE orders (id int)",
            "GRANT ALL ON orders TO shop",
            "CREATE TABLE heartbeat (at timestamptz)",
            "INSERT INTO heartbeat VALUES (now())",
        )
        standby = postgres.node("west", follows=primary, **settings, **(standby_settings or {})).start()
        until(lambda: streaming(primary) and caught_up(primary, standby))
        return primary, standby

    return make


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients(timeout=timedelta(seconds=3))
    yield made
    made.close()
