"""The statistics of the graphics cards: their samples summed up by hour and day, and read for ``GET /v1/stats``.

The sums show means and peaks only. So a sum that is added twice, because the acknowledgement of a commit was lost,
shifts a mean a little and a peak not at all; and two programs that sample one card agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict

from sqlalchemy import Connection, Row, select, text
from sqlalchemy.orm import Session

from mistral_api.analytics.periods import SERIES_POINTS, TimeWindow, start_of
from mistral_api.database.tables.base import column_names, recordset, rows_as_json
from mistral_api.database.tables.usage import GPU_METRICS, GpuSeries
from mistral_api.hardware.nvml import Card, GpuReading

PERIODS = ("hour", "day")


class MeanAndPeak(TypedDict):
    """One metric in one period; null where no sample has a value of it."""

    mean: float | None
    peak: float | None


class CardPoint(TypedDict):
    """The metrics of one card in one period, which begins at ``start`` (Unix seconds)."""

    start: int
    utilization_percent: MeanAndPeak
    memory_used_bytes: MeanAndPeak
    temperature_celsius: MeanAndPeak
    power_watts: MeanAndPeak


class CardStatistics(TypedDict):
    """One card: an entry of the part ``gpu`` of ``GET /v1/stats``."""

    index: int
    name: str
    memory_total_bytes: int | None
    series: list[CardPoint]


def gpu_series(session: Session, window: TimeWindow) -> list[CardStatistics]:
    """Return every card that was sampled in the window, with a point for each of its hours or days."""
    query = select(GpuSeries.__table__).where(text(SERIES_POINTS)).order_by(GpuSeries.start)
    cards: defaultdict[str, dict[datetime, Row[Any]]] = defaultdict(dict)
    for row in session.execute(query, {"unit": window.unit, "start": window.start}):
        cards[row.card][row.start] = row
    statistics = [_card_statistics(points, window) for _, points in sorted(cards.items())]
    return sorted(statistics, key=lambda card: card["index"])


def _card_statistics(points: Mapping[datetime, Row[Any]], window: TimeWindow) -> CardStatistics:
    newest = points[max(points)]
    return {
        "index": newest.card_index,
        "name": newest.name,
        "memory_total_bytes": newest.memory_total_bytes,
        "series": [_card_point(start, points.get(start)) for start in window.starts()],
    }


def _card_point(start: datetime, row: Row[Any] | None) -> CardPoint:
    return {
        "start": int(start.timestamp()),
        "utilization_percent": _mean_and_peak(row, "utilization_percent"),
        "memory_used_bytes": _mean_and_peak(row, "memory_used_bytes"),
        "temperature_celsius": _mean_and_peak(row, "temperature_celsius"),
        "power_watts": _mean_and_peak(row, "power_milliwatts", 1000),
    }


def _mean_and_peak(row: Row[Any] | None, metric: str, divisor: int = 1) -> MeanAndPeak:
    samples = getattr(row, f"{metric}_samples") if row else 0
    if not samples:
        return {"mean": None, "peak": None}
    total, peak = int(getattr(row, f"{metric}_sum")), getattr(row, f"{metric}_peak")
    return {"mean": total / samples / divisor, "peak": peak if divisor == 1 else peak / divisor}


_KEYS = [column.name for column in GpuSeries.__table__.primary_key]
_COLUMNS = column_names(GpuSeries)


def _merged_value(name: str) -> str:
    """Return the new value of a column where a row is added to one that is there already."""
    if name.endswith(("_samples", "_sum")):
        return f"present.{name} + excluded.{name}"
    if name.endswith("_peak"):  # greatest() leaves nulls out
        return f"greatest(present.{name}, excluded.{name})"
    return f"coalesce(excluded.{name}, present.{name})"


# Always in the same order, so that two transactions never wait for each other's rows.
_ADD = text(
    f"INSERT INTO gpu_series AS present ({', '.join(_COLUMNS)}) SELECT {', '.join(_COLUMNS)} "
    f"FROM {recordset(GpuSeries, _COLUMNS)} ORDER BY {', '.join(_KEYS)} ON CONFLICT ({', '.join(_KEYS)}) "
    f"DO UPDATE SET {', '.join(f'{name} = {_merged_value(name)}' for name in _COLUMNS if name not in _KEYS)}"
)


@dataclass(slots=True)
class MetricSums:
    """The samples of one metric: how many, their sum, the highest."""

    samples: int = 0
    sum: int = 0
    peak: int | None = None

    def add(self, other: MetricSums) -> None:
        """Add other samples."""
        self.samples += other.samples
        self.sum += other.sum
        peaks = [peak for peak in (self.peak, other.peak) if peak is not None]
        self.peak = max(peaks, default=None)


@dataclass(slots=True)
class CardSums:
    """The samples of one card in one period; ``reading`` is the newest of them."""

    reading: GpuReading
    metrics: dict[str, MetricSums] = field(default_factory=lambda: {name: MetricSums() for name in GPU_METRICS})

    def add(self, metrics: Mapping[str, MetricSums]) -> None:
        """Add the sums of each metric."""
        for name, sums in metrics.items():
            self.metrics[name].add(sums)

    def columns(self) -> dict[str, str | int | None]:
        """Return the columns of a row of ``gpu_series``, without its key."""
        columns: dict[str, str | int | None] = {
            "card_index": self.reading.index,
            "name": self.reading.name,
            "memory_total_bytes": self.reading.memory_total_bytes,
        }
        for name, sums in self.metrics.items():
            columns |= {f"{name}_samples": sums.samples, f"{name}_sum": sums.sum, f"{name}_peak": sums.peak}
        return columns


class GpuSums:
    """The samples of some cards, summed up by hour and card."""

    def __init__(self) -> None:
        self._hours: dict[tuple[datetime, str], CardSums] = {}

    def __len__(self) -> int:
        """How many sums there are, one for each hour of each card."""
        return len(self._hours)

    def add(self, moment: datetime, cards: Sequence[Card]) -> None:
        """Add a sample of every card."""
        for card in cards:
            self._merge((start_of("hour", moment), card.uuid), card.reading, _sample_metrics(card.reading))

    def add_sums(self, others: GpuSums) -> None:
        """Add other sums."""
        for key, card in others._hours.items():
            self._merge(key, card.reading, card.metrics)

    def drop_oldest(self, keep: int) -> int:
        """Drop all sums but the newest ``keep``. Return how many were dropped."""
        surplus = sorted(self._hours, key=lambda key: key[0])[: max(0, len(self) - keep)]
        for key in surplus:
            del self._hours[key]
        return len(surplus)

    def write(self, connection: Connection) -> None:
        """Add the sums to those in the database, in the connection's transaction."""
        connection.execute(_ADD, {"rows": rows_as_json(self._rows())})

    def _merge(self, key: tuple[datetime, str], reading: GpuReading, metrics: Mapping[str, MetricSums]) -> None:
        sums = self._hours.setdefault(key, CardSums(reading))
        sums.reading = reading
        sums.add(metrics)

    def _rows(self) -> list[Mapping[str, object]]:
        periods: dict[tuple[str, str, datetime], CardSums] = {}
        for (hour, uuid), card in self._hours.items():
            for period in PERIODS:
                key = (period, uuid, start_of(period, hour))
                periods.setdefault(key, CardSums(card.reading)).add(card.metrics)
        return [{**dict(zip(_KEYS, key, strict=True)), **sums.columns()} for key, sums in periods.items()]


def _sample_metrics(reading: GpuReading) -> dict[str, MetricSums]:
    """Return one sample of each metric that has a value."""
    power = None if reading.power_watts is None else round(reading.power_watts * 1000)
    values = (reading.utilization_percent, reading.memory_used_bytes, reading.temperature_celsius, power)
    metrics = zip(GPU_METRICS, values, strict=True)
    return {name: MetricSums(1, value, value) for name, value in metrics if value is not None}
