"""Chat, completions, embeddings, rerank; the shared way to a generator and back.

What the generation views share: from the HTTP request to the service and back.

``/v1/chat/completions``.

``/v1/completions``.

``/v1/embeddings`` and ``/v1/rerank``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import orjson
from flask import Blueprint, Response, request

from mistral_api.embeddings.tasks import EMBEDDINGS, RERANK, EmbeddingTask
from mistral_api.generation.endpoint import CHAT, COMPLETION, Endpoint, RequestContext
from mistral_api.generation.generator import GenerationResult
from mistral_api.generation.passthrough import PassthroughEndpoint
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.web.request import caller, client_request_id, guard, json_body, request_id, services

_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def request_context(body: object) -> RequestContext:
    """The current request, with its decoded body."""
    # waitress offers this when channel_request_lookahead is above 0.
    call = UpstreamCall(request.environ.get("waitress.client_disconnected"))
    return RequestContext(caller(), request_id(), client_request_id(), body, call)


def answer_generation(endpoint: Endpoint) -> Response:
    """Answer the current request at a generation endpoint."""
    given = services().generator.generate(endpoint, request_context(json_body()))
    return json_or_stream(given.body, given.session_id)


def generate(endpoint: Endpoint) -> tuple[dict[str, Any], GenerationResult]:
    """The body of the current request, and the answer to it, for views that shape it."""
    body = json_body()
    given = services().generator.generate(endpoint, request_context(body))
    return cast("dict[str, Any]", body), given  # anything else is refused


def pass_through(
    question: PassthroughEndpoint, upstream: str | None = None, shown: Callable[[Any], Any] | None = None
) -> Response:
    """Answer the current request with what the model server says, or what is ``shown`` of it."""
    body = None if question.method == "GET" else json_body()
    said = services().questions.ask(question, request_context(body), upstream)
    return json_response(shown(said) if shown is not None else said)


def json_or_stream(body: dict[str, Any] | Iterable[bytes], session_id: str) -> Response:
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


chat_blueprint = guard(Blueprint("chat", __name__, url_prefix="/v1/chat"))


@chat_blueprint.post("/completions")
def create_chat_completion() -> Response:
    """Generate the next message of a chat."""
    return answer_generation(CHAT)


completions_blueprint = guard(Blueprint("completions", __name__, url_prefix="/v1"))


@completions_blueprint.post("/completions")
def create_completion() -> Response:
    """Continue a prompt."""
    return answer_generation(COMPLETION)


embeddings_blueprint = guard(Blueprint("embeddings", __name__, url_prefix="/v1"))


@embeddings_blueprint.post("/embeddings")
def create_embeddings() -> Response:
    """A vector for each input."""
    return _answer(EMBEDDINGS)


@embeddings_blueprint.post("/rerank")
def rerank() -> Response:
    """The documents, the most relevant first."""
    return _answer(RERANK)


def _answer(task: EmbeddingTask) -> Response:
    return json_response(services().embedder.answer(task, request_context(json_body())))
