"""Sampling fields shared by all generation requests.

llama.cpp's samplers, and the fields of its own that end or stall it where a client sets them.

Seen on its server: a parser (``chat_parser``) that names itself, or a trigger (``grammar_triggers``) of a type that
does not exist, ends the process, ``chat_format`` of an unknown number is a 500, and the sampler ``infill``, which
compares every two tokens it is given, takes minutes for a whole vocabulary while nobody else is answered.

The fields that chat and legacy completions share: OpenAI's sampling fields, and llama.cpp's own.

OpenAI's ranges are those of its OpenAPI description; llama.cpp's fields are in tools/server/README.md.
"""

from __future__ import annotations

import re
from typing import Any

from marshmallow import INCLUDE, Schema, fields, validates_schema

from mistral_api.wire.constraints import Grammar, JsonSchema
from mistral_api.wire.field_errors import refuse, refuse_type
from mistral_api.wire.fields import (
    Array,
    Boolean,
    CheckedField,
    Integer,
    Number,
    OneOf,
    Text,
    TextOrTexts,
    check_array,
    check_boolean,
    check_number,
    check_object,
    check_text,
)

MOST_SAMPLERS = 100
MOST_INFILL_TOKENS = 2000


class Samplers(CheckedField):
    """The names of the samplers, in their order."""

    def check(self, value: Any) -> None:
        """Refuse what is no array of strings, and ``infill`` before anything has left it fewer tokens."""
        check_array(value, 0, MOST_SAMPLERS)
        for index, name in enumerate(value):
            check_text(name, path=f"[{index}]")
            if name == "infill" and "top_k" not in value[:index]:
                refuse("invalid_value", "Invalid '{param}': 'infill' is only allowed after 'top_k'.", f"[{index}]")


def refuse_slow_infill(data: dict[str, Any]) -> None:
    """Refuse the sampler ``infill`` with a ``top_k`` that leaves it too many tokens."""
    if "infill" in data.get("samplers", ()) and not 0 < data.get("top_k", 1) <= MOST_INFILL_TOKENS:
        text = f"Invalid '{{param}}': expected 1 to {MOST_INFILL_TOKENS} together with the sampler 'infill'."
        refuse("invalid_value", text, field="top_k")


class ServerOwnedField(CheckedField):
    """A field that llama.cpp fills in itself, between its chat part and the rest."""

    def check(self, value: Any) -> None:
        """Refuse any value."""
        refuse("unsupported_value", "Unsupported parameter: '{param}' is for the model server's own use.")


SESSION_ID = re.compile(r"[A-Za-z0-9._:-]+")
SESSION_ID_LENGTH = 128
INT64 = (-(2**63), 2**63 - 1)
STOPS = 64
# llama.cpp allocates four bytes for each token it is to look back at, whatever the context holds.
LONGEST_LOOK_BACK = 2**20

# For each token: with the whole vocabulary an answer of 60 tokens is 280 MB, and two gigabytes of memory.
MOST_PROBABILITIES = 100


def valid_session_id(text: str) -> bool:
    """1-128 letters, digits, ``.``, ``_``, ``:`` or ``-``."""
    return len(text) <= SESSION_ID_LENGTH and SESSION_ID.fullmatch(text) is not None


class LogitBias(CheckedField):
    """OpenAI's object from token to bias, or llama.cpp's array of [token, bias]."""

    def check(self, value: Any) -> None:
        if isinstance(value, dict):
            for token, bias in value.items():
                _check_bias(token, bias)
        elif isinstance(value, list):
            for index, pair in enumerate(value):
                _check_pair(index, pair)
        else:
            refuse_type("an object", value)


def _check_bias(token: str, bias: Any) -> None:
    path = f".{token[:40]}"
    if not re.fullmatch(r"[0-9]{1,9}", token):
        refuse("invalid_value", "Invalid key in '{param}': expected a token id.", path)
    check_number(bias, -100, 100, path)


def _check_pair(index: int, pair: Any) -> None:
    path = f"[{index}]"
    if not isinstance(pair, list) or len(pair) != 2:
        refuse_type("an array of a token and a bias", pair, path)
    token, bias = pair
    if isinstance(token, bool) or not isinstance(token, int | str):
        refuse_type("a token id or a string", token, f"{path}[0]")
    if bias is not False:  # llama.cpp's way to say never
        check_number(bias, path=f"{path}[1]")


class StreamOptions(CheckedField):
    """``{"include_usage": bool, "include_obfuscation": bool}``."""

    def check(self, value: Any) -> None:
        check_object(value)
        for name in ("include_usage", "include_obfuscation"):
            if value.get(name) is not None:
                check_boolean(value[name], f".{name}")


class Metadata(CheckedField):
    """At most 16 pairs of strings; keys up to 64, values up to 512 characters."""

    def check(self, value: Any) -> None:
        check_object(value)
        if len(value) > 16:
            refuse("invalid_value", f"Invalid '{{param}}': too many pairs. Expected at most 16, but got {len(value)}.")
        for name, text in value.items():
            check_text(name, 1, 64, f".{name[:40]}")
            check_text(text, 0, 512, f".{name[:40]}")


