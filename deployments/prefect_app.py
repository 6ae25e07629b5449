"""The app that our own Prefect server serves: Prefect's, with one cure for SQLite.

A transaction that reads first and then writes starts DEFERRED in Prefect 3.8.8; when another one wrote meanwhile, SQLite
refuses the upgrade at once ('database is locked', a 503), and Prefect's client sleeps 2 s before it tries again. Begun
IMMEDIATE, it waits its turn for milliseconds instead.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from prefect.server.database.configurations import AioSqliteConfiguration


def create_app() -> Any:
    """Make the app; called by uvicorn in the server's process."""
    begin_immediately()
    from prefect.server.api.server import create_app as create

    return create()


def begin_immediately() -> None:
    """Let every transaction of this process that may write begin IMMEDIATE."""
    as_shipped = AioSqliteConfiguration.begin_transaction

    @asynccontextmanager
    async def begin(self: AioSqliteConfiguration, session: Any, with_for_update: bool = True) -> AsyncGenerator[Any, None]:  # noqa: ARG001 - its signature
        async with as_shipped(self, session, with_for_update=True) as transaction:
            yield transaction

    AioSqliteConfiguration.begin_transaction = begin  # type: ignore[method-assign]
