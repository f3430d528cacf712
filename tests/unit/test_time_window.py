"""The periods of a time window cover every moment of it once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mistral_api.analytics.periods import TimeWindow, next_month, start_of

NOWS = [
    datetime(2026, 11, 23, 18, 8, 33, tzinfo=UTC),
    datetime(2026, 1, 1, 0, 0, 0, tzinfo=UTC),
    datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2025, 12, 31, 12, tzinfo=UTC),
]


def _window(hours: int, now: datetime) -> TimeWindow:
    unit = "hour" if hours <= 168 else "day"
    return TimeWindow(hours, start_of(unit, now - timedelta(hours=hours)), now)


@pytest.mark.parametrize("now", NOWS)
@pytest.mark.parametrize("hours", [1, 24, 168, 169, 720, 8760])
def test_window_bounds_cover_hours_days_and_months_without_gaps(now: datetime, hours: int) -> None:
    window = _window(hours, now)
    bounds = window.bounds()
    assert window.start <= now - timedelta(hours=hours)
    assert bounds["start"] == window.start
    assert bounds["start"] <= bounds["midnight"] <= bounds["month"]
    assert start_of("day", bounds["midnight"]) == bounds["midnight"]
    assert bounds["midnight"] - bounds["start"] < timedelta(days=1)
    assert start_of("month", bounds["month"]) == bounds["month"]
    assert bounds["month"] <= next_month(start_of("month", bounds["midnight"]))


@pytest.mark.parametrize("now", NOWS)
@pytest.mark.parametrize(
    ("hours", "unit", "points"), [(1, "hour", 2), (168, "hour", 169), (169, "day", 8), (8760, "day", 366)]
)
def test_window_series_reaches_from_the_start_to_now(now: datetime, hours: int, unit: str, points: int) -> None:
    window = _window(hours, now)
    starts = window.starts()
    assert window.unit == unit
    assert starts[0] == window.start
    assert starts[-1] == start_of(unit, now)
    assert len(starts) in (points, points + 1)
