"""The few shapes that a chart of a report consists of, in pixels from the top left; drawn as SVG or PNG by others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from tasks.durations import show_seconds

Kind = Literal[
    "done", "late", "bad", "running", "idle", "people", "asking", "budget", "band", "rule", "grid", "rto", "mark",
    "text", "soft", "strong", "bad-text", "people-text", "forecast",
]  # fmt: skip
"""What a shape means; each way of drawing has one look for each."""


@dataclass(frozen=True)
class Box:
    """A rectangle. note: what a reader is told who points at it. open: it goes on to the right, beyond the chart."""

    x: float
    y: float
    width: float
    height: float
    kind: Kind
    note: str = ""
    open: bool = False


@dataclass(frozen=True)
class Stroke:
    """A straight line."""

    x1: float
    y1: float
    x2: float
    y2: float
    kind: Kind
    note: str = ""


@dataclass(frozen=True)
class Words:
    """One line of text; y is its baseline."""

    x: float
    y: float
    text: str
    kind: Kind
    anchor: Literal["start", "middle", "end"] = "start"
    size: int = 13


@dataclass(frozen=True)
class Trail:
    """A line through points."""

    points: tuple[tuple[float, float], ...]
    kind: Kind


Shape = Box | Stroke | Words | Trail


@dataclass(frozen=True)
class Chart:
    """A finished drawing."""

    width: int
    height: int
    shapes: tuple[Shape, ...]
    title: str


def headed(chart: Chart, title: str, about: str) -> Chart:
    """The chart under two lines of text."""
    moved = tuple(_lower(shape, 64) for shape in chart.shapes)
    head = (Words(16, 28, title, "strong", size=20), Words(16, 50, about, "soft", size=13))
    return Chart(chart.width, chart.height + 64, (*head, *moved), chart.title)


def _lower(shape: Shape, by: float) -> Shape:
    match shape:
        case Stroke():
            return replace(shape, y1=shape.y1 + by, y2=shape.y2 + by)
        case Trail():
            return replace(shape, points=tuple((x, y + by) for x, y in shape.points))
        case _:
            return replace(shape, y=shape.y + by)


STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
"""Seconds that ticks may be apart."""


@dataclass(frozen=True)
class Axis:
    """Time from left to right; `zero` is what ticks count from."""

    zero: datetime
    start: datetime
    end: datetime
    left: float
    right: float

    def x(self, at: datetime) -> float:
        """Where a time lies; one outside lies at the edge."""
        share = (at - self.start) / (self.end - self.start)
        return round(self.left + (self.right - self.left) * min(1.0, max(0.0, share)), 1)

    def holds(self, at: datetime) -> bool:
        """Whether a time lies on it."""
        return self.start <= at <= self.end

    def ticks(self, most: int = 9) -> tuple[tuple[float, str], ...]:
        """Round times since zero: (x, label)."""
        span = (self.end - self.start).total_seconds()
        step = next((one for one in STEPS if span / one <= most), span / most)
        first = -(-(self.start - self.zero).total_seconds() // step)
        last = (self.end - self.zero).total_seconds() // step
        times = [number * step for number in range(int(first), int(last) + 1)]
        return tuple((self.x(self.zero + timedelta(seconds=one)), label(one)) for one in times)


def label(seconds: float) -> str:
    """A tick's label: '+30 s', '+2m', '+1h30m'."""
    sign, seconds = ("+", seconds) if seconds >= 0 else ("-", -seconds)
    if seconds < 60:
        return f"{sign}{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    if rest:
        return sign + show_seconds(timedelta(seconds=round(seconds)))
    hours, minutes = divmod(minutes, 60)
    return sign + (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or not hours else "")


def cut(text: str, most: int) -> str:
    """Text of one line, and of at most so many characters."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
