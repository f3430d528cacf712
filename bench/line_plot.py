"""Lines in the plot of a file of results: the curves of what grows, and the memory of a soak."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from bench.curves import lines_of
from bench.figures import Figures
from bench.growth import TIME, WORK
from bench.soak import memory_series
from bench.tables import format_number

LEFT, WIDTH, HEIGHT = 70, 470, 180
# Labels at the ends of lines are so far apart at least.
LABEL_LINE = 16
COLOURS = ("#1a7f37", "#0969da", "#bc4c00", "#8250df", "#57606a")


class Series(NamedTuple):
    """A line: its label, and its points."""

    label: str
    points: Sequence[tuple[float, float]]


class LinePanel(NamedTuple):
    """A group of lines over the same axes. ``logarithmic``: both axes are."""

    title: str
    series: Sequence[Series]
    logarithmic: bool


def line_panels(figures: Figures) -> Iterator[LinePanel]:
    """Yield what there is to draw of these figures."""
    for name, unit in ((TIME, "median, ms"), (WORK, "processor time of the API, µs")):
        lines = [
            Series(f"{line.curve.name}, {line.path}", list(zip(map(float, line.sizes), line.values[name], strict=True)))
            for line in lines_of(figures)
        ]
        if lines:
            yield LinePanel(f"A request over connections, clients or messages ({unit})", lines, True)
    for step, lines_of_step in memory_series(figures).items():
        series = [Series(label, points) for label, points in lines_of_step.items()]
        yield LinePanel(f"Memory over requests (MB): {step}", series, False)


def draw_lines(panel: LinePanel, top: int) -> list[str]:
    """Return the elements of a panel that begins at this height."""
    points = [point for series in panel.series for point in series.points]
    xs, ys = _scale([x for x, _ in points], panel.logarithmic), _scale([y for _, y in points], panel.logarithmic)
    bottom = top + HEIGHT
    parts = [f'<path class="axis" d="M{LEFT} {top}V{bottom}H{LEFT + WIDTH}"/>']
    least, most = min(y for _, y in points), max(y for _, y in points)
    for value, y in ((most, top + 10), (least if panel.logarithmic else 0, bottom)):
        parts.append(f'<text x="{LEFT - 6}" y="{y}" text-anchor="end">{format_number(value)}</text>')
    for value, x, anchor in (
        (min(x for x, _ in points), LEFT, "start"),
        (max(x for x, _ in points), LEFT + WIDTH, "end"),
    ):
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="{anchor}">{format_number(value)}</text>')
    free = math.inf
    for number, series in sorted(enumerate(panel.series), key=lambda each: each[1].points[-1][1]):
        places = [(LEFT + WIDTH * xs(x), bottom - HEIGHT * ys(y)) for x, y in series.points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        free = min(places[-1][1] + 4, free - LABEL_LINE)
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<polyline class="line" style="stroke:{colour}" points="{line}"/>')
        parts.append(f'<text x="{LEFT + WIDTH + 6}" y="{free:.1f}" style="fill:{colour}">{escape(series.label)}</text>')
    return parts


def _scale(values: Sequence[float], logarithmic: bool) -> Callable[[float], float]:
    """Return a function from a value to a share of the axis. A logarithmic one begins with the least that is not 0."""
    if not logarithmic:
        most = max(values) or 1.0
        return lambda value: value / most
    least = min((value for value in values if value > 0), default=1.0)
    span = math.log(max(*values, least * 2) / least)
    return lambda value: math.log(max(value, least) / least) / span
