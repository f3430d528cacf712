"""Histograms with fixed buckets, each 8 % wider than the one before.

Bucket ``n`` counts the values above ``LOWEST * RATIO**(n - 1)`` up to ``LOWEST * RATIO**n``; a percentile
read from it is the middle of its bucket, at most 4 % away from the value that stands at that rank.
A histogram is as long as its highest bucket in use, so that histograms of any length can be added.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import zip_longest

LOWEST, HIGHEST, RATIO = 0.1, 1e8, 1.08
_SCALE = 1 / math.log(RATIO)
LAST_BUCKET = math.ceil(math.log(HIGHEST / LOWEST) * _SCALE)


def bucket_of(value: float) -> int:
    """The bucket that counts a value; what lies beyond the bounds counts in the first or the last one."""
    if value <= LOWEST:
        return 0
    return min(LAST_BUCKET, math.ceil(math.log(value / LOWEST) * _SCALE))


def count(histogram: list[int], value: float) -> None:
    """Count a value."""
    bucket = bucket_of(value)
    if bucket >= len(histogram):
        histogram.extend([0] * (bucket + 1 - len(histogram)))
    histogram[bucket] += 1


def added(histograms: Iterable[Sequence[int]]) -> list[int]:
    """The sum of histograms."""
    return [sum(counts) for counts in zip_longest(*histograms, fillvalue=0)]


def percentile(histogram: Sequence[int], share: float) -> float | None:
    """The value that this share of the values does not exceed (nearest rank); None without any value."""
    rank = max(1, math.ceil(share * sum(histogram)))
    seen = 0
    for bucket, number in enumerate(histogram):
        seen += number
        if seen >= rank:
            return _middle(bucket)
    return None


def _middle(bucket: int) -> float:
    """The value that is off by the same share from both ends of a bucket."""
    return LOWEST if bucket == 0 else LOWEST * RATIO ** (bucket - 0.5)