class UseHistory(Boolean):
    """Only messages have a history."""

    def check(self, value: Any) -> None:
        """Refuse ``true``."""
        super().check(value)
        if value:
            refuse("not_supported", "'{param}' is for chat completions: nothing goes before this prompt.")


class Truncation(OneOf):
    """Only messages can be left out."""

    def check(self, value: Any) -> None:
        """Refuse ``auto``."""
        super().check(value)
        if value == "auto":
            refuse("not_supported", "'{param}' auto is for chat completions: this prompt is taken as it is.")


def refuse_endless(data: dict[str, Any], constraint: str) -> None:
    """Refuse ``ignore_eos`` with a constraint: past the end of its grammar llama.cpp answers 500."""
    if data.get("ignore_eos"):
        text = f"'{{param}}' cannot be true together with '{constraint}'."
        refuse("mutually_exclusive_parameters", text, field="ignore_eos")


def refuse_choices_of_nothing(data: dict[str, Any]) -> None:
    """Refuse several answers to an empty prompt: the second one waits in llama.cpp's slot for ever, seen on its server.

    ``prompt``: a string, tokens, an object with ``prompt_string``, or an array of these.
    """
    prompt = data.get("prompt")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    texts = [each.get("prompt_string") if isinstance(each, dict) else each for each in prompts]
    if data.get("n", 1) > 1 and any(text in ("", []) for text in texts):
        refuse("invalid_value", "'{param}' above 1 is only allowed with a prompt that is not empty.", field="n")


class GenerationRequest(Schema):
    """What every generation request may hold; unknown fields pass on to the model server."""

    class Meta:
        unknown = INCLUDE

    model = Text(1, 256)
    session_id = Text(1, SESSION_ID_LENGTH, SESSION_ID)
    use_history: fields.Field[Any] = UseHistory()
    truncation: fields.Field[Any] = Truncation("auto", "disabled")
    max_tokens = Integer(-1, 2**31 - 1)
    temperature = Number(0, 2)
    top_p = Number(0, 1)
    n = Integer(1, 128)
    stop = TextOrTexts(STOPS)
    seed = Integer(*INT64)
    presence_penalty = Number(-2, 2)
    frequency_penalty = Number(-2, 2)
    logit_bias = LogitBias()
    stream = Boolean()
    stream_options = StreamOptions()
    user = Text()
    metadata = Metadata()
    store = Boolean()

    # llama.cpp's own
    top_k = Integer(-1, 2**31 - 1)
    min_p = Number(0, 1)
    typical_p = Number(0, 1)
    top_n_sigma = Number()
    repeat_penalty = Number(0)
    repeat_last_n = Integer(-1, LONGEST_LOOK_BACK)
    mirostat = Integer(0, 2)
    mirostat_tau = Number(0)
    mirostat_eta = Number(0)
    dynatemp_range = Number(0)
    dynatemp_exponent = Number()
    xtc_probability = Number(0, 1)
    xtc_threshold = Number(0, 1)
    dry_multiplier = Number(0)
    dry_base = Number()
    dry_allowed_length = Integer(0, 2**31 - 1)
    dry_penalty_last_n = Integer(-1, LONGEST_LOOK_BACK)
    dry_sequence_breakers = Array(1, 64)
    n_predict = Integer(-1, 2**31 - 1)
    n_keep = Integer(-1, 2**31 - 1)
    n_probs = Integer(0, MOST_PROBABILITIES)
    min_keep = Integer(0, 2**31 - 1)
    n_indent = Integer(0, 2**31 - 1)
    t_max_predict_ms = Integer(-1, 2**31 - 1)
    id_slot = Integer(-1, 2**31 - 1)
    grammar = Grammar()
    json_schema = JsonSchema()
    reasoning_format = OneOf("none", "auto", "deepseek", "deepseek-legacy")
    ignore_eos = Boolean()
    cache_prompt = Boolean()
    return_tokens = Boolean()
    return_progress = Boolean()
    timings_per_token = Boolean()
    post_sampling_probs = Boolean()
    samplers = Samplers()
    lora = Array(0, 1000)
    chat_format = ServerOwnedField()
    chat_parser = ServerOwnedField()
    grammar_lazy = ServerOwnedField()
    grammar_triggers = ServerOwnedField()

    @validates_schema
    def _only_with_stream(self, data: dict[str, Any], **_options: Any) -> None:
        if data.get("stream_options") is not None and not data.get("stream"):
            refuse("invalid_value", "'{param}' is only allowed when 'stream' is true.", field="stream_options")

    @validates_schema
    def _infill_is_quick(self, data: dict[str, Any], **_options: Any) -> None:
        refuse_slow_infill(data)

    @validates_schema
    def _one_constraint(self, data: dict[str, Any], **_options: Any) -> None:
        grammar, schema = bool(data.get("grammar")), "json_schema" in data
        if grammar and schema:
            refuse(
                "mutually_exclusive_parameters", "'{param}' and 'grammar' cannot both be given.", field="json_schema"
            )
        if grammar or schema:
            refuse_endless(data, "grammar" if grammar else "json_schema")
