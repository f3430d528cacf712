"""``POST /v1/embeddings``."""

from __future__ import annotations

from typing import Any

from marshmallow import INCLUDE, Schema

from mistral_api.schemas.completions import check_tokens, is_token
from mistral_api.schemas.fields import Checked, Choice, Integer, Text, check_array, check_text
from mistral_api.schemas.issues import refuse_type

MOST_INPUTS = 2048


class Input(Checked):
    """A string, an array of strings, tokens, or an array of arrays of tokens; never a mixture, nothing empty."""

    def check(self, value: Any) -> None:
        """Refuse what is none of these."""
        if isinstance(value, str):
            check_text(value, 1)
            return
        if not isinstance(value, list):
            refuse_type("a string or an array", value)
        check_array(value, 1)
        if is_token(value[0]):
            check_tokens(value)
            return
        check_array(value, 1, MOST_INPUTS)
        for index, each in enumerate(value):
            if isinstance(value[0], list):
                check_tokens(each, f"[{index}]")
            else:
                check_text(each, 1, path=f"[{index}]")


class EmbeddingsRequest(Schema):
    """A request for embeddings; unknown fields pass on to the model server."""

    class Meta:
        unknown = INCLUDE

    model = Text(1, 256)
    input = Input(required=True)
    encoding_format = Choice("float", "base64")
    dimensions = Integer(1, 2**31 - 1)
    user = Text()
