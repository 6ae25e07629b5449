"""A report as charts: pure geometry. Budget (outline) against actual (bar), gates in lanes of their own, the forecast.

    Report -> Chart of shapes -> flows.report_svg, flows.report_png

The axis begins at the impact and ends a little after the last event. What lies far outside (an RTO of hours over a
recovery of seconds, an impact declared yesterday) is said in words at the edge, so that the work itself stays readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flows.report_parts import GateLine, Report, StepLine
from flows.report_shapes import Axis, Box, Chart, Kind, Shape, Stroke, Trail, Words, cut, headed, label
from flows.report_text import seconds

WIDTH, LEFT, RIGHT = 1200, 210.0, 1010.0
FAR = 0.8
"""How much longer than the run itself the axis may get, for the RTO and for budgets."""
BAD = {"failed", "timed-out", "errored", "refused", "interrupted"}
IDLE = {"skipped", "not started"}


Times = tuple[datetime, datetime]


@dataclass(frozen=True)
class Grid:
    """How high a row is; many rows are lower."""

    row: float
    size: int

    @property
    def bar(self) -> float:
        return self.row - 8 if self.row > 16 else self.row - 4


def gantt(report: Report) -> Chart:
    """The whole chart."""
    axis = axis_of(report)
    rows = len(report.steps) + len(report.gates)
    grid = Grid(28, 13) if rows <= 60 else Grid(20, 12) if rows <= 150 else Grid(14, 10)
    heads, top = _marks(report, axis)
    shapes: list[Shape] = []
    y = top + 22
    if report.gates:
        y = _lanes(report, axis, grid, y, shapes)
    shapes.append(Words(16, y + 15, "STEPS", "soft", size=11))
    y += 22
    for number, line in enumerate(report.steps):
        shapes += _step(line, axis, grid, y, report.ended, banded=number % 2 == 0)
        y += grid.row
    rules: list[Shape] = [Stroke(x, top + 2, x, y, "grid") for x, _ in axis.ticks()]
    ticks: list[Shape] = [Words(x + 4, top + 12, text, "soft", size=11) for x, text in axis.ticks()]
    bands = [shape for shape in shapes if getattr(shape, "kind", "") == "band"]
    others = [shape for shape in shapes if getattr(shape, "kind", "") != "band"]
    marks: list[Shape] = [Stroke(one.x1, one.y1, one.x2, y, one.kind, one.note) if isinstance(one, Stroke) else one for one in heads]
    title = f"Timeline of {report.title}: budget against actual, gates apart"
    return Chart(WIDTH, int(y) + 12, (*bands, *rules, *ticks, *marks, *others), title)


def picture(report: Report) -> Chart:
    """The chart under a heading that says what it is, for a picture that stands alone."""
    rta = f"RTA {seconds(report.rta.total)} of RTO {seconds(report.rto)}" if report.rta is not None else f"RTO {seconds(report.rto)}"
    return headed(
        gantt(report), f"{cut(report.title, 70)}: {report.verdict}",
        f"{report.mode}, {report.started:%Y-%m-%d %H:%M:%S} UTC, {rta}; execution {report.execution}, anchor {report.seal.anchor or 'not known'}",
    )  # fmt: skip


def axis_of(report: Report) -> Axis:
    """From the impact to a little after the end; further only for an RTO or a budget that is near."""
    begun, last = report.started, max(report.ended, report.started + timedelta(milliseconds=200))
    run = last - begun
    near = begun - report.impact <= 4 * run
    start = min(report.impact, begun) if near else begun - run / 10
    span = last - start
    budgets = [line.started + timedelta(seconds=line.budget + line.waited) for line in report.steps if line.started]
    wanted = [report.impact + timedelta(seconds=report.rto), *budgets]
    edge = start + span * (1 + FAR)
    end = max([last, *(one for one in wanted if one <= edge), *((edge,) if any(one > edge for one in budgets) else ())])
    return Axis(report.impact, start, end + (end - start) / 40, LEFT, RIGHT)


def _marks(report: Report, axis: Axis) -> tuple[list[Shape], float]:
    """The clock's marks and the RTO, their names stacked where they are close; and where the ticks stand."""
    rto = report.impact + timedelta(seconds=report.rto)
    known: list[tuple[str, datetime | None, Kind]] = [
        ("impact", report.impact, "mark"), ("detected", report.detected, "mark"), ("declared", report.declared, "mark"),
        ("started", report.started, "mark"), ("recovered", report.recovered, "mark"),
        (f"RTO {seconds(report.rto)}", None if report.mode == "dry-run" else rto, "rto"),
    ]  # fmt: skip
    shapes: list[Shape] = []
    placed: list[tuple[float, float, int]] = []
    places = sorted((at, name, kind) for name, at, kind in known if at is not None)
    for at, name, kind in places:
        inside, x = axis.holds(at), axis.x(at)
        after = label(round((at - report.impact).total_seconds(), 1))
        text = name if name == "impact" or kind == "rto" else f"{name} {after}"
        text = text if inside else f"{text} →" if at > axis.end else f"← {text} {seconds((report.started - at).total_seconds())} before"
        width = len(text) * 7.0
        left = x + 4 if x + width < WIDTH - 20 else x - 4 - width
        # below every name that it, or its line, would cross
        level = max((number + 1 for begun, over, number in placed if begun < left + width and min(left, x) < over), default=0)
        placed.append((left, left + width + 6, level))
        y = 18.0 + level * 17
        shapes.append(Words(left, y, text, "bad-text" if kind == "rto" else "strong", size=12))
        if inside:
            shapes.append(Stroke(x, y - 11, x, y, kind, f"{name} at {at:%H:%M:%S} UTC"))
    return shapes, 18.0 + (max(level for _, _, level in placed) + 1) * 17 - 9


