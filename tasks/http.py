"""Prove by requests such as customers make that the service works."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import Field, JsonValue, SecretStr, field_validator, model_validator

from tasks.clients import Clients
from tasks.contract import Duration, Frozen, Probe, Steady
from tasks.dns_questions import NameServers
from tasks.signals import Statuses, check_statuses

READING = ("GET", "HEAD", "OPTIONS")


def percentile(values: list[float], share: float) -> float | None:
    """Give the smallest value that `share` of the values do not exceed (nearest rank)."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class Expect(Frozen):
    """What a good answer looks like; all that is given must hold."""

    status: Statuses = Field(("200-299",), description="Statuses that are good.", examples=[[200, "201-204"]])
    text: str | None = Field(None, description="Text that the body must hold.")
    body: JsonValue = Field(
        None, description="JSON that the body must hold: fields named here must be there and equal."
    )

    _statuses = field_validator("status")(check_statuses)


class Request(Frozen):
    """One request of the test."""

    name: str = Field(description="How the result calls it.", min_length=1, examples=["order"])
    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = Field(
        "GET", description="HTTP method."
    )
    url: str = Field(description="Address, or a path below `base`.", examples=["/orders"], pattern="^(https?://|/)")
    headers: Mapping[str, SecretStr] = Field(default_factory=dict, description="Headers; kept secret.")
    body: JsonValue = Field(
        None,
        description="JSON to send; '{uuid}' in its texts becomes a new UUID in each request.",
        examples=[{"id": "{uuid}"}],
    )
    expect: Expect = Field(Expect(), description="What a good answer looks like.")
    timeout: Duration = Field(timedelta(seconds=2), description="Longest wait for the answer.")


class Limits(Frozen):
    """When the service counts as working."""

    max_error_rate: float = Field(
        0.01, description="Share of requests without an answer or answered 5xx, at most.", ge=0, lt=1
    )
    min_success_rate: float = Field(0.99, description="Share of requests answered as expected, at least.", gt=0, le=1)
    max_p95: Duration = Field(timedelta(milliseconds=500), description="95 of 100 requests answered within this.")


class Result(Frozen):
    """What became of one request over all rounds of a look."""

    name: str = Field(description="The request's name.")
    sent: int = Field(description="How often it was sent.")
    good: int = Field(description="How often it was answered as expected.")
    slowest_ms: float | None = Field(description="Its slowest answer; null: none came.")
    reason: str = Field("", description="What was wrong the last time it was not good.")


class Smoke(Frozen):
    """What the requests of one look gave."""

    requests: int = Field(description="How many were sent.")
    failures: int = Field(description="How many were not answered as expected.")
    errors: int = Field(description="How many got no answer or a 5xx.")
    error_rate: float = Field(description="errors / requests.")
    success_rate: float = Field(description="(requests - failures) / requests.")
    p95_ms: float | None = Field(description="95 of 100 answers came within this; null: none came.")
    address: str | None = Field(
        description="Address that the name servers gave for the first request; null: the system's resolver."
    )
    results: tuple[Result, ...] = Field(description="Each request's result.")


class SmokeTest(Probe[Smoke]):
    """Send requests such as customers do until they succeed, several looks in a row.

    Each request uses a new connection and, where `name_servers` are given, their present answer: what a new customer
    would see. A request that is not GET, HEAD or OPTIONS leaves something behind: no such test in a dry run.
    """

    name: ClassVar[str] = "http.smoke_test"
    budget: ClassVar[timedelta] = timedelta(seconds=30)
    interval: ClassVar[timedelta] = timedelta(milliseconds=200)
    libraries: ClassVar[tuple[str, ...]] = ("httpx",)

    base: str | None = Field(
        None,
        description="Address that paths are below.",
        examples=["http://checkout.shop.example:8080"],
        pattern="^https?://",
    )
    requests: tuple[Request, ...] = Field(description="What to send.", min_length=1)
    name_servers: NameServers = Field(
        (), description="Name servers 'host:port' to resolve with; none: the system's."
    )
    rounds: int = Field(5, description="How often the requests are sent in one look.", ge=1, le=1000)
    times: int = Field(3, description="Looks in a row that must be good.", ge=1, le=1000)
    lasting: Duration = Field(
        timedelta(0), description="For so long they must be good without a break: a soak.", examples=["1h"]
    )
    limits: Limits = Field(Limits(), description="When the service counts as working.")

    @model_validator(mode="after")
    def _paths_need_base(self) -> SmokeTest:
        for request in self.requests:
            if request.url.startswith("/") and self.base is None:
                raise ValueError(f"request '{request.name}' is a path; give `base`, or a whole address")
        return self

    @property
    def harmless(self) -> bool:
        """Whether all requests only read."""
        return all(request.method in READING for request in self.requests)

    @property
    def steady(self) -> Steady:
        """Several looks in a row, for as long as they shall last."""
        return Steady(times=self.times, lasting=self.lasting)

    def by_hand(self) -> tuple[str, ...]:
        """Send each request once; a `{uuid}` in a body stands for a fresh one."""
        lines = []
        for request in self.requests:
            body = f" -H 'Content-Type: application/json' -d '{json.dumps(request.body)}'" if request.body is not None else ""
            url = (self.base or "") + request.url if request.url.startswith("/") else request.url
            lines.append(f"curl --fail --max-time 2 -X {request.method} {url}{body}")
        return tuple(lines)

    def observe(self, clients: Clients) -> Smoke:
        """Send every request `rounds` times."""
        from tasks.http_requests import send_all

        return send_all(self, clients)

    def done(self, state: Smoke) -> bool:
        """Within all limits."""
        return (
            state.requests > 0
            and state.error_rate <= self.limits.max_error_rate
            and state.success_rate >= self.limits.min_success_rate
            and state.p95_ms is not None
            and state.p95_ms <= self.limits.max_p95.total_seconds() * 1000
        )

    def explain(self, state: Smoke) -> str:
        """Say rates, latency and what was wrong."""
        latency = "no answer" if state.p95_ms is None else f"p95 {state.p95_ms:.0f} ms"
        wrong = "; ".join(f"{one.name}: {one.reason}" for one in state.results if one.reason)
        counts = f"{state.requests - state.failures} of {state.requests} good, {latency}"
        return f"{counts}; {wrong}" if wrong else counts
