"""What ``bin/bench`` says of figures that grow: steepness beside a cause, memory over a soak, reads at two sizes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from bench.curves import is_steeper, render_growth, steepest
from bench.figures import Figures
from bench.growth import BUSY, IDLE, SESSION, TIME, WORK, Curve
from bench.plot import render_plot
from bench.programs import BenchmarkError
from bench.reads import render_reads, size_name
from bench.server_processes import role_of
from bench.soak import render_soak, trend

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="bin/bench needs Linux")

SIZES = (1, 10, 100, 1000)


def _growth(curve: Curve, time: Callable[[int], float], work: Callable[[int], float]) -> Figures:
    figures = Figures()
    for size in SIZES:
        where = "growth", f"{curve.name}, {size}", "ours"
        figures.add(where, curve.over, size, "", more_is_better=None)
        figures.add(where, TIME, time(size), "ms")
        figures.add(where, WORK, work(size), "µs")
    return figures


@pytest.mark.parametrize(
    ("value", "exponent"),
    [(lambda n: 5.0, 0.0), (lambda n: 3.0 * n, 1.0), (lambda n: 0.1 * n * n, 2.0), (lambda n: n**0.5, 0.5)],
)
def test_steepness_is_an_exponent(value: Callable[[int], float], exponent: float) -> None:
    assert steepest(SIZES, [value(size) for size in SIZES]) == pytest.approx(exponent)


def test_a_late_bend_is_not_hidden_by_a_flat_beginning() -> None:
    sizes = (*SIZES, 10_000)
    values = [100.0 + 0.001 * size**2 for size in sizes]
    assert values[-1] / values[0] < sizes[-1] / sizes[0]
    assert is_steeper(sizes, values, caused=True)


def test_neighbours_that_are_close_do_not_count_alone() -> None:
    assert steepest((100, 110, 1000), (10.0, 13.0, 20.0)) < 1


@pytest.mark.parametrize(
    ("last", "caused", "steeper"),
    [(1.2, False, False), (1.3, False, True), (1000.0, True, False), (5000.0, True, True)],
)
def test_what_has_no_cause_must_stay_as_it_is(last: float, caused: bool, steeper: bool) -> None:
    assert is_steeper((1, 1000), (1.0, last), caused=caused) is steeper


def test_a_curve_says_in_its_last_line_what_is_steeper_than_its_cause() -> None:
    lines = render_growth(_growth(SESSION, lambda n: 1.0 + n / 100, lambda n: float(n * n))).splitlines()
    assert lines[0].split("  ")[0] == "session with history, ours"
    assert lines[-2].split() == ["1,000", "1,000", "1,000.0", "11.0", "10.89", "1,000,000", "1000000.00"]
    assert lines[-1].split() == ["steepest", "part", "0.74", "2.00", "STEEPER"]


def test_a_busy_clients_time_may_grow_with_their_number_and_its_work_may_not() -> None:
    table = render_growth(_growth(BUSY, float, lambda n: 100.0 + n))
    assert table.splitlines()[-1].split() == ["steepest", "part", "1.00", "0.74", "STEEPER"]
    assert "STEEPER" not in render_growth(_growth(IDLE, lambda n: 1.0, lambda n: 100.0))


def test_the_trend_of_a_run_is_that_of_its_second_half() -> None:
    requests = [100.0 * number for number in range(1, 41)]
    filling = [min(100.0 + number, 120.0) for number in range(40)]
    found = trend(requests, filling)
    assert (found.slope, found.is_flat) == (0.0, True)  # it rose until the middle alone
    assert trend(requests[:8], [50.0] * 8).is_flat
    leaking = trend(requests, [50.0 + number for number in range(40)])
    assert leaking.slope == pytest.approx(1000.0)  # 1 MB for 100 requests
    assert not leaking.is_flat


def test_the_first_samples_may_be_missing_of_what_starts_later() -> None:
    requests = [100.0 * number for number in range(1, 13)]
    assert trend(requests, [float(number) for number in range(10)]).slope == pytest.approx(1000.0)


def test_a_trend_needs_samples() -> None:
    with pytest.raises(ValueError, match="eight"):
        trend([1.0] * 7, [1.0] * 7)


def _soak() -> Figures:
    figures = Figures()
    where = "soak", "fake engine", "ours"
    for number in range(1, 9):
        figures.add(where, "API", 100.0, "MB")
        figures.add(where, "delivery", 80.0 + 10 * number, "MB")
        figures.add(where, "requests", 1000.0 * number, "", more_is_better=None)
    figures.add(where, "rate", 300.0, "1/s", more_is_better=True)
    return figures


def test_a_soak_shows_its_samples_and_says_what_is_flat() -> None:
    lines = render_soak(_soak()).splitlines()
    assert lines[2].split() == ["1,000", "100", "90.0"]
    assert lines[-2].split()[-2:] == ["0", "1,000"]
    assert lines[-1].split() == ["at", "300", "requests", "a", "second", "flat", "grows"]


def test_the_plot_draws_curves_and_the_memory_of_a_soak() -> None:
    figures = Figures([*_growth(SESSION, float, lambda n: 10.0 * n), *_soak()])
    plot = ElementTree.fromstring(render_plot(figures))  # noqa: S314 - we have just made it
    lines = plot.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2 + 2
    heights = [float(point.split(",")[1]) for point in lines[0].get("points", "").split()]
    assert heights == sorted(heights, reverse=True)  # a line that rises
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)  # in equal steps: logarithmic


def test_reads_stand_beside_each_other_at_each_size() -> None:
    figures = Figures()
    for size, median in ((size_name(100_000, 20_000), 4.0), (size_name(10_000_000, 2_000_000), 6.0)):
        figures.add(("reads", "a list", size), "median", median, "ms")
        figures.add(("reads", "a list", size), "slowest", median * 2, "ms")
    head, _, line = render_reads(figures).splitlines()
    assert head.split()[:6] == ["reads,", "ms", "100,000", "usage", "rows,", "20,000"]
    assert line.split() == ["a", "list", "4.00", "6.00", "1.5", "8.00", "12.0"]


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["python", "-m", "mistral_api.delivery_process"], "delivery"),
        (["python", "-m", "mistral_api.embedded.engine", "-m", "model.gguf"], "engine"),
        (["python", "-m", "mistral_api.embedded.engine.trial", "model.gguf"], "trial"),
        (["/usr/bin/llama-server", "--port", "1"], "engine"),
        (["sleep", "1"], None),
    ],
)
def test_processes_are_told_by_their_command_lines(command: list[str], role: str | None) -> None:
    assert role_of(command) == role


def test_a_plot_of_other_scenarios_alone_is_refused() -> None:
    figures = Figures()
    figures.add(("startup", "x", "ours"), "ready", 1.0, "s")
    with pytest.raises(BenchmarkError, match="'growth' and 'soak'"):
        render_plot(figures)
