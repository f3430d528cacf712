"""``POST /v1/completions``."""

from __future__ import annotations

from typing import Any

from marshmallow import post_load, validates_schema

from mistral_api.schemas.fields import Boolean, CheckedField, Integer, Text
from mistral_api.schemas.issues import refuse
from mistral_api.schemas.sampling import GenerationRequest, refuse_choices_of_nothing
from mistral_api.schemas.tokens import check_texts_or_tokens

DEFAULT_MAX_TOKENS = 16
MOST_PROMPTS = 2048


class Prompt(CheckedField):
    """A string, an array of strings, tokens, or an array of arrays of tokens; never a mixture."""

    def check(self, value: Any) -> None:
        """Refuse what is none of these."""
        check_texts_or_tokens(value, MOST_PROMPTS)


class Suffix(Text):
    """Text to write towards: not of this endpoint here, and better refused than ignored."""

    def check(self, value: Any) -> None:
        """Refuse all but the empty text."""
        super().check(value)
        if value:
            text = "Unsupported value: '{param}' is not supported by this endpoint; POST /infill fills in text."
            refuse("unsupported_value", text)


class CompletionRequest(GenerationRequest):
    """A legacy completion request; without ``max_tokens`` it gets OpenAI's 16."""

    prompt = Prompt(required=True)
    suffix = Suffix()
    echo = Boolean()
    logprobs = Integer(0, 5)
    best_of = Integer(0, 20)

    @validates_schema
    def _echo_without_logprobs(self, data: dict[str, Any], **_options: Any) -> None:
        if data.get("echo") and data.get("logprobs") is not None:
            text = "'{param}' cannot be given with 'echo': the model server tells nothing of a prompt's tokens."
            refuse("unsupported_value", text, field="logprobs")

    @validates_schema
    def _something_to_choose_from(self, data: dict[str, Any], **_options: Any) -> None:
        refuse_choices_of_nothing(data)

    @validates_schema
    def _best_of_fits(self, data: dict[str, Any], **_options: Any) -> None:
        best_of, wanted = data.get("best_of", 0), data.get("n", 1)
        if best_of > wanted:
            refuse("unsupported_value", "Unsupported value: '{param}' above 'n' is not supported.", field="best_of")
        if 0 < best_of < wanted:
            refuse("invalid_value", "Invalid '{param}': expected a value that is not below 'n'.", field="best_of")

    @post_load
    def _limit(self, data: dict[str, Any], **_options: Any) -> dict[str, Any]:
        if "n_predict" not in data:
            data.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
        return data
