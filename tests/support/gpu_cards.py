"""GPUs as the monitor sees them."""

from __future__ import annotations

from mistral_api.hardware.nvml import Card, GpuReading

GIB = 1 << 30


def make_card(index: int = 0, utilization: int | None = 50, watts: float | None = 100.0) -> Card:
    """Return a GPU with these figures that uses 5 of its 8 GiB."""
    reading = GpuReading(index, f"Card {index}", utilization, 5 * GIB, 8 * GIB, 60 + index, watts)
    return Card(f"GPU-{index}", 3 * GIB, reading)
