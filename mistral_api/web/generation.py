"""Generation over HTTP: chat and legacy completions, and how every generation view answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
from flask import Blueprint, Response, request

from mistral_api.conversations.client_sessions import RequestHeaders
from mistral_api.event_loop.wsgi import ON_DISCONNECT
from mistral_api.generation.endpoint import CHAT, COMPLETION, Endpoint, RequestContext
from mistral_api.generation.passthrough import PassthroughEndpoint
from mistral_api.generation.planned_answer import PlannedAnswer
from mistral_api.generation.renderer import ResponseBody
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.web.client_connection import asks_whether_client_left
from mistral_api.web.finished_request import open_request
from mistral_api.web.lazy_response import EarlyStream, LazyResponse
from mistral_api.web.rate_limits import current_permit
from mistral_api.web.request import caller, client_request_id, request_id, services
from mistral_api.web.request_body import json_body

_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
EVENTS, LINES = "text/event-stream; charset=utf-8", "application/x-ndjson"


def request_context(body: object) -> RequestContext:
    """Return the current request, with its decoded body. What other processes have deleted by now is forgotten."""
    services().deletions.forget_deleted()
    # Our web server tells when the client has left; of others some can be asked.
    on_disconnect = request.environ.get(ON_DISCONNECT)
    call = UpstreamCall(asks_whether_client_left(request.environ), is_notified=on_disconnect is not None)
    if on_disconnect is not None:
        on_disconnect(call.client_left)
    call.trace = open_request().trace
    headers = RequestHeaders.from_environ(request.environ)
    return RequestContext(
        caller(), request_id(), client_request_id(), body, call, headers, current_permit(), open_request()
    )


def generate(endpoint: Endpoint) -> Response:
    """Answer the current request at a generation endpoint."""
    return planned_response(services().generator.plan(endpoint, request_context(json_body())))


def planned_response(planned: PlannedAnswer, stream_type: str = EVENTS) -> Response:
    """Return the response to a generation, which is made when the WSGI server asks for it."""

    def response_of(body: ResponseBody | Iterable[bytes]) -> Response:
        made = json_or_stream(body, planned.session_id, planned.cache, stream_type, planned.ignored_tools)
        if planned.queue_position:
            made.headers["X-Queue-Position"] = str(planned.queue_position)
        return made

    early = EarlyStream(lambda: response_of(iter(())), planned.report, planned.fail) if planned.streams else None
    return LazyResponse(lambda: response_of(planned.make()), planned.abandon, early)


def pass_through(
    endpoint: PassthroughEndpoint, upstream_path: str = "", select: Callable[[Any], Any] | None = None
) -> Response:
    """Answer the current request with the model server's response, or with what ``select`` makes of it."""
    body = None if endpoint.method == "GET" else json_body()
    response = services().passthrough.pass_through(endpoint, request_context(body), upstream_path)
    return json_response(response if select is None else select(response))


def json_or_stream(
    body: ResponseBody | Iterable[bytes],
    session_id: str,
    cache: str | None = None,
    stream_type: str = EVENTS,
    ignored_tools: Sequence[str] = (),
) -> Response:
    """Return the response to a generation: a whole body, or events as they come.

    ``cache`` becomes ``X-Cache``, ``ignored_tools`` become ``X-Ignored-Tools``. ``stream_type``: the content type of a
    stream.
    """
    if isinstance(body, dict) or isinstance(body, list):  # noqa: SIM101 - mypy follows this form alone
        response = json_response(body, session_id)
    else:
        response = stream_response(body, session_id, stream_type)
    if cache is not None:
        response.headers["X-Cache"] = cache
    if ignored_tools:
        response.headers["X-Ignored-Tools"] = ", ".join(ignored_tools)
    return response


def stream_response(events: Iterable[bytes], session_id: str | None = None, content_type: str = EVENTS) -> Response:
    """Return a response of events, sent as they come; the WSGI server closes ``events``."""
    response = Response(events, content_type=content_type, headers=_STREAM_HEADERS)
    return _with_session(response, session_id)


def json_response(body: object, session_id: str | None = None) -> Response:
    """Return a response with a whole JSON body."""
    return _with_session(Response(orjson.dumps(body), mimetype="application/json"), session_id)


def _with_session(response: Response, session_id: str | None) -> Response:
    if session_id is not None:
        response.headers["X-Session-Id"] = session_id
    return response


chat_blueprint = Blueprint("chat", __name__, url_prefix="/v1/chat")


@chat_blueprint.post("/completions")
def create_chat_completion() -> Response:
    """Generate the next message of a chat."""
    return generate(CHAT)


completions_blueprint = Blueprint("completions", __name__, url_prefix="/v1")


@completions_blueprint.post("/completions")
def create_completion() -> Response:
    """Continue a prompt."""
    return generate(COMPLETION)
