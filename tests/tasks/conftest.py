"""Real servers for the tests of actions: PostgreSQL, AWS by moto, HTTP and DNS of our own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from typing import Any

import pytest

from tasks.clients import Clients
from tests.tasks.postgres_nodes import Installation, Node, caught_up, installed, streaming, until

Pair = tuple[Node, Node]


@pytest.fixture
def pair(postgres: Installation) -> Callable[..., Pair]:
    """Make a primary and its streaming standby; `standby_settings` go to the standby, others to both."""
    return pairs_of(postgres)


@pytest.fixture
def pair_of_18() -> Iterator[Callable[..., Pair]]:
    """The same with PostgreSQL 18."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    with installed(worker + 100, "18") as newer:
        yield pairs_of(newer)
        newer.discard()


def pairs_of(postgres: Installation) -> Callable[..., Pair]:
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


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Moto's server, empty, with the environment that leads boto3 to it."""
    import httpx

    httpx.post(f"{moto_server}/moto-api/reset", trust_env=False).raise_for_status()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return moto_server


@cache
def real(service: str, region: str, endpoint: str) -> Any:
    """A boto3 client of the test's own; making one takes long."""
    import boto3

    return boto3.session.Session().client(service, region_name=region, endpoint_url=endpoint)
