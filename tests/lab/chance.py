"""How far chance may stray: bounds that an honest coin leaves less than once in a million runs."""

from __future__ import annotations

from itertools import accumulate
from math import exp, lgamma, log

ALARM = 1e-6


def bounds(draws: int, share: float) -> tuple[int, int]:
    """The fewest and the most hits of so many draws, both inclusive; exact, by the binomial distribution."""
    each = [
        exp(lgamma(draws + 1) - lgamma(hits + 1) - lgamma(draws - hits + 1) + hits * log(share) + (draws - hits) * log(1 - share))
        for hits in range(draws + 1)
    ]
    least = sum(1 for below in accumulate(each) if below < ALARM / 2)
    most = draws - sum(1 for above in accumulate(reversed(each)) if above < ALARM / 2)
    return least, most
