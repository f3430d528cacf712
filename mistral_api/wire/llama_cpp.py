"""Requests and response bodies of llama.cpp's own endpoints, for clients and for the administrator.

The fields of requests are those of tools/server/README.md. Bodies are described as far as they are the same in all its
versions.
"""

from __future__ import annotations

import re
from typing import ClassVar, TypedDict

from marshmallow import INCLUDE, validates_schema

from mistral_api.errors import InvalidRequest
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.wire.container_shapes import Array, Object, optional, required
from mistral_api.wire.field_errors import refuse
from mistral_api.wire.media import MEDIA_DATA
from mistral_api.wire.request_schema import MODEL, Field, RequestSchema, load
from mistral_api.wire.sampling import (
    ADAPTERS,
    MOST_PROBABILITIES,
    GenerationRequest,
    refuse_choices_of_empty_prompt,
)
from mistral_api.wire.shapes import ANYTHING, TOKEN, AnyOf, Boolean, Component, Integer, Shape, Text

MOST_TOKENS = 2**19
# Characters and tokens that llama.cpp turns into each other in less than a second, whatever they are.
MOST_TOKENIZED = 2**19
MOST_DETOKENIZED = 2**17
MOST_PROMPTS = 2048
MOST_EXTRAS = 1024
MOST_FIELDS = 256
# Names that nobody can mistake for a path; the supervisor's own files in the same folder are known by their endings.
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SUPERVISORS = (".kv", ".json", ".forgotten")

_TEXT_OR_TOKEN = AnyOf(Text(), TOKEN)
# A string, or an array of strings and tokens.
_TEXT_OR_TOKENS = AnyOf(Text(), Array(_TEXT_OR_TOKEN, 0, MOST_TOKENS), expected="a string or an array")
_WITH_MEDIA = Object(required(prompt_string=Text()), optional(multimodal_data=Array(MEDIA_DATA, 0, MOST_PROMPTS)))
_PROMPT = AnyOf(Text(), _WITH_MEDIA, Array(_TEXT_OR_TOKEN, 0, MOST_TOKENS), expected="a string or an array")
_TOKENS_WITH_NUMBER = Array(_TEXT_OR_TOKEN, 1, MOST_TOKENS).with_keywords(contains={"type": "integer"})
_PROMPTS = Array(_PROMPT, 1, MOST_PROMPTS)
_NOT_EMPTY = Array(low=1, high=MOST_TOKENS)


def _check_prompts(value: object) -> None:
    if not isinstance(value, list):
        _PROMPT.check(value)
        return
    _NOT_EMPTY.check(value)
    (_TEXT_OR_TOKENS if _has_number(value) else _PROMPTS).check(value)


def _has_number(prompt: list[object]) -> bool:
    return any(isinstance(each, int | float) for each in prompt)


def _convert_prompts(value: object) -> object:
    if not isinstance(value, list):
        return value
    convert = (_TEXT_OR_TOKENS if _has_number(value) else _PROMPTS).convert
    return value if convert is None else convert(value)


# A prompt, or an array of prompts. An array with a number in it is one prompt.
_PROMPT_OR_PROMPTS = Shape(
    _check_prompts,
    AnyOf(Text(), _WITH_MEDIA, _TOKENS_WITH_NUMBER, _PROMPTS).json_schema,
    str,
    dict,
    list,
    convert=_convert_prompts,
    changed_types=(list,),
)
# Another file of the project.
_EXTRA_FILE = Object(required(text=Text()), optional(filename=Text()))


def _check_file_name(name: str) -> None:
    if not FILE_NAME.fullmatch(name) or name.endswith((".", *_SUPERVISORS)):
        text = f"Invalid '{{param}}': expected letters, digits, '_', '-' and '.', not ending in {_SUPERVISORS}."
        refuse("invalid_value", text)


# A file in the folder of saved caches, and none of the supervisor's: to restore a damaged one ends the model server.
_SLOT_FILE = (
    Text(1, 128)
    .refined(_check_file_name)
    .with_schema(Text(pattern=FILE_NAME))
    .with_keywords(**{"not": {"pattern": r"\.(?:|kv|json|forgotten)$"}})
)


def _check_tokenized(content: str | list[str | int]) -> None:
    size = len(content) if isinstance(content, str) else sum(len(each) for each in content if isinstance(each, str))
    if size > MOST_TOKENIZED:
        text = f"string too long. Expected at most {MOST_TOKENIZED} characters, but got {size}."
        refuse("string_above_max_length", f"Invalid '{{param}}': {text}")


_TO_TOKENIZE = _TEXT_OR_TOKENS.refined(_check_tokenized)


