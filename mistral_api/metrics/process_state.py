"""The state of this process that is added up over processes: what waits, connections in use, what the writer has done.

Nothing here asks PostgreSQL, the model server or a disk.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Engine

from mistral_api.database.query_times import PoolState, pool_state
from mistral_api.delivery.writer import DeliveryCounts
from mistral_api.observability.finished_request import FinishedRequests
from mistral_api.upstream.model_servers import ModelServers


def _none_waiting() -> int:
    """Return 0: under another WSGI server nobody knows what waits for a thread."""
    return 0


@dataclass(slots=True)
class ProcessSources:
    """Where the state is read. ``engines``: by whose connections they are; ``threads_waited_for`` belongs to the web
    server, which is made later."""

    model_servers: ModelServers
    requests: FinishedRequests
    engines: Mapping[str, Engine]
    delivery: DeliveryCounts
    threads_waited_for: Callable[[], int] = _none_waiting


def collect_process_state(sources: ProcessSources) -> list[Metric]:
    """Return the families of one process."""
    return [
        *_waiting(sources),
        *_pools(sources.engines),
        *_delivery(sources.delivery),
        *_process(psutil.Process()),
    ]


def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    """Return an empty gauge of ours."""
    return GaugeMetricFamily(f"mistral_api_{name}", f"{text}.", labels=labels)


def counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    """Return an empty counter of ours."""
    return CounterMetricFamily(f"mistral_api_{name}", f"{text}.", labels=labels)


def _waiting(sources: ProcessSources) -> list[Metric]:
    in_flight = gauge("requests_in_flight", "Requests that are being answered")
    in_flight.add_metric([], sources.requests.in_flight)
    waiting = gauge("requests_waiting", "Requests that wait for a thread, and generations that wait for a slot", "wait")
    waiting.add_metric(["thread"], sources.threads_waited_for())
    busy = gauge("slots_busy", "Slots of the model server that generations have", "server")
    gate = sources.model_servers.main.slot_gate
    waiting.add_metric(["slot"], gate.waiting)
    busy.add_metric([sources.model_servers.main.name], gate.busy)
    refused = _counted("generations_refused", "Generations refused because MAX_WAITING others waited", gate.refused)
    return [in_flight, waiting, busy, refused]


def _pools(engines: Mapping[str, Engine]) -> list[Metric]:
    size = gauge("database_pool_size", "Most connections to PostgreSQL that are kept", "connections")
    out = gauge("database_pool_checked_out", "Connections to PostgreSQL in use", "connections")
    overflow = gauge("database_pool_overflow", "Connections in use beyond those that are kept", "connections")
    waits = counter("database_pool_waits", "Times that somebody waited for a connection", "connections")
    for name, engine in engines.items():
        state = pool_state(engine) or PoolState(0, 0, 0, 0)
        size.add_metric([name], state.size)
        out.add_metric([name], state.checked_out)
        overflow.add_metric([name], state.overflow)
        waits.add_metric([name], state.waits)
    return [size, out, overflow, waits]


def _delivery(counts: DeliveryCounts) -> list[Metric]:
    return [
        _counted("delivery_batches", "Batches that PostgreSQL has committed", counts.batches),
        _counted("delivery_exchanges", "Exchanges delivered from the journal to PostgreSQL", counts.delivered),
        _counted("delivery_failures", "Deliveries that failed and are repeated", counts.failures),
        _counted("delivery_rejected", "Exchanges that PostgreSQL will never take", counts.rejected),
    ]


def _counted(name: str, text: str, value: float) -> CounterMetricFamily:
    family = counter(name, text)
    family.add_metric([], value)
    return family


def _open_files(process: psutil.Process) -> int:
    """Return how many files and sockets are open; on Windows all handles."""
    if sys.platform == "win32":
        return int(process.num_handles())
    return process.num_fds()


def _process(process: psutil.Process) -> list[Metric]:
    with process.oneshot():
        times, memory = process.cpu_times(), process.memory_info().rss
        threads, started = process.num_threads(), process.create_time()
    figures: list[Metric] = [_counted("process_cpu_seconds", "Processor time of the API", times.user + times.system)]
    for name, text, value in (
        ("processes", "API processes that share this DATA_DIR", 1),
        ("process_resident_memory_bytes", "Memory of the API", memory),
        ("process_threads", "Threads of the API", threads),
        ("process_open_fds", "Open files and sockets of the API", _open_files(process)),
        ("process_start_time_seconds", "When the oldest API process started, in Unix seconds", started),
    ):
        family = gauge(name, text)
        family.add_metric([], value)
        figures.append(family)
    return figures
