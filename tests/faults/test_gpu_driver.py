"""GPU readings with a misbehaving driver: the real bindings load a library of ours in place of NVIDIA's."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_nvml import RESERVED, TOTAL, USED, FakeNvml
from tests.support.processes import ROOT, clean_environment, wait_for

# How long the program waits for a driver that hangs, and for one that does not.
PATIENCE, LONG_PATIENCE = 2.0, 20.0
CARD = {
    "index": 0,
    "name": "NVIDIA Imaginary 0",
    "utilization_percent": 37,
    "memory_used_bytes": USED,
    "memory_total_bytes": TOTAL,
    "temperature_celsius": 61,
    "power_watts": 45.5,
}


class GpuReader:
    """The program that reads the GPUs on command."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, command: str = "read") -> Any:
        """Send a command and return its result."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._line()

    def readings(self) -> list[dict[str, Any]]:
        """Return the readings."""
        found: list[dict[str, Any]] = self.ask()["readings"]
        return found

    def end(self) -> float:
        """End the program and return the seconds it took to close the driver."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        seconds: float = self._line()["closed_after"]
        assert self._process.wait(timeout=10) == 0
        return seconds

    def _line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> FakeNvml:
    """The fake library, compiled once."""
    return FakeNvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml(library: FakeNvml) -> FakeNvml:
    """The fake library with one healthy GPU."""
    library.configure()
    return library


@contextlib.contextmanager
def _running_reader(
    nvml: FakeNvml, retry_seconds: float = 0.05, patience: float = LONG_PATIENCE
) -> Iterator[GpuReader]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.gpu_reader_process", str(patience), str(retry_seconds)],
        env=clean_environment(**nvml.environment), cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        try:
            yield GpuReader(process)
        finally:
            process.kill()


def test_gpu_readings_follow_the_driver(nvml: FakeNvml) -> None:
    with _running_reader(nvml) as reader:
        assert reader.readings() == [CARD]
        nvml.configure(cards=2, utilization=99)
        first, second = reader.readings()
        assert first == CARD | {"utilization_percent": 99}
        assert (second["index"], second["name"]) == (1, "NVIDIA Imaginary 1")
        free = TOTAL - RESERVED - USED
        assert reader.ask("memory") == {"total_bytes": 2 * TOTAL, "free_bytes": 2 * free}
        assert reader.ask("log") == []
        assert reader.end() < LONG_PATIENCE


def test_gpu_figures_that_the_driver_does_not_report_are_null(nvml: FakeNvml) -> None:
    with _running_reader(nvml) as reader:
        nvml.configure(power=0)
        assert reader.readings() == [CARD | {"power_watts": None}]
        nvml.configure(old=1)
        assert reader.readings() == [CARD | {"memory_used_bytes": USED + RESERVED}]
        nvml.configure(new=1)
        assert reader.readings() == [CARD | {"temperature_celsius": 62}]


def test_gpu_readings_begin_when_a_missing_driver_appears(nvml: FakeNvml, tmp_path: Path) -> None:
    nvml.configure(driver=0)
    with _running_reader(nvml) as reader:
        for _ in range(20):
            assert reader.readings() == []
        assert reader.ask("memory") is None
        assert reader.ask("log") == ["DEBUG no GPU readings: Driver Not Loaded"]
        nvml.configure()
        assert wait_for(reader.readings, "a reading") == [CARD]


def test_missing_gpu_driver_is_not_looked_up_before_the_retry_time(nvml: FakeNvml) -> None:
    nvml.configure(driver=0)
    with _running_reader(nvml, retry_seconds=600) as reader:
        assert reader.readings() == []
        nvml.configure()
        assert reader.readings() == []
        assert reader.end() < LONG_PATIENCE


def test_lost_gpu_leaves_the_others_readable_and_may_come_back(nvml: FakeNvml) -> None:
    nvml.configure(cards=2)
    with _running_reader(nvml) as reader:
        assert len(reader.readings()) == 2
        nvml.configure(cards=2, lost=1)
        for _ in range(20):
            assert reader.readings() == [CARD]
        nvml.configure(cards=2)
        wait_for(lambda: len(reader.readings()) == 2, "the lost card")
        assert reader.ask("log") == ["WARNING GPU 1 does not answer: GPU is lost", "INFO GPU 1 answers again"]


def test_hanging_gpu_driver_delays_a_reading_only_once_and_is_logged(nvml: FakeNvml) -> None:
    with _running_reader(nvml, patience=PATIENCE) as reader:
        # The first reading imports the bindings, which may take a while on a busy machine.
        assert wait_for(reader.readings, "a reading") == [CARD]
        before = len(reader.ask("log"))
        nvml.configure(hang=1)
        first, second = reader.ask(), reader.ask()
        assert (first["readings"], second["readings"]) == ([], [])
        assert PATIENCE <= first["seconds"] < PATIENCE + 5
        assert second["seconds"] < PATIENCE
        wait_for(lambda: reader.readings() or reader.ask("log")[before:], "a word about it")
        nvml.configure()
        assert wait_for(reader.readings, "a reading") == [CARD]
        assert reader.ask("log")[before:] == [
            f"WARNING the NVIDIA driver has not answered for {2 * PATIENCE:g} s: there are no GPU readings",
            "INFO the NVIDIA driver answers again",
        ]
        nvml.configure(hang=1)
        assert reader.readings() == []
        assert reader.end() < PATIENCE + 5


def test_driver_says_what_it_can_compute_and_a_lost_card_is_left_out(nvml: FakeNvml) -> None:
    with _running_reader(nvml, patience=PATIENCE) as reader:
        nvml.configure(cards=2, cuda=13020, capability=120)
        cards = [["NVIDIA Imaginary 0", [12, 0]], ["NVIDIA Imaginary 1", [12, 0]]]
        assert reader.ask("driver") == {"version": "575.00", "cuda": [13, 2], "cards": cards}
        nvml.configure(cards=2, lost=1)
        assert reader.ask("driver") == {"version": "575.00", "cuda": [12, 8], "cards": [["NVIDIA Imaginary 0", [8, 6]]]}
        nvml.configure(driver=0)
        assert reader.ask("driver") is None
        nvml.configure(hang=1)
        assert reader.ask("driver") is None
        assert reader.ask("log")[-1] == f"WARNING the NVIDIA driver has not answered for {PATIENCE:g} s"
        nvml.configure()
        assert reader.end() < PATIENCE + 5
