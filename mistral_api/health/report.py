"""The whole body of ``/health``, and whether a generation request would be served now."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from mistral_api.embeddings.hosts import ModelServerEntry
from mistral_api.health.model_server import model_server_health
from mistral_api.services import Services
from mistral_api.version import VERSION

# What helps an attacker more than a stranger who asks how we are.
_PRIVATE = ("pid", "last_error")


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The state of every part; ``serving`` is what the HTTP status says."""

    serving: bool
    body: dict[str, Any]


def health_of(services: Services, *, details: bool) -> HealthReport:
    """Look at every part now. ``details`` false leaves out process ids and error texts."""
    names = services.catalogue.known_names()
    model_server = _shown(model_server_health(services.settings, services.model_server, names), details=details)
    beside = _beside(services.hosts.beside, details=details)
    database = services.database_probe.report()
    recording = services.recorder.state()
    serving = model_server["state"] == "ready"
    embeds = beside is None or beside["state"] == "ready"
    whole = database["status"] == "ok" and database["schema"] == "current" and recording.healthy and embeds
    status = "unavailable" if not serving else ("ok" if whole else "degraded")
    return HealthReport(
        serving,
        {
            "status": status,
            "version": VERSION,
            "uptime_seconds": round(time.monotonic() - services.started_at, 3),
            "model_server": model_server,
            "embedding_server": beside,
            "database": database,
            "recording": {
                "status": "ok" if recording.healthy else "failing",
                "pending": recording.pending,
                "oldest_pending_seconds": recording.oldest_pending_seconds,
                "rejected": recording.rejected,
            },
            "gpu": [dataclasses.asdict(reading) for reading in services.gpu_monitor.read()],
        },
    )


def _beside(host: ModelServerEntry | None, *, details: bool) -> dict[str, Any] | None:
    """The server of EMBEDDING_MODEL_PATH; None where there is none."""
    if host is None or host.served is None:
        return None
    names = host.catalogue.known_names()
    report = model_server_health(host.served.settings, host.server, names, host.served.server)
    return _shown(report, details=details)


def _shown(report: dict[str, Any], *, details: bool) -> dict[str, Any]:
    return report if details else {name: value for name, value in report.items() if name not in _PRIVATE}
