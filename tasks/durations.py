"""Times with units, as runbooks write them and people read them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)")
_WHOLE = re.compile(r"(?:\d{1,9}(?:\.\d{1,6})?(?:ms|s|m|h|d)\s?){1,5}")
LONGEST = timedelta(days=366)


def parse_duration(value: object) -> timedelta:
    """Read '500ms', '90s', '15m', '1h30m' or '2d'; raise ValueError for anything else, bare numbers included.

    Limits: not negative, at most 366 days, each unit once and from large to small.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not text or len(text) > 60 or not _WHOLE.fullmatch(text):
        raise ValueError(f"{value!r} is not a duration; write a number with a unit, such as 90s, 15m or 1h30m")
    sizes = [(_UNITS[unit], float(number)) for number, unit in _PART.findall(text)]
    if [size for size, _ in sizes] != sorted({size for size, _ in sizes}, reverse=True):
        raise ValueError(f"{value!r} is not a duration; name each unit once, from large to small, such as 1h30m")
    seconds = sum(size * number for size, number in sizes)
    if seconds > LONGEST.total_seconds():
        raise ValueError(f"{value!r} is longer than 366d")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """Write a duration as runbooks do, exact to the millisecond: '1h30m', '90s' becomes '1m30s', '0s'."""
    milliseconds = round(value.total_seconds() * 1000)
    sign, milliseconds = ("-", -milliseconds) if milliseconds < 0 else ("", milliseconds)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return sign + ("".join(parts) or "0s")


def show_seconds(value: timedelta) -> str:
    """Write a measured time for people: '0.42 s', '13.1 s', '2m05s', '1h02m'."""
    seconds = value.total_seconds()
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    if seconds < 9.995:
        return f"{sign}{seconds:.2f} s"
    if seconds < 59.95:
        return f"{sign}{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{sign}{minutes}m{rest:02d}s"
    return f"{sign}{minutes // 60}h{minutes % 60:02d}m"


def show_time(at: datetime, now: datetime) -> str:
    """Write a time of day for people, with its date when that is another one: '03:04:05 UTC'."""
    day = "" if at.date() == now.date() else f"{at:%Y-%m-%d} "
    return f"{day}{at:%H:%M:%S} UTC"
