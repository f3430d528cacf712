"""The span of time that statistics are asked for, and the fewest sums that cover it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_

from mistral_api.analytics.periods import next_month, start_of
from mistral_api.tables.rollup import EVERYBODY, UsageRollup, UsageSeries

# Windows longer than this get a point a day instead of a point an hour.
HOURLY_UP_TO = 168


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time up to now that begins with an hour, or with a day where it is a long one.

    ``owner`` limits it to the requests of one key.
    """

    hours: int
    start: datetime
    end: datetime
    owner: str = EVERYBODY

    @classmethod
    def last(cls, hours: int, owner: str = EVERYBODY) -> Window:
        """The last so many hours, with the whole of the hour or day in which they begin."""
        end = datetime.now(UTC)
        unit = "hour" if hours <= HOURLY_UP_TO else "day"
        return cls(hours, start_of(unit, end - timedelta(hours=hours)), end, owner)

    @property
    def unit(self) -> str:
        """What one point of the series spans."""
        return "hour" if self.hours <= HOURLY_UP_TO else "day"

    def starts(self) -> list[datetime]:
        """The start of every point of the series."""
        step = timedelta(hours=1) if self.unit == "hour" else timedelta(days=1)
        return [self.start + step * number for number in range((self.end - self.start) // step + 1)]

    def cover(self, table: type[UsageRollup | UsageSeries]) -> ColumnElement[bool]:
        """The rows that together hold the window: hours up to midnight, days up to the end of a month, months.

        Nothing is later than now, so the current month counts as a whole.
        """
        midnight = _at_or_after("day", self.start)
        first_of_month = _at_or_after("month", midnight)
        return or_(
            and_(table.period == "hour", table.start >= self.start, table.start < midnight),
            and_(table.period == "day", table.start >= midnight, table.start < first_of_month),
            and_(table.period == "month", table.start >= first_of_month),
        )

    def points(self) -> ColumnElement[bool]:
        """The rows of the series."""
        return and_(UsageSeries.period == self.unit, UsageSeries.start >= self.start)


def _at_or_after(period: str, moment: datetime) -> datetime:
    """The first beginning of a day or month that is not before a moment."""
    start = start_of(period, moment)
    if start == moment:
        return start
    return start + timedelta(days=1) if period == "day" else next_month(start)
