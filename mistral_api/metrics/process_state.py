"""The state of this process that is added up over processes: what waits, connections in use, what the writer has done.

Nothing here asks PostgreSQL, the model server or a disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil
from prometheus_client.core import Metric
from sqlalchemy import Engine

from mistral_api.delivery.delivery_counts import DeliveryCounts
from mistral_api.metrics.delivery_state import delivery_families, pool_families, process_families
from mistral_api.metrics.families import counted, gauge, measured
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
        *pool_families(sources.engines),
        *delivery_families(sources.delivery),
        *process_families(psutil.Process()),
        measured("processes", "API processes that share this DATA_DIR", 1),
        measured(
            "process_start_time_seconds",
            "When the oldest API process started, in Unix seconds",
            psutil.Process().create_time(),
        ),
    ]


def _waiting(sources: ProcessSources) -> list[Metric]:
    in_flight = gauge("requests_in_flight", "Requests that are being answered")
    in_flight.add_metric([], sources.requests.in_flight)
    waiting = gauge("requests_waiting", "Requests that wait for a thread, and generations that wait for a slot", "wait")
    waiting.add_metric(["thread"], sources.threads_waited_for())
    busy = gauge("slots_busy", "Slots of the model server that generations have", "server")
    gate = sources.model_servers.main.slot_gate
    waiting.add_metric(["slot"], gate.waiting)
    busy.add_metric([sources.model_servers.main.name], gate.busy)
    refused = counted("generations_refused", "Generations refused because MAX_WAITING others waited", gate.refused)
    return [in_flight, waiting, busy, refused]
