"""Histograms with fixed buckets, each 8 % wider than the one before.

Bucket ``n`` counts the values from ``LOWEST * RATIO**(n - 1)`` to below ``LOWEST * RATIO**n``. A percentile read from
a histogram is the middle of its bucket, at most 4 % away from the value at that rank. A histogram is as long as its
highest bucket in use, and histograms of any length can be added.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import zip_longest

LOWEST, HIGHEST, RATIO = 0.1, 1e8, 1.08
LAST_BUCKET = math.ceil(math.log(HIGHEST / LOWEST) / math.log(RATIO))
_BOUNDS = [LOWEST * RATIO**bucket for bucket in range(LAST_BUCKET)]


def bucket_index(value: float) -> int:
    """Return the bucket of a value: the first or the last one for a value beyond the bounds."""
    return bisect_right(_BOUNDS, value)


def count_value(histogram: list[int], value: float) -> None:
    """Count a value in a histogram."""
    bucket = bucket_index(value)
    if bucket >= len(histogram):
        histogram.extend([0] * (bucket + 1 - len(histogram)))
    histogram[bucket] += 1


def sum_histograms(histograms: Iterable[Sequence[int]]) -> list[int]:
    """Return the sum of histograms."""
    return [sum(counts) for counts in zip_longest(*histograms, fillvalue=0)]


def percentile(histogram: Sequence[int], share: float) -> float | None:
    """Return the value that this share of the values does not exceed (nearest rank); None without any value."""
    total = sum(histogram)
    rank = max(1, math.ceil(share * total))
    below = total
    # From the top, where the usual percentiles are.
    for bucket in range(len(histogram) - 1, -1, -1):
        below -= histogram[bucket]
        if below < rank <= total:
            return bucket_middle(bucket)
    return None


def bucket_middle(bucket: int) -> float:
    """Return the value that is off by the same share from both ends of a bucket."""
    return LOWEST if bucket == 0 else LOWEST * math.pow(RATIO, bucket - 0.5)
