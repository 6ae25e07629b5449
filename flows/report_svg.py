"""A chart as SVG to stand inside an HTML page: colours come from the page's style sheet, texts are escaped."""

from __future__ import annotations

from html import escape

from flows.report_shapes import Box, Chart, Shape, Stroke, Trail, Words


def svg(chart: Chart) -> str:
    """The chart; it scales with the page, and its notes are read out and shown on pointing."""
    drawn = "\n".join(_shape(shape) for shape in chart.shapes)
    return (
        f'<svg viewBox="0 0 {chart.width} {chart.height}" role="img" aria-label="{escape(chart.title)}" '
        f'preserveAspectRatio="xMinYMin meet">\n{drawn}\n</svg>'
    )


def _shape(shape: Shape) -> str:
    match shape:
        case Box():
            place = f'x="{shape.x:g}" y="{shape.y:g}" width="{shape.width:g}" height="{shape.height:g}"'
            if shape.open and shape.kind == "budget":
                path = f"M{shape.x + shape.width:g} {shape.y:g}H{shape.x:g}v{shape.height:g}h{shape.width:g}"
                return f'<path class="{shape.kind}" d="{path}">{_note(shape.note)}</path>'
            rounded = ' rx="2"' if shape.height > 6 and shape.kind != "band" else ""
            return f'<rect class="{shape.kind}" {place}{rounded}>{_note(shape.note)}</rect>'
        case Stroke():
            place = f'x1="{shape.x1:g}" y1="{shape.y1:g}" x2="{shape.x2:g}" y2="{shape.y2:g}"'
            return f'<line class="{shape.kind}" {place}>{_note(shape.note)}</line>'
        case Words():
            anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
            return f'<text class="{shape.kind}" x="{shape.x:g}" y="{shape.y:g}" font-size="{shape.size}"{anchor}>{escape(shape.text)}</text>'
        case Trail():
            points = " ".join(f"{x:g},{y:g}" for x, y in shape.points)
            return f'<polyline class="{shape.kind}" points="{points}"/>'


def _note(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""
