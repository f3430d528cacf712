"""What the generation views share: from the HTTP request to the service and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import orjson
from flask import Response, request

from mistral_api.blueprints.access import caller
from mistral_api.blueprints.bodies import json_body
from mistral_api.generation.asked import Asked
from mistral_api.generation.endpoints import Endpoint
from mistral_api.generation.questions import Question
from mistral_api.generation.service import Given
from mistral_api.inference.cancellation import Call
from mistral_api.request_ids import client_request_id, request_id
from mistral_api.services import services

_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def asked_now(body: object) -> Asked:
    """The current request, with its decoded body."""
    # waitress offers this when channel_request_lookahead is above 0.
    call = Call(request.environ.get("waitress.client_disconnected"))
    return Asked(caller(), request_id(), client_request_id(), body, call)


def answer_generation(endpoint: Endpoint) -> Response:
    """Answer the current request at a generation endpoint."""
    given = services().generator.generate(endpoint, asked_now(json_body()))
    return answer(given.body, given.session_id)


def generate(endpoint: Endpoint) -> tuple[dict[str, Any], Given]:
    """The body of the current request, and the answer to it, for views that shape it."""
    body = json_body()
    given = services().generator.generate(endpoint, asked_now(body))
    return cast("dict[str, Any]", body), given  # anything else is refused


def answer_question(
    question: Question, upstream: str | None = None, shown: Callable[[Any], Any] | None = None
) -> Response:
    """Answer the current request with what the model server says, or what is ``shown`` of it."""
    body = None if question.method == "GET" else json_body()
    said = services().questions.ask(question, asked_now(body), upstream)
    return json_response(shown(said) if shown is not None else said)


def answer(body: dict[str, Any] | Iterable[bytes], session_id: str) -> Response:
    """The answer to a generation: a whole body, or events as they come."""
    return json_response(body, session_id) if isinstance(body, dict) else stream_response(body, session_id)


def stream_response(events: Iterable[bytes], session_id: str | None = None) -> Response:
    """Events as they come; the WSGI server closes them."""
    response = Response(events, content_type="text/event-stream; charset=utf-8", headers=_STREAM_HEADERS)
    return _of_session(response, session_id)


def json_response(body: Any, session_id: str | None = None) -> Response:
    """A whole body."""
    return _of_session(Response(orjson.dumps(body), mimetype="application/json"), session_id)


def _of_session(response: Response, session_id: str | None) -> Response:
    if session_id is not None:
        response.headers["X-Session-Id"] = session_id
    return response
