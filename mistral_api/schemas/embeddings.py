"""``POST /v1/embeddings``."""

from __future__ import annotations

from typing import Any

from marshmallow import INCLUDE, Schema

from mistral_api.schemas.fields import CheckedField, Integer, OneOf, Text
from mistral_api.schemas.tokens import check_texts_or_tokens

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
