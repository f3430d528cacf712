"""/health, its short forms, /v1/stats.

``/v1/stats``.

The state of every part, gathered for ``/health``.

The whole body of ``/health``, and whether a generation request would be served now.

``/health`` and its short forms for orchestrators; none needs a key.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, request

from mistral_api.analytics.periods import TimeWindow
from mistral_api.analytics.usage_stats import usage_stats
from mistral_api.services import Services
from mistral_api.upstream.model_servers import ModelServerEntry, model_server_health
from mistral_api.version import VERSION
from mistral_api.web.database_session import database_session
from mistral_api.web.request import guard, identify_caller, services
from mistral_api.wire import StatsQuery, load

stats_blueprint = guard(Blueprint("stats", __name__, url_prefix="/v1/stats"))
_QUERY = StatsQuery()


@stats_blueprint.get("")
def show_stats() -> dict[str, Any]:
    """The usage of the last hours. Every caller is the one local owner, who may see it all."""
    query = load(_QUERY, request.args.to_dict())
    with database_session() as session:
        return usage_stats(session, TimeWindow.last(query["hours"]))


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
    report = model_server_health(host.served.settings, host.server, names, host.served.name)
    return _shown(report, details=details)


def _shown(report: dict[str, Any], *, details: bool) -> dict[str, Any]:
    return report if details else {name: value for name, value in report.items() if name not in _PRIVATE}


blueprint = Blueprint("health", __name__, url_prefix="/health")


@blueprint.get("")
def show_health() -> tuple[dict[str, Any], int]:
    """The state of every part: 200 when a generation request would be served now, else 503."""
    health = health_of(services(), details=identify_caller().local)
    return health.body, 200 if health.serving else 503


@blueprint.get("/live")
def show_liveness() -> dict[str, str]:
    """The process is alive; nothing else is asked."""
    return {"status": "ok"}


@blueprint.get("/ready")
def show_readiness() -> tuple[dict[str, Any], int]:
    """As /health, in one word."""
    health = health_of(services(), details=False)
    return {"status": health.body["status"]}, 200 if health.serving else 503
