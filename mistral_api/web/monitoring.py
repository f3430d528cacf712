"""What operators read: ``/health`` and its short forms, which need no key, and ``/v1/stats``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypedDict

from flask import Blueprint, request

from mistral_api.analytics.periods import TimeWindow
from mistral_api.analytics.usage_stats import UsageStats, usage_stats
from mistral_api.control.attention import Attention
from mistral_api.control.status import read_status
from mistral_api.database.probe import DatabaseHealth
from mistral_api.database.tables.usage import ALL_OWNERS
from mistral_api.embedded.postgres import EmbeddedHealth
from mistral_api.observability.server_health import ProcessesHealth
from mistral_api.payload_types import JsonObject, omit
from mistral_api.security.access import Caller
from mistral_api.security.api_key import ADMIN
from mistral_api.services import Services
from mistral_api.upstream.model_servers import ModelServerEntry, ModelServerHealth, model_server_health
from mistral_api.version import VERSION
from mistral_api.web.attention import (
    attention_to_model_servers,
    attention_to_processes,
    attention_to_records,
    public_attention,
    sorted_attention,
)
from mistral_api.web.database_session import database_session
from mistral_api.web.request import caller, services
from mistral_api.wire import StatsQuery, load

blueprint = Blueprint("health", __name__, url_prefix="/health")
stats_blueprint = Blueprint("stats", __name__, url_prefix="/v1/stats")
_QUERY = StatsQuery()
# Details that help an attacker more than a stranger who wants to know whether the server works.
_PRIVATE = ("pid", "last_error", "device", "memory", "workers")


class RecordingHealth(TypedDict):
    """The ``recording`` object of ``/health``."""

    status: str
    pending: int
    oldest_pending_seconds: float | None
    rejected: int


class HealthBody(TypedDict):
    """The body of ``/health``. ``attention``: most urgent first. ``gpu`` has the fields of a GpuReading."""

    status: str
    version: str
    uptime_seconds: float
    processes: ProcessesHealth | None
    model_server: ModelServerHealth
    embedding_server: ModelServerHealth | None
    database: DatabaseHealth
    embedded_postgres: EmbeddedHealth | None
    recording: RecordingHealth
    attention: list[Attention]
    gpu: list[JsonObject]


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The state of every part; ``serving`` is what the HTTP status says."""

    serving: bool
    body: HealthBody


def health_of(services: Services, *, details: bool) -> HealthReport:
    """Return the state of every part now. ``details`` false leaves out process ids, error texts and other machines."""
    servers = services.model_servers
    model_server = _server_health(servers.main, details=details)
    embedding_server = None if servers.embedding is None else _server_health(servers.embedding, details=details)
    database = services.database_probe.check()
    recording = services.recorder.state()
    server = services.server_health.read()
    processes, embedded = server["processes"], server["embedded_postgres"]
    serving = model_server["state"] == "ready"
    embeds = embedding_server is None or embedding_server["state"] == "ready"
    usable = database["status"] == "ok" and database["schema"] == "current"
    complete = usable and recording.healthy and embeds and (processes is None or processes["status"] == "ok")
    attention = sorted_attention(
        [None if entry.spec is None else read_status(services.settings.data_dir, entry.name) for entry in servers.all],
        attention_to_model_servers(model_server, embedding_server),
        attention_to_records(recording, database, embedded),
        attention_to_processes(processes),
    )
    status = "unavailable" if not serving else ("ok" if complete else "degraded")
    return HealthReport(
        serving,
        {
            "status": status,
            "version": VERSION,
            "uptime_seconds": server["uptime_seconds"],
            "processes": processes if details or processes is None else omit(processes, _PRIVATE),
            "model_server": model_server,
            "embedding_server": embedding_server,
            "database": database if details else omit(database, _PRIVATE),
            "embedded_postgres": embedded if details or embedded is None else omit(embedded, _PRIVATE),
            "recording": {
                "status": "ok" if recording.healthy else "failing",
                "pending": recording.pending,
                "oldest_pending_seconds": recording.oldest_pending_seconds,
                "rejected": recording.rejected,
            },
            "attention": attention if details else public_attention(attention),
            "gpu": [dataclasses.asdict(reading) for reading in services.gpu_monitor.read()],
        },
    )


def _server_health(server: ModelServerEntry, *, details: bool) -> ModelServerHealth:
    health = model_server_health(server)
    return health if details else omit(health, _PRIVATE)


def _may_see_details(caller: Caller) -> bool:
    unconfirmed = caller.local and services().gate.is_unconfirmed
    return caller.key is not None or ADMIN in caller.scopes or unconfirmed


@blueprint.get("")
def show_health() -> tuple[HealthBody, int]:
    """The state of every part: 200 when a generation request would be served now, else 503."""
    health = health_of(services(), details=_may_see_details(caller()))
    return health.body, 200 if health.serving else 503


@blueprint.get("/live")
def show_liveness() -> dict[str, str]:
    """The process is alive; nothing else is asked."""
    return {"status": "ok"}


@blueprint.get("/ready")
def show_readiness() -> tuple[dict[str, str], int]:
    """As /health, in one word."""
    health = health_of(services(), details=False)
    return {"status": health.body["status"]}, 200 if health.serving else 503


@stats_blueprint.get("")
def show_stats() -> UsageStats:
    """The usage of the last hours: the caller's own, with the scope `admin` everybody's."""
    query = load(_QUERY, request.args.to_dict())
    admin = ADMIN in caller().scopes
    with database_session() as session:
        return usage_stats(session, TimeWindow.last(query["hours"], ALL_OWNERS if admin else caller().owner))
