"""The sampling fields that all generation requests share: OpenAI's, and llama.cpp's own.

A new sampling field is one more line in :class:`GenerationRequest`.

OpenAI's ranges are those of its OpenAPI description; llama.cpp's fields are in tools/server/README.md. Some fields are
refused or bounded because of what was seen on llama.cpp's server. A parser (``chat_parser``) that names itself, or a
trigger (``grammar_triggers``) of a type that does not exist, ends the process. ``chat_format`` of an unknown number is
a 500. The sampler ``infill`` compares every two tokens it is given: for a whole vocabulary that takes minutes, and no
other request is answered meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from marshmallow import INCLUDE, missing, validates_schema

from mistral_api.payload_types import JsonObject, PayloadT
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.wire.constraints import GRAMMAR, JSON_SCHEMA
from mistral_api.wire.container_shapes import Array, Map, Object, Tuple, nullable, required
from mistral_api.wire.field_errors import refuse
from mistral_api.wire.request_schema import MODEL, Field, RequestSchema
from mistral_api.wire.shapes import (
    INT32_MAX,
    TOKEN,
    AnyOf,
    Boolean,
    Constant,
    Integer,
    Number,
    Shape,
    StringEnum,
    Text,
    check_at,
)

SESSION_ID = re.compile(r"[A-Za-z0-9._:-]+")
SESSION_ID_LENGTH = 128
INT64 = (-(2**63), 2**63 - 1)
STOPS = 64
STOP_CHARACTERS = 1024
# Each sampler may look at the whole vocabulary, for every token of every request.
MOST_SAMPLERS = 16
# Each one is compared with the whole vocabulary before the first token: 64 take llama.cpp half a second.
MOST_BREAKERS = 32
MOST_ADAPTERS = 100
# OpenAI has taken 300 (dottxt-ai/outlines, issue 99). 40 000 take llama.cpp 20 s.
MOST_BIASES = 1024
BIAS_CHARACTERS = 256
# Beyond all use, and within what a float of 32 bits can be multiplied by.
LARGEST = 1_000_000
MOST_INFILL_TOKENS = 2000
# llama.cpp allocates four bytes for each token that it may look back at, whatever the context holds.
LONGEST_LOOK_BACK = 2**20
# For each token: with the whole vocabulary a response of 60 tokens is 280 MB, and takes two gigabytes of memory.
MOST_PROBABILITIES = 100


def valid_session_id(text: str) -> bool:
    """Return whether a text is 1-128 letters, digits, ``.``, ``_``, ``:`` or ``-``."""
    return len(text) <= SESSION_ID_LENGTH and SESSION_ID.fullmatch(text) is not None


def _check_token_id(text: str) -> None:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        refuse("invalid_value", "Invalid key in '{param}': expected a token id.")


_TOKEN_OR_TEXT = AnyOf(Integer(), Text(0, BIAS_CHARACTERS), expected="a token id or a string")
# ``false`` is llama.cpp's way to say never.
_BIAS_OR_FALSE = AnyOf(
    Number(),
    Constant(False, "invalid_type", "Invalid type for '{param}': expected a decimal, but got a boolean instead."),
    expected="a decimal",
)
# OpenAI's object from token to bias, or llama.cpp's array of [token, bias].
_LOGIT_BIAS = AnyOf(
    Map(Shape(_check_token_id, {"pattern": "^[0-9]{1,9}$"}, str), Number(-100, 100), MOST_BIASES),
    Array(Tuple(_TOKEN_OR_TEXT, _BIAS_OR_FALSE, expected="an array of a token and a bias"), 0, MOST_BIASES),
    expected="an object",
)

_STREAM_OPTIONS = Object(nullable(include_usage=Boolean(), include_obfuscation=Boolean()))
METADATA = Map(Text(1, 64), Text(0, 512), most=16)


def _check_samplers(names: list[object]) -> None:
    for index, name in enumerate(names):
        check_at(f"[{index}]", _NAME.check, name)
        if name == "infill" and "top_k" not in names[:index]:
            refuse("invalid_value", "Invalid '{param}': 'infill' is only allowed after 'top_k'.", f"[{index}]")
        if name == "dry" and "dry" in names[:index]:
            refuse("invalid_value", "Invalid '{param}': 'dry' is only allowed once.", f"[{index}]")


_NAME = Text()
_NAMES = Array(_NAME, 0, MOST_SAMPLERS)
# A JSON schema can say that ``infill`` comes after ``top_k`` only where that is the first.
_SAMPLERS = (
    Array(high=MOST_SAMPLERS)
    .refined(_check_samplers)
    .with_schema(
        AnyOf(
            _NAMES.with_keywords(items={"type": "string", "not": {"const": "infill"}}),
            _NAMES.with_keywords(prefixItems=[{"const": "top_k"}], minItems=1),
        )
    )
)


def _refuse_any(_value: object) -> None:
    refuse("unsupported_value", "Unsupported parameter: '{param}' is for the model server's own use.")


# A field that llama.cpp fills in itself, between its chat part and the rest.
SERVER_OWNED = Shape(_refuse_any, {"not": {}, "description": "For the model server's own use."})


def _refuse_history(use_history: bool) -> None:
    if use_history:
        refuse("not_supported", "'{param}' is for chat completions: nothing goes before this prompt.")


def _refuse_truncation(truncation: str) -> None:
    if truncation == "auto":
        refuse("not_supported", "'{param}' auto is for chat completions: this prompt is taken as it is.")


# For requests without messages: only messages have a history, and only messages can be left out.
_NO_HISTORY = Boolean().refined(_refuse_history).with_schema({"const": False})
_NO_TRUNCATION = StringEnum("auto", "disabled").refined(_refuse_truncation).with_schema({"const": "disabled"})


def refuse_ignore_eos(data: Mapping[str, object], constraint: str) -> None:
    """Refuse ``ignore_eos`` with a constraint: past the end of its grammar llama.cpp answers 500."""
    if data.get("ignore_eos"):
        text = f"'{{param}}' cannot be true together with '{constraint}'."
        refuse("mutually_exclusive_parameters", text, field="ignore_eos")


def refuse_choices_of_empty_prompt(data: ChatPayload) -> None:
    """Refuse several choices for an empty prompt: the second waits in llama.cpp's slot for ever, seen on its server.

    ``prompt``: a string, tokens, an object with ``prompt_string``, or an array of these.
    """
    prompt = data.get("prompt")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    texts = [each.get("prompt_string") if isinstance(each, dict) else each for each in prompts]
    if data.get("n", 1) > 1 and any(text in ("", []) for text in texts):
        refuse("invalid_value", "'{param}' above 1 is only allowed with a prompt that is not empty.", field="n")


_STOP = Text(0, STOP_CHARACTERS)


def without_blank_stops(stop: str | list[str]) -> object:
    """Return what ends an answer without empty strings, which end nothing; ``missing`` for an empty string alone."""
    if isinstance(stop, str):
        return stop or missing
    return [each for each in stop if each]


# What ends an answer: a string, or an array of strings.
_STOPS = AnyOf(_STOP, Array(_STOP, 0, STOPS), expected="a string or an array of strings").converted(without_blank_stops)
ADAPTERS = Array(Object(required(id=TOKEN, scale=Number(-LARGEST, LARGEST))), 0, MOST_ADAPTERS)


class GenerationRequest(RequestSchema[PayloadT]):
    """The fields of every generation request.

    Unknown fields are dropped before the model server is asked, unless PASS_UNKNOWN_FIELDS says otherwise: see
    :mod:`mistral_api.wire.engine_fields`, where a new field of the model server's has to be named too.
    """

    class Meta:
        unknown = INCLUDE

    model = Field(MODEL)
    session_id = Field(Text(1, SESSION_ID_LENGTH, SESSION_ID))
    use_history = Field(_NO_HISTORY)
    truncation = Field(_NO_TRUNCATION)
    max_tokens = Field(Integer(-1, INT32_MAX))
    temperature = Field(Number(0, 2))
    top_p = Field(Number(0, 1))
    n = Field(Integer(1, 128))
    stop = Field(_STOPS)
    seed = Field(Integer(*INT64))
    presence_penalty = Field(Number(-2, 2))
    frequency_penalty = Field(Number(-2, 2))
    logit_bias = Field(_LOGIT_BIAS)
    stream = Field(Boolean())
    stream_options = Field(_STREAM_OPTIONS)
    user = Field(Text())
    metadata = Field(METADATA)
    store = Field(Boolean())

    # llama.cpp's own
    top_k = Field(Integer(-1, INT32_MAX))
    min_p = Field(Number(0, 1))
    typical_p = Field(Number(0, 1))
    top_n_sigma = Field(Number(-LARGEST, LARGEST))
    repeat_penalty = Field(Number(0, LARGEST))
    repeat_last_n = Field(Integer(-1, LONGEST_LOOK_BACK))
    mirostat = Field(Integer(0, 2))
    mirostat_tau = Field(Number(0, LARGEST))
    mirostat_eta = Field(Number(0, LARGEST))
    dynatemp_range = Field(Number(0, LARGEST))
    dynatemp_exponent = Field(Number(-LARGEST, LARGEST))
    xtc_probability = Field(Number(0, 1))
    xtc_threshold = Field(Number(0, 1))
    dry_multiplier = Field(Number(0, LARGEST))
    dry_base = Field(Number(-LARGEST, LARGEST))
    dry_allowed_length = Field(Integer(0, INT32_MAX))
    dry_penalty_last_n = Field(Integer(-1, LONGEST_LOOK_BACK))
    dry_sequence_breakers = Field(Array(Text(0, BIAS_CHARACTERS), 1, MOST_BREAKERS))
    adaptive_target = Field(Number(-1, 1))
    adaptive_decay = Field(Number(0, 0.99))
    backend_sampling = Field(Boolean())
    n_predict = Field(Integer(-1, INT32_MAX))
    n_keep = Field(Integer(-1, INT32_MAX))
    n_discard = Field(Integer(0, INT32_MAX))
    n_cache_reuse = Field(Integer(0, INT32_MAX))
    n_probs = Field(Integer(0, MOST_PROBABILITIES))
    min_keep = Field(Integer(0, INT32_MAX))
    n_indent = Field(Integer(0, INT32_MAX))
    t_max_predict_ms = Field(Integer(-1, INT32_MAX))
    id_slot = Field(Integer(-1, INT32_MAX))
    grammar = Field(GRAMMAR)
    json_schema = Field(JSON_SCHEMA.with_keywords(description="A JSON schema that some value can satisfy."))
    reasoning_format = Field(StringEnum("none", "auto", "deepseek", "deepseek-legacy"))
    reasoning_budget_tokens = Field(Integer(-1, INT32_MAX))
    reasoning_budget_message = Field(Text(0, STOP_CHARACTERS))
    parse_tool_calls = Field(Boolean())
    verbose = Field(Boolean())
    ignore_eos = Field(Boolean())
    cache_prompt = Field(Boolean())
    return_tokens = Field(Boolean())
    return_progress = Field(Boolean())
    timings_per_token = Field(Boolean())
    post_sampling_probs = Field(Boolean())
    samplers = Field(_SAMPLERS)
    lora = Field(ADAPTERS)
    chat_format = Field(SERVER_OWNED)
    chat_parser = Field(SERVER_OWNED)
    grammar_lazy = Field(SERVER_OWNED)
    grammar_triggers = Field(SERVER_OWNED)

    @validates_schema
    def _only_with_stream(self, data: JsonObject, **_options: object) -> None:
        if data.get("stream_options") is not None and not data.get("stream"):
            refuse("invalid_value", "'{param}' is only allowed when 'stream' is true.", field="stream_options")

    @validates_schema
    def _infill_is_quick(self, data: JsonObject, **_options: object) -> None:
        """Refuse the sampler ``infill`` with a ``top_k`` that leaves it too many tokens."""
        if "infill" in data.get("samplers", ()) and not 0 < data.get("top_k", 1) <= MOST_INFILL_TOKENS:
            text = f"Invalid '{{param}}': expected 1 to {MOST_INFILL_TOKENS} together with the sampler 'infill'."
            refuse("invalid_value", text, field="top_k")

    @validates_schema
    def _one_constraint(self, data: JsonObject, **_options: object) -> None:
        grammar, schema = bool(data.get("grammar")), "json_schema" in data
        if grammar and schema:
            text = "'{param}' and 'grammar' cannot both be given."
            refuse("mutually_exclusive_parameters", text, field="json_schema")
        if grammar or schema:
            refuse_ignore_eos(data, "grammar" if grammar else "json_schema")
