"""Ollama's ``/api/embed`` and the older ``/api/embeddings`` as tasks of the embedder.

An input that is too long is cut off, as Ollama does, unless ``truncate`` is false. The vectors of ``/api/embed`` have
the length 1, those of ``/api/embeddings`` have not (``EmbedHandler`` and ``EmbeddingsHandler`` in ollama/ollama,
``server/routes.go``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from marshmallow import post_load

from mistral_api.embeddings.tasks import EMBEDDINGS, Embeddings
from mistral_api.payload_types.ollama import OllamaEmbedding, OllamaEmbeddings, OllamaEmbedPayload
from mistral_api.wire.embeddings import EmbeddingsPayload
from mistral_api.wire.ollama import OllamaEmbeddingsRequest, OllamaEmbedRequest

# llama.cpp's ``embd_normalize``: vectors as the model makes them.
_AS_THEY_ARE = -1


class _Embed(OllamaEmbedRequest[EmbeddingsPayload]):
    """Loads as OpenAI's request."""

    @post_load
    def _translate(self, data: OllamaEmbedPayload, **_options: object) -> EmbeddingsPayload:
        payload: EmbeddingsPayload = {"input": data["input"]}
        if data.get("dimensions"):
            payload["dimensions"] = data["dimensions"]
        return _with_fields(payload, data, truncate=data.get("truncate", True))


class _EmbedOne(OllamaEmbeddingsRequest[EmbeddingsPayload]):
    """Loads as OpenAI's request."""

    @post_load
    def _translate(self, data: OllamaEmbedPayload, **_options: object) -> EmbeddingsPayload:
        return _with_fields({"input": data["prompt"]}, data, truncate=True, embd_normalize=_AS_THEY_ARE)


def _with_fields(payload: EmbeddingsPayload, data: OllamaEmbedPayload, **fields: object) -> EmbeddingsPayload:
    """Return the request with its model, and with fields of engines."""
    model = {"model": data["model"]} if data.get("model") else {}
    return cast("EmbeddingsPayload", {**payload, **model, **fields})


class _OllamaTask(Embeddings):
    upstream_path = Embeddings.path

    def known_fields(self) -> frozenset[str]:
        """Return those of OpenAI's request, as which the payload is loaded."""
        return EMBEDDINGS.known_fields()

    def truncates(self, payload: EmbeddingsPayload) -> bool:
        """Return whether inputs that are too long are cut off."""
        return bool(cast("dict[str, Any]", payload).get("truncate"))

    def clipped(self, payload: EmbeddingsPayload, most: int | None) -> EmbeddingsPayload:
        """Return a payload with the beginning of each text; a character has a byte at least."""
        inputs = payload["input"]
        cut = inputs[:most] if isinstance(inputs, str) else [each[:most] for each in cast("list[str]", inputs)]
        return {**payload, "input": cut}


class EmbedTask(_OllamaTask):
    """A vector for each input."""

    path, schema = "/api/embed", _Embed()


class EmbeddingsTask(_OllamaTask):
    """One vector, for the prompt."""

    path, schema, field = "/api/embeddings", _EmbedOne(), "prompt"

    def place(self, payload: EmbeddingsPayload, index: int) -> str:
        """Return the path of the prompt."""
        return self.field


EMBED, EMBED_ONE = EmbedTask(), EmbeddingsTask()


def embeddings_body(body: Mapping[str, Any], model: str, nanoseconds: int) -> OllamaEmbeddings:
    """Return OpenAI's response in Ollama's form; ``model`` as the client named it, if it did; the time that it took."""
    return {
        "model": model or body["model"],
        "embeddings": [each["embedding"] for each in body["data"]],
        "total_duration": nanoseconds,
        "load_duration": 0,
        "prompt_eval_count": body["usage"]["prompt_tokens"],
    }


def embedding_body(body: Mapping[str, Any]) -> OllamaEmbedding:
    """Return the response to a single prompt."""
    return {"embedding": body["data"][0]["embedding"]}
