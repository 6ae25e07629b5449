"""boto3 clients that check before every call, and the one place that turns AWS's errors into ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tasks.errors import ActionFailed, Revoked

if TYPE_CHECKING:
    from botocore.client import BaseClient

# Codes that AWS answers when the same call may succeed later, beside every 5xx.
RETRY = frozenset(
    {
        "InternalFailure",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ResourceContention",
        "ScalingActivityInProgress",
        "ServiceUnavailable",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)

_clients: dict[tuple[str, str, str | None, float], Any] = {}
_lock = threading.Lock()  # boto3's default session may not be shared while it makes clients


def client(service: str, region: str, endpoint: str | None, check: Callable[[], None], timeout: timedelta) -> Any:
    """Give a boto3 client whose every call runs `check` first; making it costs 100 to 300 ms, once a process.

    One attempt a call, no retries of its own: after a lost answer the engine looks again before it acts again.
    """
    key = (service, region, endpoint, timeout.total_seconds())
    with _lock:
        if key not in _clients:
            _clients[key] = _make(service, region, endpoint, timeout.total_seconds())
        return Checked(_clients[key], check)


def _make(service: str, region: str, endpoint: str | None, seconds: float) -> BaseClient:
    import boto3.session
    from botocore.config import Config

    config = Config(
        connect_timeout=seconds,
        read_timeout=seconds,
        retries={"total_max_attempts": 1, "mode": "standard"},
    )
    made: BaseClient = boto3.session.Session().client(service, region_name=region, endpoint_url=endpoint, config=config)
    _check_connections(made)
    return made


_call = threading.local()
"""`check` of the call that this thread makes."""


def _check_connections(made: Any) -> None:
    """Check once more when a new connection stands: no timeout bounds how long a name takes to resolve.

    Must never happen: a call whose name resolved after its attempt was given up. botocore has no event there.
    """
    from botocore.awsrequest import AWSHTTPConnection, AWSHTTPConnectionPool, AWSHTTPSConnection, AWSHTTPSConnectionPool

    def connect(self: Any) -> None:
        super(type(self), self).connect()
        _call.check()

    def pool(of: type[Any], connection: type[Any]) -> type[Any]:
        checked = type(f"Checked{connection.__name__}", (connection,), {"connect": connect})
        return type(f"Checked{of.__name__}", (of,), {"ConnectionCls": checked})

    made._endpoint.http_session._manager.pool_classes_by_scheme = {  # noqa: SLF001 - it has no other way in
        "http": pool(AWSHTTPConnectionPool, AWSHTTPConnection),
        "https": pool(AWSHTTPSConnectionPool, AWSHTTPSConnection),
    }


class Checked:
    """A boto3 client's operations, each checked before it leaves and its errors translated."""

    def __init__(self, wrapped: Any, check: Callable[[], None]) -> None:
        self._wrapped = wrapped
        self._check = check

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = self._wrapped.meta.method_to_api_mapping.get(name)
        if operation is None:  # paginators and waiters would make calls that no check precedes
            raise AttributeError(f"'{name}' is no operation of {self._wrapped.meta.service_model.service_name}")
        call = getattr(self._wrapped, name)

        def checked(**parameters: Any) -> Any:
            from botocore.exceptions import BotoCoreError, ClientError
            from botocore.parsers import ResponseParserError

            self._check()
            _call.check = self._check
            try:
                return call(**parameters)
            except (ClientError, BotoCoreError, ResponseParserError) as error:
                inner = getattr(error, "kwargs", {}).get("error")
                if isinstance(inner, Revoked):  # which botocore took for trouble of its own
                    raise inner from None
                raise failed(error, operation, parameters) from error

        return checked


def failed(error: Exception, operation: str, parameters: Mapping[str, Any]) -> ActionFailed:
    """Translate an error of botocore: what AWS refused, its code, whether asking later may help."""
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    of = next((f" for '{value}'" for value in parameters.values() if isinstance(value, str)), "")
    attempted = f"{operation}{of}"
    if isinstance(error, exceptions.ClientError):
        told = error.response.get("Error", {})
        code = str(told.get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        message = str(told.get("Message", "")) or code
        return ActionFailed(
            f"AWS refused {attempted}: {message}", attempted=attempted, code=code, retry=code in RETRY or status >= 500
        )
    code = type(error).__name__
    lost = (exceptions.HTTPClientError, exceptions.ConnectionError, ResponseParserError)
    if isinstance(error, lost):
        what = "no answer in time" if "Timeout" in code else f"no usable answer ({code})"
        return ActionFailed(f"AWS gave {what} to {attempted}", attempted=attempted, code=code, retry=True)
    return ActionFailed(f"{attempted} was not sent: {error}", attempted=attempted, code=code)
