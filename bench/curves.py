"""Curves of figures: how steep each is beside what it may grow with, as a table on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tabulate import tabulate

from bench.figures import Figures
from bench.growth import CURVES, DATABASE, DELIVERY, SCENARIO, TIME, WORK, Curve
from bench.tables import format_number

# A step counts as steeper than its cause above this exponent, and a curve without a cause as growing above this ratio:
# what rounds differ by is no steepness.
STEEP_EXPONENT, GROWN = 1.2, 1.25


class Line(NamedTuple):
    """What was measured of a curve on one path: its sizes, what it may grow with at each, and each figure's medians."""

    curve: Curve
    path: str
    sizes: list[int]
    causes: list[float]
    values: dict[str, list[float]]


def lines_of(figures: Figures) -> Iterator[Line]:
    """Yield the curves of a run, one for each path, as far as they have two points."""
    paths = list(dict.fromkeys(figure.path for figure in figures if figure.scenario == SCENARIO))
    for curve in CURVES:
        for path in paths:
            line = _line(figures, curve, path)
            if len(line.sizes) > 1:
                yield line


def _line(figures: Figures, curve: Curve, path: str) -> Line:
    points: dict[int, dict[str, float]] = {}
    for figure in figures:
        name, _, size = figure.case.rpartition(", ")
        if (figure.scenario, name, figure.path) == (SCENARIO, curve.name, path):
            points.setdefault(int(size), {})[figure.name] = figure.median
    sizes = sorted(size for size, point in points.items() if {curve.over, TIME, WORK} <= set(point))
    names = dict.fromkeys(name for size in sizes for name in points[size] if name != curve.over)
    values = {name: [points[size].get(name, math.nan) for size in sizes] for name in names}
    return Line(curve, path, sizes, [points[size][curve.over] for size in sizes], values)


def steepest_step(causes: Sequence[float], values: Sequence[float]) -> float:
    """Return the greatest exponent of growth from one point to the next: 0 is flat, 1 grows as its cause does."""
    steps = zip(causes, causes[1:], values, values[1:], strict=False)
    return max(
        math.log(value / before) / math.log(cause / smaller) for smaller, cause, before, value in steps if before > 0
    )


def is_steeper(causes: Sequence[float], values: Sequence[float], *, caused: bool) -> bool:
    """Return whether a figure grows more than its cause, or where it has none, at all."""
    if not caused:
        return values[-1] > GROWN * values[0]
    return steepest_step(causes, values) > STEEP_EXPONENT


def render_growth(figures: Figures) -> str:
    """Return a table for each curve, with a last line that says what is steeper than its cause."""
    return "\n\n".join(_render(line) for line in lines_of(figures))


def _render(line: Line) -> str:
    rows = []
    for number, size in enumerate(line.sizes):
        cause = line.causes[number]
        row = [f"{size:,}", format_number(cause), f"{cause / line.causes[0]:,.1f}"]
        for name, values in line.values.items():
            row.append(format_number(values[number]))
            if name in _RATIOS:
                row.append(f"{values[number] / values[0]:.2f}" if values[0] else "")
        rows.append(row)
    last = ["steepest step", "", ""]
    for name, values in line.values.items():
        last.append(_verdict(line, name, values) if name in _RATIOS else "")
        if name in _RATIOS:
            last.append("")
    heads = [f"{line.curve.name}, {line.path}", line.curve.over, "times"]
    for name in line.values:
        heads += [f"{name}, {_UNITS[name]}" if name in _UNITS else name, *["times"] * (name in _RATIOS)]
    return tabulate([*rows, last], headers=heads, disable_numparse=True)


_RATIOS = (TIME, WORK, DELIVERY, DATABASE)
_UNITS = {TIME: "ms", WORK: "µs", DELIVERY: "µs", DATABASE: "µs", "memory": "MB", "memory each": "KB"}


def _verdict(line: Line, name: str, values: Sequence[float]) -> str:
    if any(math.isnan(value) or value <= 0 for value in values):
        return ""
    caused = line.curve.causes_time if name == TIME else line.curve.causes_work
    steeper = is_steeper(line.causes, values, caused=caused)
    return f"{steepest_step(line.causes, values):.2f}{' STEEPER' if steeper else ''}"
