"""A PostgreSQL server as runbooks name it, and the one place that turns its errors into ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from pydantic import Field, SecretStr, field_validator

from tasks.contract import Frozen
from tasks.errors import ActionFailed

if TYPE_CHECKING:
    import psycopg

    from tasks.postgres_session import Session

# Worth asking again: connection lost (08), serialization (40), no room (53300), lock (55P03), stopping, starting (57).
_TRANSIENT = re.compile(r"08...|40...|53300|55P03|57P0[123]|57014")


class Server(Frozen):
    """Where a PostgreSQL server answers and as whom to ask it."""

    host: str = Field(
        description="Name, address, or folder of a Unix socket.", min_length=1, examples=["db.west.example"]
    )
    port: int = Field(5432, description="TCP port.", ge=1, le=65535)
    database: str = Field(
        description="Database to connect to. Promotions exclude each other only within one database.", examples=["shop"]
    )
    user: str = Field(description="Role to connect as, one of the engine's own.", examples=["failover"])
    password: SecretStr | None = Field(
        None, description="Its password; without one libpq looks into its password file."
    )
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = Field(
        "prefer", description="As in libpq."
    )
    application_name: str = Field("failover", description="How sessions appear in pg_stat_activity.", max_length=63)

    @property
    def name(self) -> str:
        """The server in errors and leases: 'host:port/database', without secrets."""
        return f"{self.host}:{self.port}/{self.database}"

    @property
    def psql(self) -> str:
        """How a person reaches it; psql asks for the password or takes PGPASSWORD."""
        return f'psql "host={self.host} port={self.port} dbname={self.database} user={self.user}"'


class Heartbeat(Frozen):
    """A row that the service rewrites all the time; what arrived of it on the standby bounds the loss."""

    table: str = Field("heartbeat", description="Table, with its schema if it is not on the search path.")
    column: str = Field("at", description="Its column of type timestamptz; the newest value counts.")

    @field_validator("table", "column")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?", value):
            raise ValueError(f"'{value}' is no plain name; write table or schema.table, without quotes")
        return value


def connect(server: Server, check: Callable[[], None], timeout: timedelta) -> Session:
    """Open a session (autocommit) that calls `check` right before each statement and waits `timeout` at most.

    Raises ActionFailed when the server cannot be reached or refuses; its `code` is the SQLSTATE where there is one.
    """
    from tasks.postgres_session import open_session

    with asking(server, "connect"):
        return open_session(server, check, timeout)


@contextlib.contextmanager
def asking(server: Server, attempted: str) -> Iterator[None]:
    """Turn what psycopg raises inside into ActionFailed: `attempted` says what was tried."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise failed(error, server, attempted) from error
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ActionFailed(f"{server.name}: {reason}", attempted=f"{attempted} on {server.name}", retry=True) from error


def failed(error: psycopg.Error, server: Server, attempted: str) -> ActionFailed:
    """Translate an error of psycopg; its first line only, as the rest may quote statements."""
    import psycopg

    code = error.sqlstate or _code_of_connect(str(error))
    lines = str(error).strip().splitlines() or [type(error).__name__]
    lost = not code and isinstance(error, psycopg.OperationalError)
    return ActionFailed(
        f"{server.name}: {lines[0].strip()}",
        attempted=f"{attempted} on {server.name}",
        code=code,
        retry=lost or _TRANSIENT.fullmatch(code) is not None,
    )


def _code_of_connect(message: str) -> str:
    """A failed connect has a text, but no SQLSTATE; where it is in English, these are worth telling apart."""
    known = {
        "password authentication failed": "28P01",
        "no pg_hba.conf entry": "28000",
        "pg_hba.conf rejects": "28000",
        "does not exist": "3D000",
        "the database system is": "57P03",
    }
    return next((code for text, code in known.items() if text in message), "")
