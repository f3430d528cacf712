"""The state that every process of ours has: connections in use, what its writer has done, memory and processor time.

Nothing here asks PostgreSQL or a disk. The process that delivers has nothing else, and imports nothing else for it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import psutil
from prometheus_client.core import Metric
from sqlalchemy import Engine

from mistral_api.database.query_times import PoolState, pool_state
from mistral_api.delivery.delivery_counts import DeliveryCounts
from mistral_api.metrics.families import counted, counter, gauge, measured


def pool_families(engines: Mapping[str, Engine]) -> list[Metric]:
    """Return how the connections to PostgreSQL are used; ``engines``: by whose connections they are."""
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


def delivery_families(counts: DeliveryCounts) -> list[Metric]:
    """Return what the writer of this process has done; zeros, where another process delivers."""
    return [
        counted("delivery_batches", "Batches that PostgreSQL has committed", counts.batches),
        counted("delivery_exchanges", "Exchanges delivered from the journal to PostgreSQL", counts.delivered),
        counted("delivery_failures", "Deliveries that failed and are repeated", counts.failures),
        counted("delivery_rejected", "Exchanges that PostgreSQL will never take", counts.rejected),
    ]


def process_families(process: psutil.Process) -> list[Metric]:
    """Return what a process takes of this machine."""
    with process.oneshot():
        times, memory, threads = process.cpu_times(), process.memory_info().rss, process.num_threads()
    return [
        counted("process_cpu_seconds", "Processor time of the API and of delivery", times.user + times.system),
        measured("process_resident_memory_bytes", "Memory of the API and of delivery", memory),
        measured("process_threads", "Threads of the API and of delivery", threads),
        measured("process_open_fds", "Open files and sockets of the API and of delivery", _open_files(process)),
    ]


def _open_files(process: psutil.Process) -> int:
    """Return how many files and sockets are open; on Windows all handles."""
    if sys.platform == "win32":
        return int(process.num_handles())
    return process.num_fds()
