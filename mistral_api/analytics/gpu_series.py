"""What the graphics cards did in a window of time: the part ``gpu`` of ``GET /v1/stats``."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from mistral_api.analytics.window import POINTS, TimeWindow
from mistral_api.tables.gpu import GpuSeries

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
    for row in session.execute(select(GpuSeries.__table__).where(text(POINTS)).order_by(GpuSeries.start), bounds):
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
