"""Live readings of a real GPU, compared with ``nvidia-smi``."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from mistral_api.hardware.gpu import DECISION_SECONDS, GpuMonitor, read_device_memory
from mistral_api.hardware.nvml import GpuReading

pytestmark = pytest.mark.gpu

MIB = 1 << 20
QUERY = "index,name,memory.total,memory.used,temperature.gpu,power.draw,utilization.gpu"


def _nvidia_smi() -> list[list[str]]:
    """Return a line of figures for each GPU; empty without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    done = subprocess.run(
        [program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return list(csv.reader(done.stdout.splitlines(), skipinitialspace=True)) if done.returncode == 0 else []


@pytest.fixture(scope="module")
def cards() -> list[list[str]]:
    """The figures of ``nvidia-smi``; skips without a GPU."""
    found = _nvidia_smi()
    if not found:
        pytest.skip("no NVIDIA GPU here: nvidia-smi shows none")
    return found


@pytest.fixture
def monitor() -> Iterator[GpuMonitor]:
    """A monitor with enough time to open the driver."""
    with closing(GpuMonitor(read_seconds=DECISION_SECONDS)) as made:
        yield made


def test_gpu_readings_equal_nvidia_smi(cards: list[list[str]], monitor: GpuMonitor) -> None:
    readings = monitor.read()
    assert [(str(reading.index), reading.name) for reading in readings] == [(card[0], card[1]) for card in cards]
    for reading, card in zip(readings, cards, strict=True):
        _assert_close(reading, card)


def _assert_close(reading: GpuReading, card: list[str]) -> None:
    """Check that figures are equal, or nearly so where they change from moment to moment."""
    total, used, degrees, watts, percent = card[2:]
    mib = None if reading.memory_total_bytes is None else reading.memory_total_bytes / MIB
    _assert_figure(mib, total, within=1)
    mib = None if reading.memory_used_bytes is None else reading.memory_used_bytes / MIB
    _assert_figure(mib, used, within=64)
    _assert_figure(reading.temperature_celsius, degrees, within=5)
    _assert_figure(reading.power_watts, watts, within=max(30.0, 0.5 * (reading.power_watts or 0)))
    _assert_figure(reading.utilization_percent, percent, within=100)


def _assert_figure(value: float | None, shown: str, within: float) -> None:
    """Compare a figure; ``nvidia-smi`` shows ``[N/A]`` or ``[Not Supported]`` for a missing one."""
    if shown.startswith("["):
        assert value is None
    else:
        assert value == pytest.approx(float(shown), abs=within)


def test_device_memory_is_the_sum_over_all_gpus(cards: list[list[str]]) -> None:
    totals = [float(card[2]) for card in cards if not card[2].startswith("[")]
    memory = read_device_memory()
    if not totals:
        assert memory is None
        return
    assert memory is not None
    assert memory.total_bytes / MIB == pytest.approx(sum(totals), abs=len(totals))
    assert 0 < memory.free_bytes <= memory.total_bytes
