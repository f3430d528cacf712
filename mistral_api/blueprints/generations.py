"""What the generation views share: from the HTTP request to the service and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from flask import Response, request

from mistral_api.blueprints.access import caller
from mistral_api.blueprints.bodies import json_body
from mistral_api.generation.asked import Asked
from mistral_api.generation.endpoints import Endpoint
from mistral_api.inference.cancellation import Call
from mistral_api.request_ids import client_request_id, request_id
from mistral_api.services import services

_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def asked_now() -> Asked:
    """The current request. Raises InvalidRequest where its body is no JSON."""
    # waitress offers this when channel_request_lookahead is above 0.
    call = Call(request.environ.get("waitress.client_disconnected"))
    return Asked(caller(), request_id(), client_request_id(), json_body(), call)


def answer_generation(endpoint: Endpoint) -> Response:
    """Answer the current request at a generation endpoint."""
    given = services().generator.generate(endpoint, asked_now())
    return answer(given.body, given.session_id)


def answer(body: dict[str, Any] | Iterable[bytes], session_id: str | None = None) -> Response:
    """The HTTP answer: an object, or a stream of events."""
    response = _json(body) if isinstance(body, dict) else event_stream(body)
    if session_id is not None:
        response.headers["X-Session-Id"] = session_id
    return response


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), mimetype="application/json")


def event_stream(events: Iterable[bytes]) -> Response:
    """Server-sent events as they come; closed with the connection."""
    return Response(events, content_type="text/event-stream; charset=utf-8", headers=_STREAM_HEADERS)
