"""The fields that chat and legacy completions share: OpenAI's sampling fields, and llama.cpp's own.

OpenAI's ranges are those of its OpenAPI description; llama.cpp's fields are in tools/server/README.md.
"""

from __future__ import annotations

import re
from typing import Any

from marshmallow import INCLUDE, Schema, validates_schema

from mistral_api.schemas.fields import (
    Array,
    Boolean,
    Checked,
    Integer,
    Number,
    Object,
    Text,
    TextOrArray,
    check_bounds,
    check_object,
    check_text,
)
from mistral_api.schemas.issues import refuse, refuse_type

SESSION_ID = re.compile(r"[A-Za-z0-9._:-]+")
SESSION_ID_LENGTH = 128
INT64 = (-(2**63), 2**63 - 1)
STOPS = 64


def valid_session_id(text: str) -> bool:
    """1-128 letters, digits, ``.``, ``_``, ``:`` or ``-``."""
    return len(text) <= SESSION_ID_LENGTH and SESSION_ID.fullmatch(text) is not None


class LogitBias(Checked):
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
    if not re.fullmatch(r"\d{1,9}", token):
        refuse("invalid_value", "Invalid key in '{param}': expected a token id.", path)
    if isinstance(bias, bool) or not isinstance(bias, int | float):
        refuse_type("a decimal", bias, path)
    check_bounds(bias, -100, 100, "decimal", path)


def _check_pair(index: int, pair: Any) -> None:
    path = f"[{index}]"
    if not isinstance(pair, list) or len(pair) != 2:
        refuse_type("an array of a token and a bias", pair, path)
    token, bias = pair
    if isinstance(token, bool) or not isinstance(token, int | str):
        refuse_type("a token id or a string", token, f"{path}[0]")
    if not isinstance(bias, bool | int | float):
        refuse_type("a decimal or false", bias, f"{path}[1]")


class StreamOptions(Checked):
    """``{"include_usage": bool, "include_obfuscation": bool}``."""

    def check(self, value: Any) -> None:
        check_object(value)
        for name in ("include_usage", "include_obfuscation"):
            if value.get(name) is not None and not isinstance(value[name], bool):
                refuse_type("a boolean", value[name], f".{name}")


class Metadata(Checked):
    """At most 16 pairs of strings; keys up to 64, values up to 512 characters."""

    def check(self, value: Any) -> None:
        check_object(value)
        if len(value) > 16:
            refuse("invalid_value", f"Invalid '{{param}}': too many pairs. Expected at most 16, but got {len(value)}.")
        for name, text in value.items():
            check_text(name, 1, 64, f".{name[:40]}")
            check_text(text, 0, 512, f".{name[:40]}")


class UseHistory(Boolean):
    """Not supported yet: better refused than ignored."""

    def check(self, value: Any) -> None:
        super().check(value)
        if value:
            refuse("not_supported", "'{param}' is not supported yet; send the earlier messages yourself.")


class GenerationRequest(Schema):
    """What every generation request may hold; unknown fields pass on to the model server."""

    class Meta:
        unknown = INCLUDE

    model = Text(1, 256)
    session_id = Text(1, SESSION_ID_LENGTH, SESSION_ID)
    use_history = UseHistory()
    max_tokens = Integer(-1, 2**31 - 1)
    temperature = Number(0, 2)
    top_p = Number(0, 1)
    n = Integer(1, 128)
    stop = TextOrArray(STOPS)
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
    repeat_last_n = Integer(-1, 2**31 - 1)
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
    dry_penalty_last_n = Integer(-1, 2**31 - 1)
    dry_sequence_breakers = Array(0, 1000)
    n_predict = Integer(-1, 2**31 - 1)
    n_keep = Integer(-1, 2**31 - 1)
    n_probs = Integer(0, 2**31 - 1)
    min_keep = Integer(0, 2**31 - 1)
    n_indent = Integer(0, 2**31 - 1)
    t_max_predict_ms = Integer(-1, 2**31 - 1)
    id_slot = Integer(-1, 2**31 - 1)
    grammar = Text()
    json_schema = Object()
    ignore_eos = Boolean()
    cache_prompt = Boolean()
    return_tokens = Boolean()
    return_progress = Boolean()
    timings_per_token = Boolean()
    post_sampling_probs = Boolean()
    samplers = Array(0, 100)
    lora = Array(0, 1000)

    @validates_schema
    def _only_with_stream(self, data: dict[str, Any], **_options: Any) -> None:
        if data.get("stream_options") is not None and not data.get("stream"):
            refuse("invalid_value", "'{param}' is only allowed when 'stream' is true.", field="stream_options")
