"""The two things that are asked of a model that generates no text: a vector for each input, a score for each document.

What the model server is asked, and how its answer is read: OpenAI's embeddings (its OpenAPI description,
``CreateEmbeddingResponse``), and llama.cpp's ``/v1/rerank`` (tools/server/README.md).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from mistral_api.embeddings.batches import EmbeddingInput, text_size
from mistral_api.embeddings.vectors import in_base64, numbers, pack_floats, shortened
from mistral_api.embeddings.vectors import vector_size as dimensions_of
from mistral_api.errors import InvalidRequest
from mistral_api.generation.endpoints import Endpoint
from mistral_api.schemas import EmbeddingsRequest, RerankRequest


def _no_messages(_payload: dict[str, Any]) -> list[dict[str, Any]]:
    """Nothing of these requests is a conversation."""
    return []


class EmbeddingTask(ABC):
    """``ranks``: whether it takes a reranker; ``makes`` and ``model``: what it does and needs, in a sentence."""

    endpoint: Endpoint
    ranks: bool
    makes: str
    model: str
    field: str

    @abstractmethod
    def items(self, payload: dict[str, Any]) -> list[EmbeddingInput]:
        """What is to be computed, one by one."""

    @abstractmethod
    def beside(self, payload: dict[str, Any]) -> int:
        """The bytes that are computed with each of them."""

    @abstractmethod
    def sent(self, payload: dict[str, Any], items: list[EmbeddingInput]) -> dict[str, Any]:
        """The request to the model server for some of them."""

    @abstractmethod
    def read(self, payload: dict[str, Any], body: dict[str, Any]) -> dict[int, Any]:
        """The results in its answer, by their place among those items.

        Raises KeyError, TypeError or ValueError for what makes no sense, and InvalidRequest.
        """

    @abstractmethod
    def body(self, payload: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        """What is special about our answer."""


class Embeddings(EmbeddingTask):
    """A vector for each input."""

    endpoint = Endpoint("/v1/embeddings", False, EmbeddingsRequest(), _no_messages)
    ranks = False
    makes, model, field = "makes no embeddings", "an embedding model", "input"
    _OURS = ("input", "encoding_format", "dimensions", "user")

    def items(self, payload: dict[str, Any]) -> list[EmbeddingInput]:
        """The inputs: one that stands alone, or many."""
        given = payload["input"]
        alone = isinstance(given, str) or isinstance(given[0], int)
        return [given] if alone else given

    def beside(self, payload: dict[str, Any]) -> int:
        """Nothing."""
        return 0

    def sent(self, payload: dict[str, Any], items: list[EmbeddingInput]) -> dict[str, Any]:
        """Unknown fields pass on."""
        others = {name: value for name, value in payload.items() if name not in self._OURS}
        return others | {"input": items, "encoding_format": "base64"}

    def read(self, payload: dict[str, Any], body: dict[str, Any]) -> dict[int, Any]:
        """The embeddings as bytes, cut to ``dimensions``."""
        found = {int(entry["index"]): pack_floats(entry["embedding"]) for entry in body["data"]}
        wanted = payload.get("dimensions")
        if wanted is None:
            return found
        return {index: _cut(raw, wanted) for index, raw in found.items()}

    def body(self, payload: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        """The list, in the encoding asked for. Raises ValueError for a vector that is none."""
        shown = in_base64 if payload.get("encoding_format") == "base64" else numbers
        data = [{"object": "embedding", "index": index, "embedding": shown(raw)} for index, raw in enumerate(results)]
        return {"data": data}


def _cut(raw: bytes, dimensions: int) -> bytes:
    has = dimensions_of(raw)
    if dimensions > has:
        raise InvalidRequest(
            f"Invalid 'dimensions': integer above maximum value. Expected a value <= {has}, the dimensions of this "
            f"model, but got {dimensions} instead.",
            code="integer_above_max_value",
            param="dimensions",
        )
    return raw if dimensions == has else shortened(raw, dimensions)


class Rerank(EmbeddingTask):
    """A score for each document; the best first."""

    endpoint = Endpoint("/v1/rerank", False, RerankRequest(), _no_messages)
    ranks = True
    makes, model, field = "does not rerank", "a reranker", "documents"

    def items(self, payload: dict[str, Any]) -> list[EmbeddingInput]:
        """The documents' texts."""
        return [document if isinstance(document, str) else document["text"] for document in payload["documents"]]

    def beside(self, payload: dict[str, Any]) -> int:
        """The query."""
        return text_size(payload["query"])

    def sent(self, payload: dict[str, Any], items: list[EmbeddingInput]) -> dict[str, Any]:
        """All scores are asked for: the best of all are known once all are there."""
        model = {"model": payload["model"]} if "model" in payload else {}
        return model | {"query": payload["query"], "documents": items}

    def read(self, payload: dict[str, Any], body: dict[str, Any]) -> dict[int, Any]:
        """The scores."""
        scores = {int(entry["index"]): float(entry["relevance_score"]) for entry in body["results"]}
        if not all(map(math.isfinite, scores.values())):
            raise ValueError("not a number")
        return scores

    def body(self, payload: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        """The ``top_n`` best documents; of equal ones the earlier first."""
        best = sorted(range(len(results)), key=lambda index: -results[index])[: payload.get("top_n")]
        shown = [{"index": index, "relevance_score": results[index]} for index in best]
        if payload.get("return_documents"):
            texts = self.items(payload)
            shown = [entry | {"document": {"text": texts[entry["index"]]}} for entry in shown]
        return {"results": shown}


EMBEDDINGS, RERANK = Embeddings(), Rerank()
