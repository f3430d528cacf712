"""Results on the terminal: one table for each scenario, and the comparison with an older run."""

from __future__ import annotations

from collections.abc import Iterable

from tabulate import tabulate

from bench.figures import Figure, Figures

# A difference below this share of the old value is no difference, however small the spread of the rounds was.
NOISE = 0.03


def render_table(figures: Figures, scenario: str) -> str:
    """Return a scenario's table: a line for each case and figure, a column for each path."""
    chosen = [figure for figure in figures if figure.scenario == scenario]
    paths = list(dict.fromkeys(figure.path for figure in chosen))
    lines = dict.fromkeys((figure.case, figure.name, figure.unit) for figure in chosen)
    rows = []
    for case, name, unit in lines:
        found = [figures.find(scenario, case, path, name) for path in paths]
        rows.append(
            [case, f"{name}, {unit}" if unit else name, *("" if cell is None else _cell(cell) for cell in found)]
        )
    return tabulate(rows, headers=[scenario, "", *paths], disable_numparse=True)


def _cell(figure: Figure) -> str:
    spread = f" ±{figure.spread:.0%}" if len(figure.values) > 1 else ""
    return format_number(figure.median) + spread


def format_number(value: float) -> str:
    """Return a number with three digits that count, and thousands apart."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def render_comparison(old: Figures, new: Figures) -> str:
    """Return the figures that both runs have, with the ratio of their medians and a word on it."""
    pairs = [(before, after) for after in new if (before := old.find(*after.key)) is not None]
    rows = [
        [
            after.scenario,
            after.case,
            f"{after.name}, {after.unit}",
            after.path,
            format_number(before.median),
            format_number(after.median),
            "" if before.median == 0 else f"{after.median / before.median:.2f}",
            judge(before, after),
        ]
        for before, after in pairs
    ]
    return tabulate(
        rows, headers=["scenario", "case", "figure", "path", "old", "new", "ratio", ""], disable_numparse=True
    )


def judge(before: Figure, after: Figure) -> str:
    """Say ``better`` or ``worse`` where no round of one run is within the rounds of the other; else nothing."""
    if after.more_is_better is None or abs(after.median - before.median) <= NOISE * abs(before.median):
        return ""
    if _overlap(before.values, after.values):
        return ""
    return "better" if (after.median > before.median) == after.more_is_better else "worse"


def _overlap(one: Iterable[float], other: Iterable[float]) -> bool:
    first, second = list(one), list(other)
    return min(first) <= max(second) and min(second) <= max(first)