def _lanes(report: Report, axis: Axis, grid: Grid, y: float, shapes: list[Shape]) -> float:
    """Gates and manual steps: when people were asked; give where the next part begins."""
    shapes.append(Words(16, y + 15, "PEOPLE", "soft", size=11))
    y += 22
    for gate in report.gates:
        shapes += _lane(gate, axis, grid, y, report.ended)
        y += grid.row
    shapes.append(Stroke(16, y + 4, WIDTH - 16, y + 4, "rule"))
    return y + 8


def _lane(gate: GateLine, axis: Axis, grid: Grid, y: float, ended: datetime) -> list[Shape]:
    base, top = y + grid.row / 2 + grid.size * 0.36, y + (grid.row - grid.bar) / 2
    name = gate.gate if gate.manual else f"gate {gate.gate}"
    shapes: list[Shape] = [Words(16, base, cut(name, 26), "people-text", size=grid.size)]
    tone: Kind = "bad-text" if gate.state == "refused" else "people-text"
    for span in gate.asked:
        note = f"{name}: {gate.outcome}, {seconds(gate.waited)}"
        colour: Kind = "asking" if span.end is None else "people"
        shapes.append(_box(axis, (span.start, span.end or ended), (top, grid.bar), colour, note))
    said = cut("waits for an answer" if gate.state == "waiting" else gate.outcome.partition(" (")[0], 40)
    room = len(said) * grid.size * 0.6 + 16
    first, last = (axis.x(gate.asked[0].start), axis.x(gate.asked[-1].end or ended)) if gate.asked else (LEFT, LEFT)
    if last + room < RIGHT:
        shapes.append(Words(last + 8, base, said, tone, size=grid.size))
    elif first - room > LEFT:
        shapes.append(Words(first - 8, base, said, tone, "end", grid.size))
    figure = "waiting" if gate.state == "waiting" else f"{gate.state}, {seconds(gate.waited)}"
    shapes.append(Words(RIGHT + 14, base, figure, tone, size=grid.size))
    return shapes


def _step(line: StepLine, axis: Axis, grid: Grid, y: float, ended: datetime, *, banded: bool) -> list[Shape]:
    base, top = y + grid.row / 2 + grid.size * 0.36, y + (grid.row - grid.bar) / 2
    shapes: list[Shape] = [Box(8, y, WIDTH - 16, grid.row, "band")] if banded else []
    quiet = line.status in IDLE
    shapes.append(Words(16, base, cut(line.step, 26), "soft" if quiet else "text", size=grid.size))
    if line.started is not None:
        until = line.started + timedelta(seconds=line.budget + line.waited)
        note = f"{line.step}: budget {seconds(line.budget)}"
        shapes.append(_box(axis, (line.started, until), (top, grid.bar), "budget", note))
        shapes += _bars(line, axis, top, grid.bar, ended)
    shapes.append(Words(RIGHT + 14, base, _figures(line), _tone(line), size=grid.size))
    return shapes


