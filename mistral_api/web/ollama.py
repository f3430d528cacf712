"""``/api/chat``, ``/api/generate``, ``/api/embed`` and ``/api/embeddings``: Ollama's own API.

Clients that know nothing but Ollama work by changing its address to that of this server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import orjson
from flask import Blueprint, Response

from mistral_api.embeddings.ollama import EMBED, EMBED_ONE, embedding_body, embeddings_body
from mistral_api.embeddings.tasks import Embeddings
from mistral_api.errors import ApiError, error_headers
from mistral_api.generation.endpoint import Endpoint
from mistral_api.generation.ollama_probe import probe_model
from mistral_api.generation.ollama_renderer import created_now, ollama_error
from mistral_api.generation.ollama_request import (
    CHAT_PATH,
    GENERATE_PATH,
    OLLAMA_CHAT,
    SHOWN_MODEL,
    generate_endpoint,
)
from mistral_api.payload_types import JsonObject
from mistral_api.system.time_units import nanoseconds
from mistral_api.web.errors import handle_errors
from mistral_api.web.generation import LINES, json_response, planned_response, request_context
from mistral_api.web.request import services
from mistral_api.web.request_body import json_body

blueprint = Blueprint("ollama", __name__, url_prefix="/api")


@blueprint.post("/chat")
def chat() -> Response:
    """Generate the next message of a chat."""
    body = _served_body(json_body())
    if _is_empty(body, "messages"):
        return json_response(_loaded(CHAT_PATH, body) | {"message": {"role": "assistant", "content": ""}})
    return _generate(OLLAMA_CHAT, body)


@blueprint.post("/generate")
def generate() -> Response:
    """Continue a prompt."""
    body = _served_body(json_body())
    if _is_empty(body, "prompt") and _is_empty(body, "suffix"):
        return json_response(_loaded(GENERATE_PATH, body) | {"response": ""})
    return _generate(generate_endpoint(body), body)


@blueprint.post("/embed")
def embed() -> Response:
    """A vector for each input."""
    began, body = time.monotonic(), _served_body(json_body())
    shown = _shown_model(body)
    if _is_empty(body, EMBED.field):
        _probe(EMBED.path, body, _embedding_model)
        return json_response({"model": shown, "embeddings": []})
    answered = _embed(EMBED, body)
    return json_response(embeddings_body(answered, shown, nanoseconds(time.monotonic() - began)))


@blueprint.post("/embeddings")
def embeddings() -> Response:
    """One vector, for the prompt; the older form."""
    body = _served_body(json_body())
    if _is_empty(body, EMBED_ONE.field):
        _probe(EMBED_ONE.path, body, _embedding_model)
        return json_response({"embedding": []})
    return json_response(embedding_body(_embed(EMBED_ONE, body)))


def _generate(endpoint: Endpoint, body: object) -> Response:
    return planned_response(services().generator.plan(endpoint, request_context(body)), LINES)


def _embed(task: Embeddings, body: object) -> Mapping[str, object]:
    return services().embedder.answer(task, request_context(body))


def _served_body(body: object) -> object:
    """Return a body with the name by which its model is served, beside the one by which the client asked.

    A chat that is too long loses its oldest turns, as in Ollama, where the model server can count tokens.
    """
    if not isinstance(body, dict):
        return body
    shown = body.get("model")
    named: JsonObject = {SHOWN_MODEL: None}
    if isinstance(shown, str):
        named = {"model": services().ollama_models.served_name(shown), SHOWN_MODEL: shown}
    if body.get("truncate") is None and services().settings.supervised:
        named["truncate"] = True
    _note_context(body)
    return body | named


def _note_context(body: JsonObject) -> None:
    options = body.get("options")
    wanted = options.get("num_ctx") if isinstance(options, dict) else None
    if isinstance(wanted, int):
        services().ollama_models.note_wanted_context(wanted)


def _shown_model(body: object) -> str:
    shown = body.get(SHOWN_MODEL) if isinstance(body, dict) else None
    return shown if isinstance(shown, str) else ""


def _is_empty(body: object, field: str) -> bool:
    """Whether a request has nothing in a field: it loads the model, or unloads it."""
    return isinstance(body, dict) and body.get(field) in (None, "", [])


def _loaded(path: str, body: object) -> JsonObject:
    """Load the model. Return the fields that all responses to that have."""
    reason = _probe(path, body, services().generator.served_model)
    name = _shown_model(body) or services().model_servers.default_model() or ""
    return {"model": name, "created_at": created_now(), "done": True, "done_reason": reason}


def _probe(path: str, body: object, served: Callable[[str | None], str | None]) -> str:
    context = request_context(body)
    exchange = services().generator.exchange(path, context)
    return probe_model(exchange, context, served, services().loaded_models.current)


def _embedding_model(name: str | None) -> str | None:
    """Return the model that makes embeddings. Raises NotFound for one that is not served."""
    (server, *_) = services().model_servers.named(name)
    return name or server.catalogue.default()


def error_response(error: ApiError) -> Response:
    """Return an error in Ollama's shape."""
    body = orjson.dumps(ollama_error(error))
    return Response(body, status=error.status, headers=error_headers(error), mimetype="application/json")


handle_errors(blueprint, error_response)
