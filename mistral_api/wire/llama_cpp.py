"""llama.cpp's own endpoints: ``/completion``, ``/infill``, ``/tokenize``, ``/detokenize``, and what its operator asks.

The fields are those of tools/server/README.md.
"""

from __future__ import annotations

import re
from typing import Any

from marshmallow import INCLUDE, Schema, validates_schema

from mistral_api.errors import InvalidRequest
from mistral_api.wire.field_errors import refuse, refuse_missing, refuse_type
from mistral_api.wire.fields import (
    Boolean,
    CheckedField,
    Integer,
    Text,
    check_array,
    check_number,
    check_object,
    check_text,
    check_token,
    check_tokens,
)
from mistral_api.wire.loading import load
from mistral_api.wire.sampling import MOST_PROBABILITIES, GenerationRequest, refuse_choices_of_nothing

MOST_TOKENS = 2**20
MOST_PROMPTS = 2048
MOST_EXTRAS = 1024
MOST_FIELDS = 256
MOST_ADAPTERS = 1000
# Names that nobody can mistake for a path; the supervisor's own files in the same folder are told by their endings.
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SUPERVISORS = (".kv", ".json", ".forgotten")


def _check_mixed(value: Any, path: str = "") -> None:
    """A string, or an array of strings and tokens."""
    if isinstance(value, str):
        return
    if not isinstance(value, list):
        refuse_type("a string or an array", value, path)
    check_array(value, 0, MOST_TOKENS, path)
    for index, each in enumerate(value):
        if not isinstance(each, str):
            check_token(each, f"{path}[{index}]")


def _check_with_media(value: dict[str, Any], path: str) -> None:
    if "prompt_string" not in value:
        refuse_missing(f"{path}.prompt_string")
    check_text(value["prompt_string"], path=f"{path}.prompt_string")
    media = value.get("multimodal_data", [])
    check_array(media, 0, MOST_PROMPTS, f"{path}.multimodal_data")
    for index, each in enumerate(media):
        check_text(each, path=f"{path}.multimodal_data[{index}]")


def _check_prompt(value: Any, path: str = "") -> None:
    if isinstance(value, dict):
        _check_with_media(value, path)
    else:
        _check_mixed(value, path)


class TextOrTokens(CheckedField):
    """A string, or an array of strings and tokens."""

    def check(self, value: Any) -> None:
        """Refuse what is neither."""
        _check_mixed(value)


class NativePrompt(CheckedField):
    """A prompt (a string, strings and tokens, or ``{"prompt_string", "multimodal_data"}``), or an array of prompts.

    An array with a number in it is one prompt.
    """

    def check(self, value: Any) -> None:
        """Refuse what is none of these."""
        if not isinstance(value, list):
            _check_prompt(value)
            return
        check_array(value, 1, MOST_TOKENS)
        if any(isinstance(each, int) for each in value):
            _check_mixed(value)
            return
        check_array(value, 1, MOST_PROMPTS)
        for index, each in enumerate(value):
            _check_prompt(each, f"[{index}]")


class FieldPaths(CheckedField):
    """The fields of the answer that are wanted."""

    def check(self, value: Any) -> None:
        """Refuse what is no array of strings."""
        check_array(value, 0, MOST_FIELDS)
        for index, each in enumerate(value):
            check_text(each, 1, 256, f"[{index}]")


class InputExtra(CheckedField):
    """Other files of the project: ``[{"filename", "text"}]``."""

    def check(self, value: Any) -> None:
        """Refuse the first that is wrong."""
        check_array(value, 0, MOST_EXTRAS)
        for index, each in enumerate(value):
            check_object(each, f"[{index}]")
            if "text" not in each:
                refuse_missing(f"[{index}].text")
            for name in ("text", "filename"):
                if name in each:
                    check_text(each[name], path=f"[{index}].{name}")


class NativeRequest(GenerationRequest):
    """What both have; ``logprobs`` is another name of ``n_probs`` there."""

    logprobs = Integer(0, MOST_PROBABILITIES)
    response_fields = FieldPaths()


class NativeCompletionRequest(NativeRequest):
    """``POST /completion``."""

    prompt = NativePrompt(required=True)

    @validates_schema
    def _something_to_choose_from(self, data: dict[str, Any], **_options: Any) -> None:
        refuse_choices_of_nothing(data)


class InfillRequest(NativeRequest):
    """``POST /infill``."""

    input_prefix = TextOrTokens(required=True)
    input_suffix = TextOrTokens(required=True)
    input_extra = InputExtra()
    prompt = Text()


class PassthroughRequest(Schema):
    """The base of questions: unknown fields pass on."""

    class Meta:
        unknown = INCLUDE

    model = Text(1, 256)


class TokenizeRequest(PassthroughRequest):
    """``POST /tokenize``."""

    content = TextOrTokens(required=True)
    add_special = Boolean()
    parse_special = Boolean()
    with_pieces = Boolean()


class TokenArray(CheckedField):
    """An array of tokens."""

    def check(self, value: Any) -> None:
        """Refuse the first that is none."""
        check_tokens(value, 0, MOST_TOKENS)


class DetokenizeRequest(PassthroughRequest):
    """``POST /detokenize``."""

    tokens = TokenArray(required=True)


class SlotFile(Text):
    """The name of a file in the folder of saved caches, and none of the supervisor's."""

    def check(self, value: Any) -> None:
        """Refuse paths, and the names of the supervisor's files: to restore a damaged one ends the model server."""
        check_text(value, 1, 128)
        if not FILE_NAME.fullmatch(value) or value.endswith((".", *_SUPERVISORS)):
            text = f"Invalid '{{param}}': expected letters, digits, '_', '-' and '.', not ending in {_SUPERVISORS}."
            refuse("invalid_value", text)


class SlotFileRequest(PassthroughRequest):
    """``POST /slots/{id}?action=save`` and ``restore``."""

    filename = SlotFile(required=True)


class AnyObject(PassthroughRequest):
    """An object of which nothing is known."""


def load_adapters(body: object) -> list[dict[str, Any]]:
    """``POST /lora-adapters``: ``[{"id", "scale"}]``. Raises InvalidRequest."""
    if not isinstance(body, list):
        raise InvalidRequest("Invalid request: expected a JSON array as the body.", code="invalid_type")
    loaded: list[dict[str, Any]] = load(_Adapters(), {"adapters": body})["adapters"]
    return loaded


class AdapterScales(CheckedField):
    """``[{"id", "scale"}]``."""

    def check(self, value: Any) -> None:
        """Refuse the first that is wrong."""
        check_array(value, 0, MOST_ADAPTERS)
        for index, each in enumerate(value):
            check_object(each, f"[{index}]")
            for name in ("id", "scale"):
                if name not in each:
                    refuse_missing(f"[{index}].{name}")
            check_token(each["id"], f"[{index}].id")
            check_number(each["scale"], path=f"[{index}].scale")


class _Adapters(Schema):
    adapters = AdapterScales(required=True)
