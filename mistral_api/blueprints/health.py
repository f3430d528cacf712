"""``/health`` and its short forms for orchestrators; none needs a key."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request

from mistral_api.health.report import health_of
from mistral_api.security.access import identify
from mistral_api.services import services

blueprint = Blueprint("health", __name__, url_prefix="/health")


@blueprint.get("")
def show_health() -> tuple[dict[str, Any], int]:
    """The state of every part: 200 when a generation request would be served now, else 503."""
    health = health_of(services(), details=identify(request).local)
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
