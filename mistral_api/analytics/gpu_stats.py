"""Sums of the cards' samples: written and read.

What the graphics cards did in a window of time: the part ``gpu`` of ``GET /v1/stats``.

Summing up samples of the graphics cards by hour, and adding the sums to those in PostgreSQL by hour and day.

Only means and peaks are read from them. So a sum that is added twice, because the acknowledgement of a commit
was lost, shifts a mean a little and a peak not at all; and two programs that sample one card agree.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, text
from sqlalchemy.orm import Session

from mistral_api.analytics.periods import SERIES_POINTS, TimeWindow, start_of
from mistral_api.database.tables.base import column_names, recordset, rows_as_json
from mistral_api.database.tables.usage import GPU_METRICS, GpuSeries
from mistral_api.hardware.nvml import Card, GpuReading

# What a point shows, the columns it comes from, and by what those are divided.
_SHOWN = (
    ("utilization_percent", "utilization_percent", 1),
    ("memory_used_bytes", "memory_used_bytes", 1),
    ("temperature_celsius", "temperature_celsius", 1),
    ("power_watts", "power_milliwatts", 1000),
)


def gpu_series(session: Session, window: TimeWindow) -> list[dict[str, Any]]:
    """Every card that was sampled in the window, with a point an hour or a day, as the other series have them."""
    bounds = {"unit": window.unit, "start": window.start}
    cards: defaultdict[str, dict[datetime, Any]] = defaultdict(dict)
    for row in session.execute(
        select(GpuSeries.__table__).where(text(SERIES_POINTS)).order_by(GpuSeries.start), bounds
    ):
        cards[row.card][row.start] = row
    shown = [_card(points, window) for _, points in sorted(cards.items())]
    return sorted(shown, key=lambda card: card["index"])


def _card(points: dict[datetime, Any], window: TimeWindow) -> dict[str, Any]:
    newest = points[max(points)]
    return {
        "index": newest.card_index,
        "name": newest.name,
        "memory_total_bytes": newest.memory_total_bytes,
        "series": [_point(start, points.get(start)) for start in window.starts()],
    }


def _point(start: datetime, row: Any) -> dict[str, Any]:
    figures = {name: _figure(row, column, divisor) for name, column, divisor in _SHOWN}
    return {"start": int(start.timestamp())} | figures


def _figure(row: Any, column: str, divisor: int) -> dict[str, float | None]:
    """Mean and peak; null in a period without samples of it."""
    samples = getattr(row, f"{column}_samples") if row else 0
    if not samples:
        return {"mean": None, "peak": None}
    total, peak = int(getattr(row, f"{column}_sum")), getattr(row, f"{column}_peak")
    return {"mean": total / samples / divisor, "peak": peak if divisor == 1 else peak / divisor}


PERIODS = ("hour", "day")
_KEYS = [column.name for column in GpuSeries.__table__.primary_key]
_COLUMNS = column_names(GpuSeries)


def _changed(name: str) -> str:
    """What a column becomes when a row is added to one that is there already."""
    if name.endswith(("_samples", "_sum")):
        return f"present.{name} + excluded.{name}"
    if name.endswith("_peak"):  # greatest() leaves out what is null
        return f"greatest(present.{name}, excluded.{name})"
    return f"coalesce(excluded.{name}, present.{name})"


# Always in one order: two transactions never wait for each other's rows.
_ADD = text(
    f"INSERT INTO gpu_series AS present ({', '.join(_COLUMNS)}) SELECT {', '.join(_COLUMNS)} "
    f"FROM {recordset(GpuSeries, _COLUMNS)} ORDER BY {', '.join(_KEYS)} ON CONFLICT ({', '.join(_KEYS)}) "
    f"DO UPDATE SET {', '.join(f'{name} = {_changed(name)}' for name in _COLUMNS if name not in _KEYS)}"
)


@dataclass(slots=True)
class MetricSums:
    """The samples of one figure: how many, their sum, the highest."""

    samples: int = 0
    sum: int = 0
    peak: int | None = None

    def add(self, other: MetricSums) -> None:
        """Add what others were summed up to."""
        self.samples += other.samples
        self.sum += other.sum
        peaks = [peak for peak in (self.peak, other.peak) if peak is not None]
        self.peak = max(peaks, default=None)


@dataclass(slots=True)
class CardSums:
    """The samples of one card in one hour."""

    reading: GpuReading
    figures: dict[str, MetricSums] = field(default_factory=lambda: {name: MetricSums() for name in GPU_METRICS})

    def add(self, figures: dict[str, MetricSums]) -> None:
        """Add the sums of every figure."""
        for name, total in figures.items():
            self.figures[name].add(total)

    def columns(self) -> dict[str, Any]:
        """What a row holds of them."""
        sums = {
            f"{name}_{part}": value
            for name, total in self.figures.items()
            for part, value in dataclasses.asdict(total).items()
        }
        shown = self.reading
        return {"card_index": shown.index, "name": shown.name, "memory_total_bytes": shown.memory_total_bytes} | sums


class GpuSums:
    """The samples of some cards, by hour and card."""

    def __init__(self) -> None:
        self._hours: dict[tuple[datetime, str], CardSums] = {}

    def __len__(self) -> int:
        """How many hours of how many cards."""
        return len(self._hours)

    def add(self, moment: datetime, cards: Sequence[Card]) -> None:
        """Count a sample of every card."""
        for card in cards:
            self._merge((start_of("hour", moment), card.uuid), card.reading, _sampled(card.reading))

    def add_sums(self, others: GpuSums) -> None:
        """Count what others have gathered."""
        for key, card in others._hours.items():
            self._merge(key, card.reading, card.figures)

    def drop_oldest(self, kept: int) -> int:
        """Keep the newest so many hours; answer how many have gone."""
        surplus = sorted(self._hours, key=lambda key: key[0])[: max(0, len(self) - kept)]
        for key in surplus:
            del self._hours[key]
        return len(surplus)

    def write(self, connection: Connection) -> None:
        """Add the sums to those in the database, in the connection's transaction."""
        connection.execute(_ADD, {"rows": rows_as_json(self._rows())})

    def _merge(self, key: tuple[datetime, str], reading: GpuReading, figures: dict[str, MetricSums]) -> None:
        sums = self._hours.setdefault(key, CardSums(reading))
        sums.reading = reading
        sums.add(figures)

    def _rows(self) -> list[dict[str, Any]]:
        found: dict[tuple[str, str, datetime], CardSums] = {}
        for (hour, uuid), card in self._hours.items():
            for period in PERIODS:
                found.setdefault((period, uuid, start_of(period, hour)), CardSums(card.reading)).add(card.figures)
        return [dict(zip(_KEYS, key, strict=True)) | sums.columns() for key, sums in found.items()]


def _sampled(reading: GpuReading) -> dict[str, MetricSums]:
    """One sample of each figure that the card tells."""
    power = None if reading.power_watts is None else round(reading.power_watts * 1000)
    values = (reading.utilization_percent, reading.memory_used_bytes, reading.temperature_celsius, power)
    return {
        name: MetricSums(1, value, value) for name, value in zip(GPU_METRICS, values, strict=True) if value is not None
    }
