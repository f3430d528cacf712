"""``/metrics``: what Prometheus reads."""

from __future__ import annotations

from flask import Blueprint, Response, request

from mistral_api.web.request import services

blueprint = Blueprint("metrics", __name__, url_prefix="/metrics")


@blueprint.get("")
def show_metrics() -> Response:
    """Counters, times and states for Prometheus, as text or in OpenMetrics (`Accept`)."""
    shown = services().metrics.expose(request.headers.get("Accept", ""))
    return Response(shown.body, content_type=shown.content_type, headers={"Cache-Control": "no-store"})
