"""The stop rule of a soak: do requests from outside still keep the limits? Pure; whoever looks keeps the samples.

Three answers and not two. `fit`: enough requests, and what came back is within every limit. `unfit`: enough requests,
and so many are bad already that a whole window could not make up for it. Between the two nothing is known yet, so
nothing is done: a single lost packet among the first twenty neither stops a shift nor lets it go on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from tasks.contract import Frozen
from tasks.http import Limits, percentile

SLOW_SHARE = 0.05  # the limit is on the 95th percentile


class Sample(Frozen):
    """What became of one request."""

    ms: float | None = Field(description="Milliseconds until its answer; null: none came.")
    good: bool = Field(description="Whether it was answered as expected.")
    error: bool = Field(description="Whether it got no answer or a 5xx.")


@dataclass(frozen=True)
class Rule:
    """Judge the `latest` so many requests, and none before there are `minimum`."""

    limits: Limits
    minimum: int
    latest: int


@dataclass(frozen=True)
class Judgement:
    """What the samples say. `unfit` is the reason to stop; `told` the numbers for people."""

    fit: bool
    unfit: str | None
    told: str


def judge(recent: Sequence[Sample], rule: Rule) -> Judgement:
    """Judge the samples of one window, oldest first; older ones than `latest` do not count."""
    window = recent[-rule.latest :]
    errors = sum(1 for one in window if one.error)
    bad = sum(1 for one in window if not one.good)
    longest = rule.limits.max_p95.total_seconds() * 1000
    slow = sum(1 for one in window if one.ms is None or one.ms > longest)
    p95 = percentile([math.inf if one.ms is None else one.ms for one in window], 1 - SLOW_SHARE)
    latency = "no answer" if p95 is None or math.isinf(p95) else f"p95 {p95:.0f} ms"
    told = f"{len(window) - bad} of {len(window)} good, {errors} errors, {latency}"
    if len(window) < rule.minimum:
        return Judgement(fit=False, unfit=None, told=told)
    limits, count = rule.limits, len(window)
    fit = (
        errors <= _forgiven(limits.max_error_rate, count)
        and bad <= _forgiven(1 - limits.min_success_rate, count)
        and p95 is not None
        and p95 <= longest
    )
    reasons = [  # the first that holds is told; errors are slow and not good either
        f"error rate {errors / count:.1%} of {count} requests, limit {limits.max_error_rate:.1%}"
        if errors > _forgiven(limits.max_error_rate, rule.latest)
        else "",
        f"{1 - bad / count:.1%} of {count} requests good, limit {limits.min_success_rate:.1%}"
        if bad > _forgiven(1 - limits.min_success_rate, rule.latest)
        else "",
        f"{latency} of {count} requests, limit {longest:.0f} ms" if slow > _forgiven(SLOW_SHARE, rule.latest) else "",
    ]
    return Judgement(fit=fit, unfit=next(filter(None, reasons), None), told=told)


def _forgiven(share: float, count: int) -> int:
    """How many of `count` requests may be bad; binary fractions must not turn 1 % of 100 into 0."""
    return math.floor(share * count + 1e-9)
