"""Embeddings and reranking: requests, batches, encoded vectors.

Many inputs in portions: what one request to the model server holds.

llama.cpp takes any number at once, but goes on with all of them for a client that has left as long as each result
comes within a second of the last (``HTTP_POLLING_SECONDS`` in tools/server/server-context.cpp): a portion is the most
that is computed for nobody. So a portion is about what the server does in half a second, which depends on the model
and the machine by orders of magnitude: each shows how large the next one may be.

Embeddings as numbers: kept as the bytes of little-endian float32, OpenAI's ``base64`` without its wrapping.

The two things that are asked of a model that generates no text: a vector for each input, a score for each document.

What the model server is asked, and how its answer is read: OpenAI's embeddings (its OpenAPI description,
``CreateEmbeddingResponse``), and llama.cpp's ``/v1/rerank`` (tools/server/README.md).
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from mistral_api.errors import InvalidRequest
from mistral_api.generation.endpoint import Endpoint
from mistral_api.wire import EmbeddingsRequest, RerankRequest

EmbeddingInput = str | list[int]

MOST_ITEMS = 256
# In bytes of text, with four for a token: from what a CPU reads in such a time to more than any card does.
FIRST_BYTES, MOST_BYTES = 256, 256 << 10
PORTION_SECONDS = 0.5
GROWTH = 4.0


class Batches:
    """Cuts items into portions, in order: iterate, and say after each one how long it took."""

    def __init__(self, items: Sequence[EmbeddingInput], beside: int = 0) -> None:
        """``beside``: the bytes that are computed with each item, as a query is."""
        self._items = items
        self._beside = beside
        self._bytes = float(FIRST_BYTES)

    def __iter__(self) -> Iterator[tuple[int, list[EmbeddingInput]]]:
        """The portions, each with the index of its first item; none is empty."""
        first = 0
        while first < len(self._items):
            last = self._end(first)
            yield first, list(self._items[first:last])
            first = last

    def took(self, seconds: float) -> None:
        """Note how long the last portion took."""
        factor = min(GROWTH, PORTION_SECONDS / max(seconds, 1e-3))
        self._bytes = min(MOST_BYTES, max(1.0, self._bytes * factor))

    def _end(self, first: int) -> int:
        """One item at least, whatever its size."""
        last, size = first + 1, self._size(first)
        while last < min(len(self._items), first + MOST_ITEMS) and size + self._size(last) <= self._bytes:
            size += self._size(last)
            last += 1
        return last

    def _size(self, index: int) -> int:
        return text_size(self._items[index]) + self._beside


def text_size(item: EmbeddingInput) -> int:
    """About how much there is to compute."""
    return len(item.encode("utf-8", "replace")) if isinstance(item, str) else 4 * len(item)


FLOAT_BYTES = 4


def pack_floats(embedding: Any) -> bytes:
    """One embedding as an engine sent it, a base64 string or an array. Raises ValueError for anything else."""
    try:
        raw = base64.b64decode(embedding, validate=True) if isinstance(embedding, str) else _packed_list(embedding)
    except (binascii.Error, TypeError, struct.error, OverflowError) as error:
        raise ValueError("not an embedding") from error
    if not raw or len(raw) % FLOAT_BYTES:
        raise ValueError("not an embedding")
    return raw


def _packed_list(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def vector_size(raw: bytes) -> int:
    """How many numbers it has."""
    return len(raw) // FLOAT_BYTES


def numbers(raw: bytes) -> tuple[float, ...]:
    """Its numbers. Raises ValueError where one of them is none, which JSON could not say either."""
    values = struct.unpack(f"<{vector_size(raw)}f", raw)
    if not all(map(math.isfinite, values)):
        raise ValueError("not a number")
    return values


def shortened(raw: bytes, dimensions: int) -> bytes:
    """Its first numbers, scaled to length 1 again: what OpenAI's ``dimensions`` means."""
    head = numbers(raw)[:dimensions]
    length = math.hypot(*head)
    return _packed_list([value / length for value in head]) if length else _packed_list(list(head))


def in_base64(raw: bytes) -> str:
    """As OpenAI's SDK asks for it."""
    return base64.b64encode(raw).decode("ascii")


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
    has = vector_size(raw)
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
