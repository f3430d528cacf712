"""What the graphics cards did, summed up by hour and day.

Sums are whole numbers (power in milliwatts), so that they come out the same in whatever order they are added.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, SmallInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from mistral_api.tables.base import TIMESTAMPTZ, Base

# Of each of these a row has the number of samples in which the card told it, their sum and their peak.
FIGURES = ("utilization_percent", "memory_used_bytes", "temperature_celsius", "power_milliwatts")


class GpuSeries(Base):
    """The samples of one card in one period: ``period`` is ``hour`` or ``day``, ``start`` its first instant in UTC.

    ``card`` is the card's lasting name (NVML's UUID): its index may change, and several machines may record into
    one database. A peak is null where the card never told the figure.
    """

    __tablename__ = "gpu_series"

    period: Mapped[str] = mapped_column(Text, primary_key=True)
    card: Mapped[str] = mapped_column(Text, primary_key=True)
    start: Mapped[datetime] = mapped_column(TIMESTAMPTZ, primary_key=True)
    card_index: Mapped[int] = mapped_column(SmallInteger)
    name: Mapped[str] = mapped_column(Text)
    memory_total_bytes: Mapped[int | None] = mapped_column(BigInteger)
    utilization_percent_samples: Mapped[int] = mapped_column(BigInteger)
    utilization_percent_sum: Mapped[int] = mapped_column(BigInteger)
    utilization_percent_peak: Mapped[int | None] = mapped_column(BigInteger)
    memory_used_bytes_samples: Mapped[int] = mapped_column(BigInteger)
    memory_used_bytes_sum: Mapped[int] = mapped_column(BigInteger)
    memory_used_bytes_peak: Mapped[int | None] = mapped_column(BigInteger)
    temperature_celsius_samples: Mapped[int] = mapped_column(BigInteger)
    temperature_celsius_sum: Mapped[int] = mapped_column(BigInteger)
    temperature_celsius_peak: Mapped[int | None] = mapped_column(BigInteger)
    power_milliwatts_samples: Mapped[int] = mapped_column(BigInteger)
    power_milliwatts_sum: Mapped[int] = mapped_column(BigInteger)
    power_milliwatts_peak: Mapped[int | None] = mapped_column(BigInteger)
