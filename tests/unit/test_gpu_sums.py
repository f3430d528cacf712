"""Sums of GPU samples in memory: limited in number, the newest kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mistral_api.analytics.gpu_stats import GpuSums
from tests.support.gpu_cards import make_card

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_gpu_sums_grow_with_hours_and_not_with_samples() -> None:
    sums = GpuSums()
    for second in range(3600):
        sums.add(NOON + timedelta(seconds=second), [make_card(0), make_card(1)])
    assert len(sums) == 2


def test_oldest_gpu_sums_are_dropped_first() -> None:
    sums = GpuSums()
    for hour in (3, 1, 2, 0):
        sums.add(NOON + timedelta(hours=hour), [make_card()])
    assert sums.drop_oldest(keep=5) == 0
    assert sums.drop_oldest(keep=3) == 1
    newer = GpuSums()
    newer.add(NOON + timedelta(hours=4), [make_card()])
    sums.add_sums(newer)
    assert sums.drop_oldest(keep=1) == 3
    newer.add_sums(sums)
    assert len(newer) == 1
