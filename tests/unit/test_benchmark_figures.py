"""What ``bin/bench`` makes of the times that it measures: percentiles, medians and spreads, tables, ratios, a plot."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.figures import Figure, Figures, percentile
from bench.plot import render_plot
from bench.programs import BenchmarkError
from bench.results import read_results, write_results
from bench.soak import render_soak
from bench.tables import format_number, judge, render_comparison, render_table

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="bin/bench needs Linux")


def _figures(ours: list[float], relay: list[float]) -> Figures:
    figures = Figures()
    for path, values in (("ours", ours), ("relay", relay)):
        for value in values:
            figures.add(("requests", "16 clients", path), "requests", value, "1/s", more_is_better=True)
    return figures


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)])
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == expected


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_figure_has_the_median_of_its_rounds_and_their_spread() -> None:
    figure = Figure("requests", "1 client", "ours", "p50", "ms", values=[9.0, 10.0, 14.0])
    assert figure.median == 10.0
    assert figure.spread == pytest.approx(0.25)
    assert Figure("requests", "1 client", "ours", "p50", "ms", values=[9.0]).spread == 0.0


def test_what_is_no_number_is_no_round() -> None:
    figures = Figures()
    figures.add(("requests", "1 client", "ours"), "p50", math.nan, "ms")
    assert len(figures) == 0


def test_a_table_has_a_line_for_each_figure_and_a_column_for_each_path() -> None:
    lines = render_table(_figures([400.0, 500.0, 450.0], [1200.0]), "requests").splitlines()
    assert lines[0].split() == ["requests", "ours", "relay"]
    assert lines[2].split() == ["16", "clients", "requests,", "1/s", "450", "±11%", "1,200"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.0123, "0.012"), (0.123, "0.12"), (12.34, "12.3"), (123.4, "123"), (1e5, "100,000")],
)
def test_numbers_show_the_digits_that_count(value: float, shown: str) -> None:
    assert format_number(value) == shown


@pytest.mark.parametrize(
    ("before", "after", "more_is_better", "verdict"),
    [
        ([10.0, 11.0], [20.0, 21.0], True, "better"),
        ([10.0, 11.0], [20.0, 21.0], False, "worse"),
        ([10.0, 20.0], [19.0, 21.0], True, ""),  # the rounds overlap
        ([100.0], [102.0], True, ""),  # noise
        ([10.0], [20.0], None, ""),
    ],
)
def test_a_difference_counts_where_the_rounds_do_not_overlap(
    before: list[float], after: list[float], more_is_better: bool | None, verdict: str
) -> None:
    old = Figure("s", "c", "p", "n", "ms", more_is_better, before)
    assert judge(old, Figure("s", "c", "p", "n", "ms", more_is_better, after)) == verdict


def test_results_are_compared_with_those_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "results" / "old.json"
    write_results(file, _figures([400.0, 410.0], [1200.0]), {"rounds": 2})
    comparison = render_comparison(read_results(file), _figures([800.0, 820.0], [1210.0])).splitlines()
    assert comparison[2].split()[-5:] == ["ours", "405", "810", "2.00", "better"]
    assert comparison[3].split()[-4:] == ["relay", "1,200", "1,210", "1.01"]


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 99, "figures": []}', '{"schema": 1, "figures": [{}]}'])
def test_a_file_that_has_no_results_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "no.json"
    file.write_text(text)
    with pytest.raises(BenchmarkError, match=r"no\.json") as raised:
        read_results(file)
    assert "\n" not in str(raised.value)


def test_the_plot_has_a_bar_for_each_path_the_longest_for_the_most() -> None:
    plot = ElementTree.fromstring(render_plot(_figures([450.0], [1200.0])))  # noqa: S314 - we have just made it
    bars = plot.findall("{http://www.w3.org/2000/svg}rect")
    assert [bar.get("class") for bar in bars] == ["ours", "bar"]
    assert float(bars[0].get("width", "")) < float(bars[1].get("width", ""))


def test_there_is_no_plot_of_nothing() -> None:
    with pytest.raises(BenchmarkError, match="nothing to plot"):
        render_plot(Figures())


def test_a_soak_that_was_interrupted_says_how_far_it_came() -> None:
    figures = Figures()
    where = ("soak", "fake engine", "ours")
    figures.add(where, "requests", 1200, "", more_is_better=None)
    figures.add(where, "API", 90.0, "MB")
    assert render_soak(figures) == "fake engine, ours: interrupted after 1,200 requests"
