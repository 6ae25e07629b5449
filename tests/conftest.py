"""What tests of several folders share: the binaries of real PostgreSQL servers, unpacked once for each process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tasks.postgres_nodes import Installation, Node, installed

_OF_THE_TESTS = Path(tempfile.mkdtemp(prefix="failover-test-user-"))  # not the user's own key, nor copies in his state
os.environ["XDG_CONFIG_HOME"], os.environ["XDG_STATE_HOME"] = str(_OF_THE_TESTS / "config"), str(_OF_THE_TESTS / "state")
atexit.register(shutil.rmtree, _OF_THE_TESTS, ignore_errors=True)


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
