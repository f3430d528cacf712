"""Hours, days, months; the window of a query and the fewest sums that cover it.

The hours, days and months (UTC) that usage is summed up by.

The span of time that statistics are asked for, and the fewest sums that cover it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mistral_api.database.tables.usage import EVERYBODY

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


# Windows longer than this get a point a day instead of a point an hour.
HOURLY_UP_TO = 168


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """A span of time up to now that begins with an hour, or with a day where it is a long one.

    ``owner`` limits it to the requests of one key.
    """

    hours: int
    start: datetime
    end: datetime
    owner: str = EVERYBODY

    @classmethod
    def last(cls, hours: int, owner: str = EVERYBODY) -> TimeWindow:
        """The last so many hours, with the whole of the hour or day in which they begin."""
        end = datetime.now(UTC)
        return cls(hours, start_of(_unit_of(hours), end - timedelta(hours=hours)), end, owner)

    @property
    def unit(self) -> str:
        """What one point of the series spans."""
        return _unit_of(self.hours)

    def starts(self) -> list[datetime]:
        """The start of every point of the series."""
        step = timedelta(hours=1) if self.unit == "hour" else timedelta(days=1)
        return [self.start + step * number for number in range((self.end - self.start) // step + 1)]

    def bounds(self) -> dict[str, Any]:
        """The parameters of :data:`COVER` and :data:`POINTS`."""
        midnight = _at_or_after("day", self.start)
        month = _at_or_after("month", midnight)
        return {"start": self.start, "midnight": midnight, "month": month, "unit": self.unit, "owner": self.owner}


# The sums that together hold the window: hours up to midnight, days up to the end of a month, months. Nothing is
# later than now, so the current month counts as a whole.
WINDOW_COVER = (
    "(period = 'hour' AND start >= :start AND start < :midnight"
    " OR period = 'day' AND start >= :midnight AND start < :month"
    " OR period = 'month' AND start >= :month)"
)
# The sums that are the points of the series.
SERIES_POINTS = "(period = :unit AND start >= :start)"


def _unit_of(hours: int) -> str:
    return "hour" if hours <= HOURLY_UP_TO else "day"


def _at_or_after(period: str, moment: datetime) -> datetime:
    """The first beginning of a day or month that is not before a moment."""
    start = start_of(period, moment)
    if start == moment:
        return start
    return start + timedelta(days=1) if period == "day" else next_month(start)
