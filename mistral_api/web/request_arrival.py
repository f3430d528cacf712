"""The beginning of a request for those who measure it: how long it has waited for a thread, and its trace."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from flask import Flask, request

from mistral_api.tracing.trace import RequestStart
from mistral_api.web.finished_request import open_request
from mistral_api.web.request import services

# Orchestrators and Prometheus ask these every few seconds: their traces would hide all others.
_UNTRACED_BLUEPRINTS = frozenset(("health", "metrics"))


def measure_arrivals(app: Flask) -> None:
    """Measure the wait of every request of the application, and begin its trace. Call it before the guard's turn."""
    app.before_request(_note_arrival)


def _note_arrival() -> None:
    waited, ours = thread_wait_seconds(request.environ), services()
    if waited is not None:
        ours.metrics.instruments.note_thread_wait(waited)
    tracer = ours.tracer
    if tracer.records and request.blueprint not in _UNTRACED_BLUEPRINTS:
        observed = open_request()
        observed.trace = tracer.begin(
            RequestStart(
                method=request.method,
                route=observed.route,
                scheme=request.scheme,
                traceparent=request.headers.get("traceparent"),
                tracestate=request.headers.get("tracestate"),
                thread_wait_seconds=waited,
            )
        )


def thread_wait_seconds(environ: Mapping[str, Any]) -> float | None:
    """Return how long a request has waited for a thread, as our web server knows it; None under others.

    Waitress gives the environment a method of the connection's channel; ``serving.lanes`` notes the time.
    """
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    requests = getattr(channel, "requests", None)
    queued_at: float | None = getattr(requests[0], "queued_at", None) if requests else None
    return None if queued_at is None else max(0.0, time.monotonic() - queued_at)
