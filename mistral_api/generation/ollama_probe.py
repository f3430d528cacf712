"""Ollama's requests without messages, a prompt or an input: "load the model", or with ``keep_alive`` 0 "unload it".

Clients warm a model up so before they need it. Here it is the operator's settings that load and unload models: such a
request waits until the model is there, generates nothing, and is recorded without a conversation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal

from mistral_api.generation.endpoint import RequestContext
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.payload_types.ollama import OllamaModelRequest
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.wire import load
from mistral_api.wire.ollama import (
    OllamaChatRequest,
    OllamaEmbeddingsRequest,
    OllamaEmbedRequest,
    OllamaGenerateRequest,
)
from mistral_api.wire.request_schema import RequestSchema

# What else is in such a request has to be valid too. By the path of the endpoint.
_SCHEMAS: Final[Mapping[str, RequestSchema[OllamaModelRequest]]] = {
    "/api/chat": OllamaChatRequest(),
    "/api/generate": OllamaGenerateRequest(),
    "/api/embed": OllamaEmbedRequest(),
    "/api/embeddings": OllamaEmbeddingsRequest(),
}
_ZERO = re.compile(r"[+-]?[0.]+[a-zµ]*")


def probe_model(
    exchange: RunningExchange,
    request: RequestContext,
    served: Callable[[str | None], str | None],
    wait: Callable[[UpstreamCall], object],
) -> Literal["load", "unload"]:
    """Answer such a request: return Ollama's ``done_reason``.

    ``served`` returns the model that answers, or raises NotFound; ``wait`` waits for the model server. Raises our
    exceptions. The exchange is ended.
    """
    with exchange.failures_recorded():
        payload = load(_SCHEMAS[exchange.record.exchange.endpoint], request.body)
        exchange.record.exchange.model = served(payload.get("model") or None)
        unload = _is_zero(payload.get("keep_alive"))
        if not unload:
            wait(request.call)
    exchange.succeed()
    return "unload" if unload else "load"


def _is_zero(keep_alive: float | str | None) -> bool:
    """Whether a model shall be unloaded at once."""
    return _ZERO.fullmatch(keep_alive) is not None if isinstance(keep_alive, str) else keep_alive == 0