def _bars(line: StepLine, axis: Axis, top: float, height: float, ended: datetime) -> list[Shape]:
    """A bar for each attempt; where people were waited for, a thin one in people's colour takes its place."""
    shapes: list[Shape] = []
    waits = [(span.start, span.end or ended) for span in line.waits]
    for one in line.tries:
        note = f"{line.step}: {one.status}, {seconds(line.actual)} of {seconds(line.budget)}"
        note += f", attempt {one.number}" if line.attempts > 1 else ""
        place, colour = (top + 3, height - 6), _colour(line, one.status)
        shapes += [_box(axis, span, place, colour, note) for span in _without(waits, (one.start, one.end or ended))]
    for span in waits:
        note = f"{line.step}: waits for people, {seconds((span[1] - span[0]).total_seconds())}"
        shapes.append(_box(axis, span, (top + height / 2 - 1.5, 3), "people", note))
    return shapes


def _without(waits: Sequence[Times], span: Times) -> list[Times]:
    """What is left of a span when the waits are taken out."""
    left = []
    start, end = span
    for begun, over in sorted(waits):
        if over <= start or begun >= end:
            continue
        if begun > start:
            left.append((start, begun))
        start = max(start, over)
    return [*left, (start, end)] if end > start or not left else left


def _box(axis: Axis, span: Times, place: tuple[float, float], kind: Kind, note: str) -> Box:
    """A span of time as a box; place: its top and its height. Never thinner than can be seen."""
    x, (top, height) = axis.x(span[0]), place
    return Box(x, top, max(2.0, round(axis.x(span[1]) - x, 1)), height, kind, note, open=span[1] > axis.end)


def _colour(line: StepLine, status: str) -> Kind:
    if status in BAD:
        return "bad"
    if status == "running":
        return "running"
    return "late" if late(line) else "done"


def late(line: StepLine) -> bool:
    """Whether the work took longer than its budget."""
    return line.actual is not None and line.actual > line.budget


def _tone(line: StepLine) -> Kind:
    if line.status in BAD:
        return "bad-text"
    return "soft" if line.status in IDLE else "strong" if late(line) else "text"


def _figures(line: StepLine) -> str:
    if line.started is None:
        return line.status
    took = f"{seconds(line.actual)} of {seconds(line.budget)}"
    return took if line.status == "done" else f"{cut(line.status, 11)}, {seconds(line.actual)}"


def forecast_chart(report: Report) -> Chart | None:
    """When recovery was expected, over time, against the RTO; None without a forecast."""
    known = [(one.at, one.recovery) for one in report.expectations]
    if not known:
        return None
    axis, top, bottom = axis_of(report), 16.0, 190.0
    highest = max([report.rto, *((at - report.impact).total_seconds() for _, at in known if at is not None)]) * 1.12

    def y(at: datetime) -> float:
        return round(bottom - (bottom - top) * max(0.0, (at - report.impact).total_seconds()) / highest, 1)

    high = Axis(report.impact, report.impact, report.impact + timedelta(seconds=highest), bottom, top)
    shapes: list[Shape] = []
    for height, text in high.ticks(5):
        shapes += [Stroke(LEFT, height, RIGHT, height, "grid"), Words(LEFT - 10, height + 4, text, "soft", "end", 11)]
    shapes += [Words(x, bottom + 18, text, "soft", "middle", 11) for x, text in axis.ticks()]
    line = y(report.impact + timedelta(seconds=report.rto))
    shapes += [Stroke(LEFT, line, RIGHT, line, "rto", "RTO"), Words(RIGHT + 14, line + 4, f"RTO {seconds(report.rto)}", "bad-text", size=12)]
    shapes += _trails([(axis.x(at), y(to) if to is not None else None) for at, to in known], axis.x(report.ended))
    last = known[-1][1]
    if last is not None:
        said = "recovered" if report.recovered is not None else "expected"
        low = y(last) + 4 if abs(y(last) - line) > 16 else y(last) + 20
        shapes.append(Words(RIGHT + 14, low, f"{said} {label(round((last - report.impact).total_seconds(), 1))}", "strong", size=12))
    shapes.append(Words(16, top + 12, "recovery expected at", "soft", size=11))
    return Chart(WIDTH, int(bottom) + 30, tuple(shapes), "When recovery was expected, against the RTO")


def _trails(points: Sequence[tuple[float, float | None]], end: float) -> list[Shape]:
    """Each value holds until the next one; unknown ones leave a gap."""
    trails: list[Shape] = []
    run: list[tuple[float, float]] = []
    for number, (x, y) in enumerate(points):
        until = points[number + 1][0] if number + 1 < len(points) else max(x + 2, end)
        if y is None:
            if run:
                trails.append(Trail(tuple(run), "forecast"))
            run = []
            continue
        run += [(x, y), (until, y)]
    return [*trails, *([Trail(tuple(run), "forecast")] if run else [])]
