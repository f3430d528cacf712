"""Embedding tasks: a vector for each input, or a score for each document; what the model server is asked for them.

The shapes are those of OpenAI's embeddings (its OpenAPI description, ``CreateEmbeddingResponse``), and of llama.cpp's
``/v1/rerank`` (tools/server/README.md).

Many inputs are sent in batches. llama.cpp takes any number at once, but for a client that has left it goes on with all
of them, as long as each result comes within a second of the last (``HTTP_POLLING_SECONDS`` in
tools/server/server-context.cpp): a batch is the most that is computed for nobody. So a batch is about what the server
computes in half a second. That depends on the model and the machine by orders of magnitude: each batch shows how large
the next one may be.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar, cast

from mistral_api.errors import InvalidRequest
from mistral_api.payload_types import JsonObject, PayloadT, omit
from mistral_api.upstream.text_limit import text_bytes
from mistral_api.wire import EmbeddingsRequest, RerankRequest
from mistral_api.wire.embeddings import Document, EmbeddingInput, EmbeddingsPayload, RerankPayload
from mistral_api.wire.engine_fields import EMBEDDING_FIELDS
from mistral_api.wire.request_schema import RequestSchema

ResultT = TypeVar("ResultT")

MOST_ITEMS = 256
# Sizes of a batch in bytes of text, where a token counts as four: from what a CPU reads in that time to more than
# any card does.
FIRST_BYTES, MOST_BYTES = 256, 256 << 10
BATCH_SECONDS = 0.5
GROWTH = 4.0


class Batches:
    """Cuts items into batches, in order. Iterate, and call :meth:`took` after each batch."""

    def __init__(self, items: Sequence[EmbeddingInput], extra_bytes: int = 0) -> None:
        """``extra_bytes``: the bytes that are computed with each item, as a query is."""
        self._items = items
        self._extra_bytes = extra_bytes
        self._bytes = float(FIRST_BYTES)

    def __iter__(self) -> Iterator[tuple[int, list[EmbeddingInput]]]:
        """Yield the batches, each with the index of its first item; none is empty."""
        first = 0
        while first < len(self._items):
            last = self._end(first)
            yield first, list(self._items[first:last])
            first = last

    def took(self, seconds: float) -> None:
        """Note how long the last batch took."""
        factor = min(GROWTH, BATCH_SECONDS / max(seconds, 1e-3))
        self._bytes = min(MOST_BYTES, max(1.0, self._bytes * factor))

    def _end(self, first: int) -> int:
        """Return the end of the batch that begins at an index; it has one item at least, whatever its size."""
        last, size = first + 1, self._size(first)
        while last < min(len(self._items), first + MOST_ITEMS) and size + self._size(last) <= self._bytes:
            size += self._size(last)
            last += 1
        return last

    def _size(self, index: int) -> int:
        return text_size(self._items[index]) + self._extra_bytes


def text_size(item: EmbeddingInput) -> int:
    """Return about how many bytes of text there are to compute."""
    return text_bytes(item) if isinstance(item, str) else 4 * len(item)


FLOAT_BYTES = 4


def pack_floats(embedding: Any) -> bytes:
    """Return one embedding as the bytes of little-endian float32 (OpenAI's ``base64`` without its wrapping).

    ``embedding`` is what an engine sent: a base64 string or an array. Raises ValueError for anything else.
    """
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
    """Return how many numbers a packed embedding has."""
    return len(raw) // FLOAT_BYTES


def unpack_floats(raw: bytes) -> tuple[float, ...]:
    """Return the numbers of a packed embedding. Raises ValueError where one is not finite: JSON has no such number."""
    values = struct.unpack(f"<{vector_size(raw)}f", raw)
    if not all(map(math.isfinite, values)):
        raise ValueError("not a number")
    return values


def shorten(raw: bytes, dimensions: int) -> bytes:
    """Return the first numbers, scaled to length 1 again: this is what OpenAI's ``dimensions`` means."""
    head = unpack_floats(raw)[:dimensions]
    length = math.hypot(*head)
    return _packed_list([value / length for value in head]) if length else _packed_list(list(head))


def to_base64(raw: bytes) -> str:
    """Return a packed embedding as text, as OpenAI's SDK asks for it."""
    return base64.b64encode(raw).decode("ascii")


class Embedding(TypedDict):
    """The vector of one input (OpenAI's ``Embedding``): numbers, or their base64."""

    object: Literal["embedding"]
    index: int
    embedding: Sequence[float] | str


class EmbeddingData(TypedDict):
    """The results of a request for embeddings."""

    data: list[Embedding]


class Rank(TypedDict):
    """The score of one document."""

    index: int
    relevance_score: float
    document: NotRequired[Document]


class RankingData(TypedDict):
    """The results of a request to order documents, the best first."""

    results: list[Rank]


class EmbeddingTask(ABC, Generic[PayloadT, ResultT]):
    """One kind of embedding request, with the type of its payload, and that of the result for one input.

    ``path`` is how it is recorded, ``upstream_path`` the model server's, where it differs.
    ``ranks``: it needs a reranker. ``field``: the field of the inputs. ``refusal`` and ``model``: what a model that
    cannot do it lacks, and which model can, as parts of a sentence.
    """

    path: str
    upstream_path: str = ""
    schema: RequestSchema[PayloadT]
    ranks: bool
    refusal: str
    model: str
    field: str

    @abstractmethod
    def items(self, payload: PayloadT) -> Sequence[EmbeddingInput]:
        """Return the inputs, one by one."""

    def place(self, payload: PayloadT, index: int) -> str:
        """Return the path of an input: the field itself where that is a text."""
        return self.field if isinstance(payload[self.field], str) else f"{self.field}[{index}]"

    def known_fields(self) -> frozenset[str]:
        """Return the fields of a payload that go to the model server, of all that a client may have sent."""
        return EMBEDDING_FIELDS | frozenset(self.schema.fields)

    def truncates(self, payload: PayloadT) -> bool:
        """Return whether inputs that are too long are cut off; OpenAI's and Jina's are refused."""
        return False

    def clipped(self, payload: PayloadT, most: int | None) -> PayloadT:
        """Return a payload whose inputs are cut off, without what could never fit: ``most`` bytes could, if known."""
        return payload

    @abstractmethod
    def extra_bytes(self, payload: PayloadT) -> int:
        """Return how many bytes are computed with each input."""

    @abstractmethod
    def upstream_payload(self, payload: PayloadT, items: list[EmbeddingInput]) -> Mapping[str, object]:
        """Return the request to the model server for some of the inputs."""

    @abstractmethod
    def read(self, payload: PayloadT, body: JsonObject) -> dict[int, ResultT]:
        """Return the results in the model server's response, by their index among those inputs.

        Raises KeyError, TypeError or ValueError for a response that makes no sense, and InvalidRequest.
        """

    @abstractmethod
    def body(self, payload: PayloadT, results: list[ResultT]) -> Mapping[str, object]:
        """Return the fields of our response that this task has of its own."""


class Embeddings(EmbeddingTask[EmbeddingsPayload, bytes]):
    """A vector for each input."""

    path = "/v1/embeddings"
    schema: RequestSchema[EmbeddingsPayload] = EmbeddingsRequest()
    ranks = False
    refusal, model, field = "makes no embeddings", "an embedding model", "input"
    _OWN_FIELDS = ("input", "encoding_format", "dimensions", "user")

    def items(self, payload: EmbeddingsPayload) -> Sequence[EmbeddingInput]:
        """Return the inputs: the field holds one alone, or many."""
        inputs = payload["input"]
        alone = isinstance(inputs, str) or isinstance(inputs[0], int)
        return cast("Sequence[EmbeddingInput]", [inputs] if alone else inputs)

    def extra_bytes(self, payload: EmbeddingsPayload) -> int:
        """Nothing is computed with an input."""
        return 0

    def upstream_payload(self, payload: EmbeddingsPayload, items: list[EmbeddingInput]) -> Mapping[str, object]:
        """Return the request, of the fields that have been let through."""
        return {**omit(payload, self._OWN_FIELDS), "input": items, "encoding_format": "base64"}

    def read(self, payload: EmbeddingsPayload, body: JsonObject) -> dict[int, bytes]:
        """Return the packed embeddings, cut to ``dimensions``."""
        found = {int(entry["index"]): pack_floats(entry["embedding"]) for entry in body["data"]}
        wanted = payload.get("dimensions")
        if wanted is None:
            return found
        return {index: _cut(raw, wanted) for index, raw in found.items()}

    def body(self, payload: EmbeddingsPayload, results: list[bytes]) -> EmbeddingData:
        """Return the list, in the encoding asked for. Raises ValueError for a number that is not finite."""
        encode = to_base64 if payload.get("encoding_format") == "base64" else unpack_floats
        data: list[Embedding] = [
            {"object": "embedding", "index": index, "embedding": encode(raw)} for index, raw in enumerate(results)
        ]
        return {"data": data}


def _cut(raw: bytes, dimensions: int) -> bytes:
    size = vector_size(raw)
    if dimensions > size:
        raise InvalidRequest(
            f"Invalid 'dimensions': integer above maximum value. Expected a value <= {size}, the dimensions of this "
            f"model, but got {dimensions} instead.",
            code="integer_above_max_value",
            param="dimensions",
        )
    return raw if dimensions == size else shorten(raw, dimensions)


class Rerank(EmbeddingTask[RerankPayload, float]):
    """A score for each document; the best first."""

    path, schema = "/v1/rerank", RerankRequest()
    ranks = True
    refusal, model, field = "does not rerank", "a reranker", "documents"

    def items(self, payload: RerankPayload) -> list[str]:
        """Return the texts of the documents."""
        return [document if isinstance(document, str) else document["text"] for document in payload["documents"]]

    def extra_bytes(self, payload: RerankPayload) -> int:
        """Return the size of the query."""
        return text_size(payload["query"])

    def upstream_payload(self, payload: RerankPayload, items: list[EmbeddingInput]) -> Mapping[str, object]:
        """Return the request. It asks for all scores: only all of them show which are the best."""
        model = {"model": payload["model"]} if "model" in payload else {}
        return model | {"query": payload["query"], "documents": items}

    def read(self, payload: RerankPayload, body: JsonObject) -> dict[int, float]:
        """Return the scores."""
        scores = {int(entry["index"]): float(entry["relevance_score"]) for entry in body["results"]}
        if not all(map(math.isfinite, scores.values())):
            raise ValueError("not a number")
        return scores

    def body(self, payload: RerankPayload, results: list[float]) -> RankingData:
        """Return the ``top_n`` best documents; of equal ones the earlier comes first."""
        best = sorted(range(len(results)), key=lambda index: -results[index])[: payload.get("top_n")]
        ranked: list[Rank] = [{"index": index, "relevance_score": results[index]} for index in best]
        if payload.get("return_documents"):
            texts = self.items(payload)
            ranked = [entry | {"document": {"text": texts[entry["index"]]}} for entry in ranked]
        return {"results": ranked}


EMBEDDINGS, RERANK = Embeddings(), Rerank()
