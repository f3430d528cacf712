"""Summing up samples of the graphics cards by hour, and adding the sums to those in PostgreSQL by hour and day.

Only means and peaks are read from them. So a sum that is added twice, because the acknowledgement of a commit
was lost, shifts a mean a little and a peak not at all; and two programs that sample one card agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from mistral_api.analytics.periods import start_of
from mistral_api.supervisor.nvml import Card, GpuReading
from mistral_api.tables.gpu import FIGURES, GpuSeries
from mistral_api.tables.recordset import column_names, recordset, written

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
class FigureSum:
    """The samples of one figure: how many, their sum, the highest."""

    samples: int = 0
    sum: int = 0
    peak: int | None = None

    def add(self, other: FigureSum) -> None:
        """Add what others were summed up to."""
        self.samples += other.samples
        self.sum += other.sum
        peaks = [peak for peak in (self.peak, other.peak) if peak is not None]
        self.peak = max(peaks, default=None)


@dataclass(slots=True)
class CardSums:
    """The samples of one card in one hour."""

    reading: GpuReading
    figures: dict[str, FigureSum] = field(default_factory=lambda: {name: FigureSum() for name in FIGURES})

    def add(self, figures: dict[str, FigureSum]) -> None:
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

    def forget_oldest(self, kept: int) -> int:
        """Keep the newest so many hours; answer how many have gone."""
        surplus = sorted(self._hours, key=lambda key: key[0])[: max(0, len(self) - kept)]
        for key in surplus:
            del self._hours[key]
        return len(surplus)

    def write(self, connection: Connection) -> None:
        """Add the sums to those in the database, in the connection's transaction."""
        connection.execute(_ADD, {"rows": written(self._rows())})

    def _merge(self, key: tuple[datetime, str], reading: GpuReading, figures: dict[str, FigureSum]) -> None:
        sums = self._hours.setdefault(key, CardSums(reading))
        sums.reading = reading
        sums.add(figures)

    def _rows(self) -> list[dict[str, Any]]:
        found: dict[tuple[str, str, datetime], CardSums] = {}
        for (hour, uuid), card in self._hours.items():
            for period in PERIODS:
                found.setdefault((period, uuid, start_of(period, hour)), CardSums(card.reading)).add(card.figures)
        return [dict(zip(_KEYS, key, strict=True)) | sums.columns() for key, sums in found.items()]


def _sampled(reading: GpuReading) -> dict[str, FigureSum]:
    """One sample of each figure that the card tells."""
    power = None if reading.power_watts is None else round(reading.power_watts * 1000)
    values = (reading.utilization_percent, reading.memory_used_bytes, reading.temperature_celsius, power)
    return {name: FigureSum(1, value, value) for name, value in zip(FIGURES, values, strict=True) if value is not None}
