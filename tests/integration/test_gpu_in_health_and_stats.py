"""GPU figures in /health and in the statistics; a hanging driver stops nothing."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from mistral_api.system.command_names import installed_command
from tests.support.fake_nvml import TOTAL, USED, FakeNvml
from tests.support.processes import Server, running_server, temporary_data_dir, wait_for


@pytest.fixture
def nvml(tmp_path: Path) -> FakeNvml:
    """The fake library with one healthy GPU."""
    return FakeNvml(tmp_path)


@pytest.fixture
def server(nvml: FakeNvml) -> Iterator[Server]:
    """A stack that finds that GPU."""
    with temporary_data_dir() as data_dir, running_server(data_dir, CONTEXT_SIZE="2048", **nvml.environment) as running:
        yield running


def _stats(server: Server, hours: int) -> list[dict[str, Any]]:
    gpu: list[dict[str, Any]] = requests.get(f"{server.url}/v1/stats?hours={hours}", timeout=10).json()["gpu"]
    return gpu


def test_health_and_stats_contain_gpu_figures_and_a_hung_driver_stops_nothing(nvml: FakeNvml, server: Server) -> None:
    reading = {
        "index": 0, "name": "NVIDIA Imaginary 0", "utilization_percent": 37, "memory_used_bytes": USED,
        "memory_total_bytes": TOTAL, "temperature_celsius": 61, "power_watts": 45.5,
    }  # fmt: skip
    assert server.health()["gpu"] == [reading]
    # The engine of the tests computes on the processor, and nobody has chosen that.
    (item,) = wait_for(lambda: server.health()["attention"], "what is said of an idle card")
    assert (item["code"], item["level"]) == ("idle_card", "warning")
    assert item["message"] == "The processor computes, although there is NVIDIA Imaginary 0."
    assert item["command"] == installed_command("mistral-api engine install")
    for hours in (1, 200):
        (card,) = wait_for(functools.partial(_stats, server, hours), "the first sample")
        point = next(point for point in card.pop("series") if point["utilization_percent"]["mean"] is not None)
        assert card == {"index": 0, "name": "NVIDIA Imaginary 0", "memory_total_bytes": TOTAL}
        assert point.pop("start") % (3600 if hours == 1 else 86400) == 0
        assert point == {
            "utilization_percent": {"mean": 37, "peak": 37},
            "memory_used_bytes": {"mean": USED, "peak": USED},
            "temperature_celsius": {"mean": 61, "peak": 61},
            "power_watts": {"mean": 45.5, "peak": 45.5},
        }

    nvml.configure(hang=1)
    began = time.monotonic()
    assert [server.health()["gpu"] for _ in range(3)] == [[], [], []]
    assert time.monotonic() - began < 4
    hello = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 2}
    assert requests.post(f"{server.url}/v1/chat/completions", json=hello, timeout=60).status_code == 200
    assert server.stop() == 0
