"""The periods by which usage is summed up, hours, days and months (UTC), and the window of time of a query.

A window is read from the fewest sums that cover it (``WINDOW_COVER``), and shown as a series of hours or days
(``SERIES_POINTS``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypedDict

from mistral_api.database.tables.usage import ALL_OWNERS

PERIODS = ("hour", "day", "month")
# A longer window has a point for each day instead of one for each hour.
MAX_HOURLY_POINTS = 168

# The sums that together hold the window: hours up to midnight, days up to the end of a month, months. No row is later
# than now, so the current month counts as a whole.
WINDOW_COVER = (
    "(period = 'hour' AND start >= :start AND start < :midnight"
    " OR period = 'day' AND start >= :midnight AND start < :month"
    " OR period = 'month' AND start >= :month)"
)
# The sums that are the points of the series.
SERIES_POINTS = "(period = :unit AND start >= :start)"


class WindowBounds(TypedDict):
    """The parameters of ``WINDOW_COVER`` and ``SERIES_POINTS``, and the key."""

    start: datetime
    midnight: datetime
    month: datetime
    unit: str
    owner: str


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """A span of time up to now. It begins with an hour, a long one with a day.

    ``owner`` limits it to the requests of one key.
    """

    hours: int
    start: datetime
    end: datetime
    owner: str = ALL_OWNERS

    @classmethod
    def last(cls, hours: int, owner: str = ALL_OWNERS) -> TimeWindow:
        """Return the window of the last ``hours``, with the whole of the hour or day in which it begins."""
        end = datetime.now(UTC)
        return cls(hours, start_of(_unit(hours), end - timedelta(hours=hours)), end, owner)

    @property
    def unit(self) -> str:
        """The period of a point of the series: ``hour`` or ``day``."""
        return _unit(self.hours)

    def starts(self) -> list[datetime]:
        """Return the start of every point of the series."""
        step = timedelta(hours=1) if self.unit == "hour" else timedelta(days=1)
        return [self.start + step * number for number in range((self.end - self.start) // step + 1)]

    def bounds(self) -> WindowBounds:
        """Return the parameters of :data:`WINDOW_COVER` and :data:`SERIES_POINTS`."""
        midnight = _first_start("day", self.start)
        month = _first_start("month", midnight)
        return {"start": self.start, "midnight": midnight, "month": month, "unit": self.unit, "owner": self.owner}


def _unit(hours: int) -> str:
    return "hour" if hours <= MAX_HOURLY_POINTS else "day"


def start_of(period: str, moment: datetime) -> datetime:
    """Return the first instant of the hour, day or month that holds a moment."""
    hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if period == "hour":
        return hour
    return hour.replace(hour=0) if period == "day" else hour.replace(hour=0, day=1)


def next_month(month: datetime) -> datetime:
    """Return the first instant of the month after."""
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)


def _first_start(period: str, moment: datetime) -> datetime:
    """Return the first start of a day or month that is not before a moment."""
    start = start_of(period, moment)
    if start == moment:
        return start
    return start + timedelta(days=1) if period == "day" else next_month(start)
