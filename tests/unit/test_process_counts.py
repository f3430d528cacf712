"""Sums over processes: nothing counted twice, nothing lost with a process that ends, no counter that falls."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from mistral_api.metrics import process_counts
from mistral_api.metrics.process_counts import EARLIEST, ProcessCounts
from mistral_api.recording.deliverer_link import DELIVERER
from tests.support.processes import wait_for


class Process:
    """What one process counts, and its share of the sums."""

    def __init__(self, folder: Path, started: float = 100.0, role: str = "") -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("requests", "Requests.", ["route"], registry=self.registry)
        self.seconds = Histogram("seconds", "Seconds.", registry=self.registry, buckets=(1, 2))
        self.in_flight = 0
        self.started = started
        self.counts = ProcessCounts(folder, self.collect, role=role)
        self.counts.start()

    def collect(self) -> list[Metric]:
        """Return its families."""
        families = [
            GaugeMetricFamily("in_flight", "In flight.", value=self.in_flight),
            GaugeMetricFamily(next(iter(EARLIEST)), "Start.", value=self.started),
        ]
        return [*self.registry.collect(), *families]

    def total(self) -> dict[str, float]:
        """Return the sums as a scrape of this process shows them."""
        return {
            sample.name + "".join(sample.labels.values()): sample.value
            for family in self.counts.total()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }


def _shows(process: Process, expected: dict[str, float]) -> bool:
    return expected.items() <= process.total().items()


@pytest.fixture(autouse=True)
def quick_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes tell each other at once."""
    monkeypatch.setattr(process_counts, "WRITE_SECONDS", 0.01)


def test_every_process_shows_the_sums_of_all(tmp_path: Path) -> None:
    one, other = Process(tmp_path, 200.0), Process(tmp_path, 150.0)
    try:
        one.requests.labels("/a").inc(3)
        other.requests.labels("/a").inc(4)
        other.requests.labels("/b").inc()
        one.seconds.observe(0.5)
        other.seconds.observe(1.5)
        one.in_flight, other.in_flight = 1, 2
        expected: dict[str, float] = {
            "requests_total/a": 7,
            "requests_total/b": 1,
            "in_flight": 3,
            next(iter(EARLIEST)): 150,
        }
        expected |= {"seconds_bucket1.0": 1, "seconds_bucket2.0": 2, "seconds_bucket+Inf": 2, "seconds_sum": 2}
        for process in (one, other):
            wait_for(partial(_shows, process, expected), "the sums")
    finally:
        one.counts.close()
        other.counts.close()


def test_process_that_is_alone_writes_nothing_until_another_comes(tmp_path: Path) -> None:
    one = Process(tmp_path)
    one.requests.labels("/a").inc(3)
    time.sleep(0.1)
    assert not list(tmp_path.glob("*.json"))
    other = Process(tmp_path)
    try:
        wait_for(lambda: other.total().get("requests_total/a") == 3, "what the first has counted")
    finally:
        other.counts.close()
    one.counts.close()


def test_process_that_delivers_is_added_and_is_no_company(tmp_path: Path) -> None:
    one, deliverer = Process(tmp_path), Process(tmp_path, role=DELIVERER)
    deliverer.requests.labels("/a").inc(2)
    one.requests.labels("/a").inc(3)
    wait_for(lambda: one.total().get("requests_total/a") == 5, "what both have counted")
    assert [path.stem.startswith(DELIVERER) for path in tmp_path.glob("*.json")] == [True]
    deliverer.counts.close()
    assert one.total()["requests_total/a"] == 5
    one.counts.close()


def test_process_that_is_alone_again_writes_no_more_but_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_counts, "COMPANY_SECONDS", 0.01)
    one = Process(tmp_path)
    (lock_file,) = (tmp_path / "processes").glob("*.lock")
    other, path = Process(tmp_path), tmp_path / f"{lock_file.stem}.json"
    wait_for(path.exists, "what the first has counted")
    other.counts.close()
    time.sleep(0.1)
    one.requests.labels("/a").inc(3)
    time.sleep(0.1)
    assert "/a" not in path.read_text()
    one.counts.close()
    assert "/a" in path.read_text()


def test_counters_of_ended_processes_stay_and_their_gauges_do_not(tmp_path: Path) -> None:
    one, other, third = Process(tmp_path), Process(tmp_path), Process(tmp_path)
    try:
        other.requests.labels("/a").inc(4)
        third.requests.labels("/a").inc(2)
        other.in_flight = 5
        other.counts.close()
        third.counts.close()
        for _ in range(2):
            assert one.total()["requests_total/a"] == 6
            assert one.total()["in_flight"] == 0
        files = {path.name for path in tmp_path.glob("*.json")}
        assert "ended.json" in files
        assert len(files) <= 2  # and its own
    finally:
        one.counts.close()


def test_first_process_begins_at_zero(tmp_path: Path) -> None:
    former = Process(tmp_path)
    former.requests.labels("/a").inc(4)
    former.counts.close()
    assert list(tmp_path.glob("*.json"))
    fresh = Process(tmp_path)
    try:
        assert "requests_total/a" not in fresh.total()
    finally:
        fresh.counts.close()


def test_disk_that_takes_nothing_costs_the_sums_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    process = Process(tmp_path / "file")
    process.requests.labels("/a").inc()
    assert process.total()["requests_total/a"] == 1
    process.counts.close()


def test_damaged_file_of_another_process_is_left_out(tmp_path: Path) -> None:
    one, other = Process(tmp_path), Process(tmp_path)
    try:
        other.requests.labels("/a").inc()
        wait_for(lambda: one.total().get("requests_total/a"), "the other process")
        for path in tmp_path.glob("*.json"):
            path.write_text('[["requests", 1, "counter", [["requests_total"]]]')
        assert "requests_total/a" not in one.total()
    finally:
        one.counts.close()
        other.counts.close()
