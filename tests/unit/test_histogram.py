"""Percentiles of histograms are close to those of the values themselves."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from mistral_api.analytics.histogram import (
    HIGHEST,
    LAST_BUCKET,
    LOWEST,
    bucket_index,
    bucket_middle,
    count_value,
    percentile,
    sum_histograms,
)

SPREADS: dict[str, Callable[[random.Random], float]] = {
    "even": lambda chance: chance.uniform(1, 1000),
    "log-normal": lambda chance: chance.lognormvariate(5, 1.5),
    "two humps": lambda chance: chance.gauss(20, 1) if chance.random() < 0.9 else chance.gauss(9000, 100),
    "all the same": lambda _chance: 123.4,
    "around one": lambda chance: chance.uniform(0.2, 2),
}


def _histogram(values: list[float]) -> list[int]:
    histogram: list[int] = []
    for value in values:
        count_value(histogram, value)
    return histogram


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("number", [1, 7, 1000])
def test_histogram_percentiles_are_within_five_percent(spread: str, share: float, number: int) -> None:
    chance = random.Random(f"{spread} {number}")
    values = sorted(SPREADS[spread](chance) for _ in range(number))
    exact = values[max(1, math.ceil(share * number)) - 1]
    assert percentile(_histogram(values), share) == pytest.approx(exact, rel=0.05)


def test_empty_histogram_has_no_percentile() -> None:
    assert percentile([], 0.5) is None
    assert percentile([0, 0], 0.5) is None


@pytest.mark.parametrize("value", [-1.0, 0.0, LOWEST / 2])
def test_value_below_the_lowest_bound_counts_in_the_first_bucket(value: float) -> None:
    assert bucket_index(value) == 0
    assert percentile(_histogram([value]), 0.5) == LOWEST


def test_value_beyond_the_highest_bound_counts_in_the_last_bucket() -> None:
    assert bucket_index(HIGHEST * 1000) == LAST_BUCKET
    assert bucket_middle(LAST_BUCKET) == pytest.approx(HIGHEST, rel=0.1)


def test_histograms_of_different_lengths_add_up() -> None:
    one, other = _histogram([1, 5, 5]), _histogram([5, 100_000])
    assert sum_histograms([one, other]) == _histogram([1, 5, 5, 5, 100_000])
    assert sum_histograms([]) == []
