"""Samples of graphics cards in memory: bounded, and the newest are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mistral_api.analytics.gpu_stats import GpuSums
from tests.support.graphics_cards import a_card

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_they_take_the_room_of_their_hours_not_of_their_number() -> None:
    sums = GpuSums()
    for second in range(3600):
        sums.add(NOON + timedelta(seconds=second), [a_card(0), a_card(1)])
    assert len(sums) == 2


def test_the_oldest_hours_are_forgotten_first() -> None:
    sums = GpuSums()
    for hour in (3, 1, 2, 0):
        sums.add(NOON + timedelta(hours=hour), [a_card()])
    assert sums.drop_oldest(keep=5) == 0
    assert sums.drop_oldest(keep=3) == 1
    newer = GpuSums()
    newer.add(NOON + timedelta(hours=4), [a_card()])
    sums.add_sums(newer)
    assert sums.drop_oldest(keep=1) == 3
    newer.add_sums(sums)
    assert len(newer) == 1
