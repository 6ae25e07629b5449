"""What tests of several folders share: the binaries of real PostgreSQL servers, unpacked once for each process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.tasks.postgres_nodes import Installation, Node, installed


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    with installed(worker) as found:
        yield found


@pytest.fixture
def postgres(installation: Installation) -> Iterator[Installation]:
    yield installation
    installation.discard()


@pytest.fixture(scope="module")
def journal_server(installation: Installation) -> Iterator[Node]:
    """A server for journals; no test may leave it stopped."""
    node = installation.node("journal", fsync="on").start()
    yield node
    node.discard()
