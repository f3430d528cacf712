"""Graphics cards as the monitor sees them."""

from __future__ import annotations

from mistral_api.hardware.nvml import Card, GpuReading

GIB = 1 << 30


def a_card(index: int = 0, utilization: int | None = 50, watts: float | None = 100.0) -> Card:
    """A card that does what is asked for, and has 5 of its 8 GiB in use."""
    reading = GpuReading(index, f"Card {index}", utilization, 5 * GIB, 8 * GIB, 60 + index, watts)
    return Card(f"GPU-{index}", 3 * GIB, reading)
