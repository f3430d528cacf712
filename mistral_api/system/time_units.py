"""Times and durations as JSON of other programs has them."""

from __future__ import annotations

from datetime import datetime


def rfc3339(moment: datetime) -> str:
    """Return a time in UTC as RFC 3339 and Go write it: with a Z."""
    return moment.isoformat().replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    """Return a duration as Go counts it."""
    return round(seconds * 1e9)
