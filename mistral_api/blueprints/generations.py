"""What the generation views share: from the HTTP request to the service and back."""

from __future__ import annotations

import orjson
from flask import Response, request

from mistral_api.blueprints.access import caller
from mistral_api.blueprints.bodies import json_body
from mistral_api.generation.asked import Asked
from mistral_api.generation.endpoints import Endpoint
from mistral_api.generation.service import Given
from mistral_api.generation.streaming import StreamRelay
from mistral_api.inference.cancellation import Call
from mistral_api.request_ids import client_request_id, request_id
from mistral_api.services import services

_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def answer_generation(endpoint: Endpoint) -> Response:
    """Answer the current request at a generation endpoint."""
    # waitress offers this when channel_request_lookahead is above 0.
    call = Call(request.environ.get("waitress.client_disconnected"))
    asked = Asked(caller(), request_id(), client_request_id(), json_body(), call)
    return _response(services().generator.generate(endpoint, asked))


def _response(given: Given) -> Response:
    if isinstance(given.body, StreamRelay):
        response = Response(given.body, content_type="text/event-stream; charset=utf-8", headers=_STREAM_HEADERS)
    else:
        response = Response(orjson.dumps(given.body), mimetype="application/json")
    response.headers["X-Session-Id"] = given.session_id
    return response
