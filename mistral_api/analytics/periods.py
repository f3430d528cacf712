"""The hours, days and months (UTC) that usage is summed up by."""

from __future__ import annotations

from datetime import UTC, datetime

PERIODS = ("hour", "day", "month")


def start_of(period: str, moment: datetime) -> datetime:
    """The first instant of the hour, day or month that holds a moment."""
    hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if period == "hour":
        return hour
    return hour.replace(hour=0) if period == "day" else hour.replace(hour=0, day=1)


def next_month(month: datetime) -> datetime:
    """The first instant of the month after."""
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
