"""One picture as SVG, without any library: points and lines on two axes, the first of which is logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 420, 60, 50, 30, 20
COLOURS = ("#0b6e99", "#b3541e")
TICKS = (0.5, 1, 2, 5, 10, 20, 40)


@dataclass(frozen=True)
class Point:
    """Seconds to call an outage, wrongful verdicts, and the setting."""

    seconds: float
    wrongful: int
    label: str
    shipped: bool = False


@dataclass(frozen=True)
class Line:
    """One kind of setting."""

    name: str
    points: Sequence[Point]


def draw(lines: Sequence[Line], disturbances: int) -> str:
    """The picture: the time to call an outage to the right, the wrongful verdicts upwards."""
    most = max([point.wrongful for line in lines for point in line.points] + [1])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        (f'<text x="{LEFT}" y="18" font-weight="bold">Wrongful verdicts of {disturbances} disturbances that healed, against the time '
        "to call a real one</text>"),
    ]
    for tick in TICKS:
        parts.append(f'<line x1="{_x(tick):.1f}" x2="{_x(tick):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>')
        parts.append(f'<text x="{_x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g} s</text>')
    for count in range(0, most + 1, max(1, most // 6)):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(count, most):.1f}" y2="{_y(count, most):.1f}" stroke="#eee"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{_y(count, most) + 4:.1f}" text-anchor="end">{count}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">median time from the fault to the verdict</text>')
    for colour, line in zip(COLOURS, lines, strict=False):
        parts += _series(line, colour, most)
    for place, (colour, line) in enumerate(zip(COLOURS, lines, strict=False)):
        parts.append(f'<text x="{WIDTH - RIGHT - 200}" y="{TOP + 16 + 18 * place}" fill="{colour}">{escape(line.name)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT - 200}" y="{TOP + 52}">filled: the shipped default</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _series(line: Line, colour: str, most: int) -> list[str]:
    ordered = sorted(line.points, key=lambda point: point.seconds)
    path = " ".join(f"{_x(point.seconds):.1f},{_y(point.wrongful, most):.1f}" for point in ordered)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>']
    for point in _together(ordered):
        x, y = _x(point.seconds), _y(point.wrongful, most)
        fill = colour if point.shipped else "white"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>')
        anchor = "end" if "," in point.label else "middle"  # a long one must not run into its neighbour
        parts.append(f'<text x="{x:.1f}" y="{y - 9:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(point.label)}</text>')
    return parts


def _together(points: Sequence[Point]) -> list[Point]:
    """Points that lie on each other as one, with all their labels."""
    merged: list[Point] = []
    for point in points:
        near = next((one for one in merged if one.wrongful == point.wrongful and abs(_x(one.seconds) - _x(point.seconds)) < 12), None)
        if near is None:
            merged.append(point)
        else:
            label = f"{near.label.removesuffix(' s')}, {point.label}"
            merged[merged.index(near)] = Point(near.seconds, near.wrongful, label, near.shipped or point.shipped)
    return merged


def _x(seconds: float) -> float:
    low, high = math.log(0.3), math.log(60)
    return LEFT + (math.log(max(0.3, seconds)) - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _y(wrongful: int, most: int) -> float:
    return HEIGHT - BOTTOM - wrongful / (most * 1.15) * (HEIGHT - BOTTOM - TOP)
