"""Send requests as new customers do and judge the answers: for smoke tests and for the stop rule of a shift."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from tasks.clients import Clients
from tasks.dns_questions import is_address, resolve
from tasks.http import Expect, Request, Result, Smoke, SmokeTest, percentile
from tasks.signals import status_fits

if TYPE_CHECKING:
    from pydantic import JsonValue

PATIENCE = timedelta(seconds=1)  # for one name server


@dataclass(frozen=True)
class Shot:
    """What became of one request. error: no answer, or a 5xx. reason: why it was not as expected, '' when it was."""

    name: str
    milliseconds: float | None
    error: bool
    reason: str


def send_all(step: SmokeTest, clients: Clients) -> Smoke:
    """Send every request `rounds` times, one after the other."""
    addresses = _addresses(step, clients)
    shots = [
        send(request, url_of(request, step.base), addresses, clients)
        for _ in range(step.rounds)
        for request in step.requests
    ]
    failures = sum(1 for shot in shots if shot.reason)
    errors = sum(1 for shot in shots if shot.error)
    first = urlsplit(url_of(step.requests[0], step.base)).hostname or ""
    return Smoke(
        requests=len(shots),
        failures=failures,
        errors=errors,
        error_rate=errors / len(shots),
        success_rate=(len(shots) - failures) / len(shots),
        p95_ms=percentile([shot.milliseconds for shot in shots if shot.milliseconds is not None], 0.95),
        address=addresses.get(first),
        results=tuple(_result(request, shots) for request in step.requests),
    )


def holds(found: JsonValue, wanted: JsonValue) -> bool:
    """Tell whether JSON holds what is wanted: objects may have more fields, everything else is equal."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            key in found and holds(found[key], value) for key, value in wanted.items()
        )
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


def url_of(request: Request, base: str | None) -> str:
    """Give a request's whole address."""
    return request.url if "://" in request.url else (base or "").rstrip("/") + request.url


def _addresses(step: SmokeTest, clients: Clients) -> dict[str, str]:
    hosts = {urlsplit(url_of(request, step.base)).hostname or "" for request in step.requests} if step.name_servers else set()
    return {host: resolve(step.name_servers, host, clients, PATIENCE) for host in hosts if not is_address(host)}


def send(request: Request, address: str, addresses: Mapping[str, str], clients: Clients) -> Shot:
    """Send one request over a connection of its own, to the place that `addresses` gives for its host, if any."""
    url = httpx.URL(address)
    headers = {name: value.get_secret_value() for name, value in request.headers.items()}
    extensions = {}
    if url.host in addresses:  # to this address, but by its name: in the Host header and in TLS
        headers["Host"] = url.netloc.decode("ascii")
        extensions["sni_hostname"] = url.host
        url = url.copy_with(host=addresses[url.host])
    try:
        answer = clients.http().request(
            request.method,
            url,
            headers={
                **headers,
                "Connection": "close",
            },  # as a new customer: an old connection may lead to the old region
            json=_fresh(request.body) if request.body is not None else None,
            timeout=request.timeout.total_seconds(),
            extensions=extensions,
        )
    except httpx.TimeoutException:
        return Shot(request.name, None, error=True, reason=f"no answer within {request.timeout.total_seconds():g}s")
    except httpx.HTTPError as error:
        return Shot(request.name, None, error=True, reason=str(error) or type(error).__name__)
    milliseconds = answer.elapsed / timedelta(milliseconds=1)
    return Shot(request.name, milliseconds, error=answer.status_code >= 500, reason=_wrong(answer, request.expect))


def _fresh(body: JsonValue) -> JsonValue:
    """Put a new UUID in the place of each '{uuid}', the same one within a request."""
    token = str(uuid.uuid4())

    def put(value: JsonValue) -> JsonValue:
        if isinstance(value, dict):
            return {key: put(item) for key, item in value.items()}
        if isinstance(value, list):
            return [put(item) for item in value]
        return value.replace("{uuid}", token) if isinstance(value, str) else value

    return put(body)


def _wrong(answer: httpx.Response, expect: Expect) -> str:
    if not status_fits(answer.status_code, expect.status):
        return f"HTTP {answer.status_code}, expected {', '.join(map(str, expect.status))}"
    if expect.text is not None and expect.text not in answer.text:
        return f"the body does not hold '{expect.text}'"
    if expect.body is not None:
        try:
            found = answer.json()
        except ValueError:
            return "the body is not JSON"
        if not holds(found, expect.body):
            return "the body's JSON is not as expected"
    return ""


def _result(request: Request, shots: list[Shot]) -> Result:
    mine = [shot for shot in shots if shot.name == request.name]
    return Result(
        name=request.name,
        sent=len(mine),
        good=sum(1 for shot in mine if not shot.reason),
        slowest_ms=max((shot.milliseconds for shot in mine if shot.milliseconds is not None), default=None),
        reason=next((shot.reason for shot in reversed(mine) if shot.reason), ""),
    )
