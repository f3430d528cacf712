"""Requests of ``POST /v1/completions``, OpenAI's legacy completions."""

from __future__ import annotations

from typing import ClassVar

from marshmallow import missing, post_load, validates_schema

from mistral_api.payload_types.chat import ChatPayload
from mistral_api.wire.container_shapes import TextsOrTokens
from mistral_api.wire.field_errors import refuse
from mistral_api.wire.request_schema import Field
from mistral_api.wire.sampling import GenerationRequest, refuse_choices_of_empty_prompt
from mistral_api.wire.shapes import AnyOf, Boolean, Constant, Integer, Text

DEFAULT_MAX_TOKENS = 16
MOST_PROMPTS = 2048


_NO_INTEGER = ("invalid_type", "Invalid type for '{param}': expected an integer, but got a boolean instead.")


def _refuse_suffix(suffix: str) -> None:
    if suffix:
        text = "Unsupported value: '{param}' is not supported by this endpoint; POST /infill fills in text."
        refuse("unsupported_value", text)


# A text to write towards is not supported by this endpoint, and is better refused than ignored.
_NO_SUFFIX = Text().refined(_refuse_suffix).with_schema({"const": ""})


# ``false`` is how a chat says that it wants none.
_LOGPROBS = AnyOf(Constant(False, *_NO_INTEGER), Integer(0, 5), expected="an integer").converted(
    lambda count: missing if count is False else int(count)
)


class CompletionRequest(GenerationRequest[ChatPayload]):
    """A legacy completion request; without ``max_tokens`` it gets OpenAI's 16."""

    EXAMPLE: ClassVar[ChatPayload] = {"prompt": "Once upon a time", "max_tokens": 20}

    prompt = Field(TextsOrTokens(MOST_PROMPTS), required=True)
    suffix = Field(_NO_SUFFIX)
    echo = Field(Boolean())
    logprobs = Field(_LOGPROBS)
    best_of = Field(Integer(0, 20))

    @validates_schema
    def _echo_without_logprobs(self, data: ChatPayload, **_options: object) -> None:
        if data.get("echo") and data.get("logprobs") is not None:
            text = "'{param}' cannot be given with 'echo': the model server tells nothing of a prompt's tokens."
            refuse("unsupported_value", text, field="logprobs")

    @validates_schema
    def _choices_need_a_prompt(self, data: ChatPayload, **_options: object) -> None:
        refuse_choices_of_empty_prompt(data)

    @validates_schema
    def _best_of_fits(self, data: ChatPayload, **_options: object) -> None:
        best_of, wanted = data.get("best_of", 0), data.get("n", 1)
        if best_of > wanted:
            refuse("unsupported_value", "Unsupported value: '{param}' above 'n' is not supported.", field="best_of")
        if 0 < best_of < wanted:
            refuse("invalid_value", "Invalid '{param}': expected a value that is not below 'n'.", field="best_of")

    @post_load
    def _limit(self, data: ChatPayload, **_options: object) -> ChatPayload:
        if "n_predict" not in data:
            data.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
        return data
