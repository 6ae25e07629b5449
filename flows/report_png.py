"""A chart as PNG, on white, for places that take pictures only. Pillow draws it, with the font that Pillow brings."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING

from flows.report_shapes import Box, Chart, Kind, Shape, Stroke, Trail, Words

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

LARGE = 3_000
"""Pixels of height above which a picture is not drawn at twice its size."""
COLOURS: dict[Kind, str] = {
    "done": "#1a7f5a", "late": "#b86e00", "bad": "#c62f3b", "running": "#2f6fd0", "idle": "#a8adb7", "people": "#7a4fc9",
    "asking": "#b79bea", "budget": "#7d8594", "band": "#f4f5f8", "rule": "#d6dae1", "grid": "#e3e6ec", "rto": "#c62f3b",
    "mark": "#4a5264", "text": "#1b2130", "soft": "#5b6475", "strong": "#1b2130", "bad-text": "#b3202d",
    "people-text": "#5f37ab", "forecast": "#2f6fd0",
}  # fmt: skip
OUTLINED = {"budget"}
SPELLED = str.maketrans({"→": ">", "←": "<", "≤": "<="})
"""Signs that Pillow's font lacks."""


def png(chart: Chart) -> bytes:
    """The chart; twice as large as its pixels say unless it is very high, so that letters are sharp."""
    from PIL import Image, ImageDraw

    scale = 2 if chart.height * 2 <= LARGE else 1
    image = Image.new("RGB", (chart.width * scale, chart.height * scale), "white")
    draw = ImageDraw.Draw(image)
    for shape in chart.shapes:
        _draw(draw, shape, scale)
    held = io.BytesIO()
    image.save(held, "PNG", compress_level=4)
    return held.getvalue()


def _draw(draw: ImageDraw, shape: Shape, scale: int) -> None:
    colour = COLOURS[shape.kind]
    match shape:
        case Box():
            place = [shape.x * scale, shape.y * scale, (shape.x + shape.width) * scale - 1, (shape.y + shape.height) * scale - 1]
            if shape.kind in OUTLINED and shape.open:
                left, top, right, bottom = place
                draw.line([(right, top), (left, top), (left, bottom), (right, bottom)], fill=colour, width=scale)
            elif shape.kind in OUTLINED:
                draw.rectangle(place, outline=colour, width=scale)
            else:
                draw.rectangle(place, fill=colour)
        case Stroke():
            _line(draw, shape, scale)
        case Words():
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
            text = shape.text.translate(SPELLED)
            draw.text((shape.x * scale, shape.y * scale), text, fill=colour, font=_font(shape.size * scale), anchor=anchor)
        case Trail():
            draw.line([(x * scale, y * scale) for x, y in shape.points], fill=colour, width=2 * scale)


def _line(draw: ImageDraw, line: Stroke, scale: int) -> None:
    """A line; the RTO's is dashed (it stands upright or lies flat)."""
    x1, y1, x2, y2 = (value * scale for value in (line.x1, line.y1, line.x2, line.y2))
    width = 2 * scale if line.kind == "rto" else scale
    if line.kind != "rto":
        draw.line([(x1, y1), (x2, y2)], fill=COLOURS[line.kind], width=width)
        return
    length, dash = max(abs(x2 - x1), abs(y2 - y1)), 6 * scale
    for begun in range(0, int(length), dash * 2):
        over = min(begun + dash, length)
        first, last = begun / length, over / length
        ends = [(x1 + (x2 - x1) * share, y1 + (y2 - y1) * share) for share in (first, last)]
        draw.line(ends, fill=COLOURS[line.kind], width=width)


@cache
def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