class LlamaCppRequest(GenerationRequest[ChatPayload]):
    """The fields of both generation requests; ``logprobs`` is another name of ``n_probs`` there."""

    logprobs = Field(Integer(0, MOST_PROBABILITIES))
    response_fields = Field(Array(Text(1, 256), 0, MOST_FIELDS))


class LlamaCppCompletionRequest(LlamaCppRequest):
    """``POST /completion``."""

    EXAMPLE: ClassVar[ChatPayload] = {"prompt": "Once upon a time", "n_predict": 20}

    prompt = Field(_PROMPT_OR_PROMPTS, required=True)

    @validates_schema
    def _choices_need_a_prompt(self, data: ChatPayload, **_options: object) -> None:
        refuse_choices_of_empty_prompt(data)


class InfillRequest(LlamaCppRequest):
    """``POST /infill``."""

    EXAMPLE: ClassVar[ChatPayload] = {"input_prefix": "def add(", "input_suffix": "return a + b", "n_predict": 20}

    input_prefix = Field(_TEXT_OR_TOKENS, required=True)
    input_suffix = Field(_TEXT_OR_TOKENS, required=True)
    input_extra = Field(Array(_EXTRA_FILE, 0, MOST_EXTRAS))
    prompt = Field(Text())


class PassthroughRequest(RequestSchema[JsonObject]):
    """The base of questions that the model server answers."""

    class Meta:
        unknown = INCLUDE

    model = Field(MODEL)


class TokenizeRequest(PassthroughRequest):
    """``POST /tokenize``."""

    EXAMPLE: ClassVar[JsonObject] = {"content": "Hello, how are you?"}

    content = Field(_TO_TOKENIZE, required=True)
    add_special = Field(Boolean())
    parse_special = Field(Boolean())
    with_pieces = Field(Boolean())


class DetokenizeRequest(PassthroughRequest):
    """``POST /detokenize``."""

    EXAMPLE: ClassVar[JsonObject] = {"tokens": [1, 2, 3]}

    tokens = Field(Array(TOKEN, 0, MOST_DETOKENIZED), required=True)


class SlotFileRequest(PassthroughRequest):
    """``POST /slots/{id}?action=save`` and ``restore``."""

    filename = Field(_SLOT_FILE, required=True)


class AnyObject(PassthroughRequest):
    """An object of which nothing is known."""

    EXAMPLE: ClassVar[JsonObject] = {}


class Adapter(TypedDict):
    """A LoRA adapter by its number, and its scale."""

    id: int
    scale: float


class _AdaptersPayload(TypedDict):
    adapters: list[Adapter]


class _Adapters(RequestSchema[_AdaptersPayload]):
    adapters = Field(ADAPTERS, required=True)


def load_adapters(body: object) -> list[Adapter]:
    """Load the array of ``POST /lora-adapters``, ``[{"id", "scale"}]``. Raises InvalidRequest."""
    if not isinstance(body, list):
        raise InvalidRequest("Invalid request: expected a JSON array as the body.", code="invalid_type")
    try:
        return load(_Adapters(), {"adapters": body})["adapters"]
    except InvalidRequest as error:
        raise _in_bare_array(error) from error


def _in_bare_array(error: InvalidRequest) -> InvalidRequest:
    """Return the refusal of an element as one whose path begins with its index: the array has no name."""
    path = (error.param or "").removeprefix("adapters")
    message = error.message.replace(f"'{error.param}'", f"'{path}'") if path else error.message
    return InvalidRequest(message, code=error.code, param=path or None)


# With ``response_fields`` a completion has only the fields that were asked for.
COMPLETION = Component(
    "LlamaCppCompletion",
    Object(optional(index=Integer(), content=Text(), tokens=Array(Integer()), stop=Boolean(), model=Text())),
)
COMPLETIONS = Component("LlamaCppCompletions", AnyOf(COMPLETION, Array(COMPLETION)))
_TOKEN_WITH_PIECE = Object(required(id=Integer(), piece=ANYTHING))
TOKENS = Component("Tokens", Object(required(tokens=Array(AnyOf(Integer(), _TOKEN_WITH_PIECE)))))
DETOKENIZED = Component("Detokenized", Object(required(content=Text())))
FORMATTED_PROMPT = Component("Prompt", Object(required(prompt=Text())))
PROPERTIES = Component("Properties", Object())
SLOTS = Component("Slots", Array(Object()))
SLOT_ACTION = Component("SlotAction", Object(required(id_slot=Integer())))
ADAPTER_LIST = Component("Adapters", Array(Object()))
DONE = Component("Done", Object())
