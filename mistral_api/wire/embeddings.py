"""Requests of ``POST /v1/embeddings`` and ``POST /v1/rerank``; the latter in the form of Jina, Cohere and llama.cpp."""

from __future__ import annotations

from typing import ClassVar, Required, TypedDict

from marshmallow import INCLUDE

from mistral_api.wire.container_shapes import Array, Object, TextsOrTokens, required
from mistral_api.wire.request_schema import MODEL, Field, RequestSchema
from mistral_api.wire.shapes import INT32_MAX, AnyOf, Boolean, Integer, StringEnum, Text

MOST_INPUTS = 2048
MOST_DOCUMENTS = 2048

_DOCUMENT = AnyOf(Text(1), Object(required(text=Text(1))), expected="a string or an object")


# One input: a text, or its tokens.
EmbeddingInput = str | list[int]


class EmbeddingsPayload(TypedDict, total=False):
    """A valid request for embeddings (OpenAI's ``CreateEmbeddingRequest``)."""

    model: str
    input: Required[str | list[str] | list[int] | list[list[int]]]
    encoding_format: str
    dimensions: int
    user: str


class Document(TypedDict):
    """A document in an object."""

    text: str


class RerankPayload(TypedDict, total=False):
    """A valid request to order documents."""

    model: str
    query: Required[str]
    documents: Required[list[str | Document]]
    top_n: int
    return_documents: bool


class EmbeddingsRequest(RequestSchema[EmbeddingsPayload]):
    """A request for embeddings; of unknown fields those pass on that an engine is known to take."""

    EXAMPLE: ClassVar[EmbeddingsPayload] = {"input": ["What is a panda?", "A bear."]}

    class Meta:
        unknown = INCLUDE

    model = Field(MODEL)
    input = Field(TextsOrTokens(MOST_INPUTS, low=1), required=True)
    encoding_format = Field(StringEnum("float", "base64"))
    dimensions = Field(Integer(1, INT32_MAX))
    embd_normalize = Field(Integer(-1, 100))
    user = Field(Text())


class RerankRequest(RequestSchema[RerankPayload]):
    """A request to order documents by what they have to do with a query."""

    EXAMPLE: ClassVar[RerankPayload] = {"query": "What is a panda?", "documents": ["A bear.", "A kind of bread."]}

    class Meta:
        unknown = INCLUDE

    model = Field(MODEL)
    query = Field(Text(1), required=True)
    documents = Field(Array(_DOCUMENT, 1, MOST_DOCUMENTS), required=True)
    top_n = Field(Integer(1, INT32_MAX))
    return_documents = Field(Boolean())
