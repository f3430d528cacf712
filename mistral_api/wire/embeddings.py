"""Requests of /v1/embeddings and /v1/rerank.

``POST /v1/embeddings``.

``POST /v1/rerank``, in the form that Jina and Cohere gave it and llama.cpp took over.
"""

from __future__ import annotations

from typing import Any

from marshmallow import INCLUDE, Schema

from mistral_api.wire.field_errors import refuse_missing, refuse_type
from mistral_api.wire.fields import (
    Boolean,
    CheckedField,
    Integer,
    OneOf,
    Text,
    check_array,
    check_text,
    check_texts_or_tokens,
)

MOST_INPUTS = 2048


class EmbeddingsInput(CheckedField):
    """A string, an array of strings, tokens, or an array of arrays of tokens; never a mixture, nothing empty."""

    def check(self, value: Any) -> None:
        """Refuse what is none of these."""
        check_texts_or_tokens(value, MOST_INPUTS, shortest=1)


class EmbeddingsRequest(Schema):
    """A request for embeddings; unknown fields pass on to the model server."""

    class Meta:
        unknown = INCLUDE

    model = Text(1, 256)
    input = EmbeddingsInput(required=True)
    encoding_format = OneOf("float", "base64")
    dimensions = Integer(1, 2**31 - 1)
    user = Text()


MOST_DOCUMENTS = 2048


class Documents(CheckedField):
    """An array of strings, or of objects with a ``text``; none empty."""

    def check(self, value: Any) -> None:
        """Refuse what is none of these."""
        check_array(value, 1, MOST_DOCUMENTS)
        for index, document in enumerate(value):
            path = f"[{index}]"
            if isinstance(document, str):
                check_text(document, 1, path=path)
            elif not isinstance(document, dict):
                refuse_type("a string or an object", document, path)
            elif "text" not in document:
                refuse_missing(f"{path}.text")
            else:
                check_text(document["text"], 1, path=f"{path}.text")


class RerankRequest(Schema):
    """A request to order documents by what they have to do with a query."""

    class Meta:
        unknown = INCLUDE

    model = Text(1, 256)
    query = Text(1, required=True)
    documents = Documents(required=True)
    top_n = Integer(1, 2**31 - 1)
    return_documents = Boolean()
