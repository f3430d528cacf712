"""The plot of a file of results: a small SVG with bars and lines, for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from bench.figures import Figure, Figures
from bench.line_plot import HEIGHT, draw_lines, line_panels
from bench.programs import BenchmarkError
from bench.tables import format_number

WIDTH, LABELS, BAR, LINE = 760, 110, 470, 22
TITLE_HEIGHT, GAP = 28, 14
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600}"
    ".axis{fill:none;stroke:#8c959f}.line{fill:none;stroke-width:2}"
    ".bar{fill:#8c959f}.ours{fill:#1a7f37}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.bar{fill:#6e7681}.ours{fill:#3fb950}}"
)
_OURS = "ours"


class Panel(NamedTuple):
    """One group of bars: its title, and the figure that it shows of each path."""

    title: str
    scenario: str
    case: str
    figure: str


PANELS = (
    Panel("Added to a request, median, 1 client (ms, log scale; less is better)", "requests", "1 client", "added p50"),
    Panel("Requests a second, 16 clients (log scale; more is better)", "requests", "16 clients", "requests"),
    Panel("First chunk of 300 streams, 99th percentile (ms, log scale; less is better)", "streams", "300 streams",
          "first chunk p99"),
)  # fmt: skip


def write_plot(file: Path, figures: Figures) -> None:
    """Write the plot of these figures. Raises BenchmarkError where there is nothing to show, or no way to write it."""
    plot = render_plot(figures)
    try:
        file.write_text(plot, encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"The plot cannot be written to '{file}': {error.strerror}.") from error


def render_plot(figures: Figures) -> str:
    """Return the SVG. Raises BenchmarkError where none of the figures is there."""
    groups = [(panel, bars) for panel in PANELS if (bars := _bars(figures, panel))]
    lines = list(line_panels(figures))
    if not groups and not lines:
        raise BenchmarkError(
            "There is nothing to plot: none of the scenarios 'requests', 'streams', 'growth' and 'soak' was measured."
        )
    parts, top = [], GAP
    for panel, bars in groups:
        parts += [f'<text class="title" x="{GAP}" y="{top + 14}">{escape(panel.title)}</text>']
        top += TITLE_HEIGHT
        parts += _draw(bars, top)
        top += LINE * len(bars) + GAP
    for line_panel in lines:
        parts += [f'<text class="title" x="{GAP}" y="{top + 14}">{escape(line_panel.title)}</text>']
        top += TITLE_HEIGHT
        parts += draw_lines(line_panel, top)
        top += HEIGHT + LINE + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>"]) + "\n"


def _bars(figures: Figures, panel: Panel) -> list[Figure]:
    """Return the figures of a panel that a logarithmic scale can show, one for each path."""
    wanted = panel.scenario, panel.case, panel.figure
    return [
        figure
        for figure in figures
        if (figure.scenario, figure.case, figure.name) == wanted and figure.values and figure.median > 0
    ]


def _draw(bars: Sequence[Figure], top: int) -> list[str]:
    least, most = min(figure.median for figure in bars) / 2, max(figure.median for figure in bars)
    parts = []
    for number, figure in enumerate(bars):
        y = top + number * LINE
        length = max(2, round(BAR * math.log(figure.median / least) / math.log(most / least)))
        kind = "ours" if figure.path == _OURS else "bar"
        parts += [
            f'<text x="{LABELS}" y="{y + 13}" text-anchor="end">{escape(figure.path)}</text>',
            f'<rect class="{kind}" x="{LABELS + 8}" y="{y + 2}" width="{length}" height="{LINE - 7}" rx="2"/>',
            f'<text x="{LABELS + 14 + length}" y="{y + 13}">{format_number(figure.median)}</text>',
        ]
    return parts
