"""Whether the model server of MODEL_SERVER_URL, which somebody else runs, would take a request, and why not.

What of an engine needs a key: llama.cpp's ``/health`` and ``/v1/models`` need none, its ``/props`` does (its
tools/server/README.md names the public endpoints); vLLM's ``/health`` needs none, its ``/v1/models`` does
(``--api-key`` of ``vllm serve`` guards all paths below ``/v1``). Not every engine has ``/health``.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal, NamedTuple

import orjson

from mistral_api.errors import ModelLoading, ModelServerError
from mistral_api.upstream.client import ModelServerClient

_WRONG_KEY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class ProbeResult(NamedTuple):
    """What a model server said; ``cause``, without an address, where it is of no use now."""

    state: Literal["ready", "loading", "unreachable"]
    cause: str | None = None


def probe_external(client: ModelServerClient) -> ProbeResult:
    """Ask the model server whether it is there, is an OpenAI server, and takes our key."""
    try:
        return _probe(client)
    except ModelLoading as error:
        return ProbeResult("loading", error.message)
    except ModelServerError as error:
        return ProbeResult("unreachable", error.message)


def _probe(client: ModelServerClient) -> ProbeResult:
    health, _ = client.answer_to("/health")
    if health == HTTPStatus.SERVICE_UNAVAILABLE:
        return ProbeResult("loading", "The model is being loaded.")
    status, content = client.answer_to("/v1/models")
    if status in _WRONG_KEY:
        return ProbeResult("unreachable", client.key_refused)
    if status == HTTPStatus.NOT_FOUND and health != HTTPStatus.OK:
        return ProbeResult("unreachable", client.no_openai_server)
    if status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
        return _judge_models(client, status, content)
    return ProbeResult("unreachable", f"The model server answers {status} to /v1/models.")


def _judge_models(client: ModelServerClient, status: int, content: bytes) -> ProbeResult:
    if status != HTTPStatus.OK:  # an engine that is healthy and lists no models
        return ProbeResult("ready")
    try:
        models = orjson.loads(content)["data"]
        is_llama_cpp = any(model.get("owned_by") == "llamacpp" for model in models)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return ProbeResult(
            "unreachable", "What answers there is no OpenAI server: its /v1/models is no list of models."
        )
    if is_llama_cpp and client.answer_to("/props")[0] in _WRONG_KEY:
        return ProbeResult("unreachable", client.key_refused)
    return ProbeResult("ready")
