"""Which field of the client's request the model server refused: llama.cpp does not say."""

from __future__ import annotations

from typing import Any

from mistral_api.errors import ModelServerRefused
from mistral_api.payload_types import JsonObject
from mistral_api.upstream.errors import UNSUPPORTED_INPUT

_PART_TYPES = {"image": ("image_url", "image"), "audio": ("input_audio",), "video": ("video_url", "input_video")}
# The parts that no model behind llama.cpp takes (its words: "unsupported content[].type").
_NEVER_SUPPORTED = ("file", "refusal")
# The fields that hold the schema of an answer, in OpenAI's requests, llama.cpp's and Anthropic's.
_SCHEMA_FIELDS = ("response_format", "json_schema", "output_config")


def name_refused_field(error: ModelServerRefused, body: JsonObject, *, forced: bool) -> None:
    """Complete a refusal with the field at fault in the client's own ``body``.

    ``forced``: the request forced a tool call, so that a refused schema is that of the tools.
    """
    if error.code == "invalid_json_schema":
        present = () if forced else (name for name in _SCHEMA_FIELDS if body.get(name) is not None)
        error.param = next(iter(present), "tools")
    if error.code == "unsupported_value" and "messages" in body:
        _name_refused_part(error, body["messages"])


def _name_refused_part(error: ModelServerRefused, messages: list[Any]) -> None:
    found_kind = UNSUPPORTED_INPUT.match(error.message)
    types = _PART_TYPES[found_kind[1]] if found_kind and found_kind[1] else _NEVER_SUPPORTED
    found = _first_part(messages, types)
    if found is not None:
        error.param, part_type = found
        error.message = f"Unsupported value for '{error.param}': the model served takes no parts of type '{part_type}'."


def _first_part(messages: list[Any], types: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the path and the type of the first part of one of these types."""
    for number, message in enumerate(messages):
        content = message.get("content")
        for index, part in enumerate(content if isinstance(content, list) else ()):
            if part["type"] in types:
                return f"messages[{number}].content[{index}]", str(part["type"])
    return None
