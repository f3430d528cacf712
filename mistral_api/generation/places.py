"""Where in the request it is what the model server refused: llama.cpp does not say."""

from __future__ import annotations

import re
from typing import Any

from mistral_api.errors import ModelServerRefused

_KIND = re.compile(r"(image|audio|video) input is not supported")
_KINDS = {"image": ("image_url", "image"), "audio": ("input_audio",), "video": ("video_url", "input_video")}
# What no model behind llama.cpp takes (its words: "unsupported content[].type").
_NEVER = ("file", "refusal")


# Where the schema of an answer stands, in OpenAI's requests, llama.cpp's and Anthropic's.
_SCHEMAS = ("response_format", "json_schema", "output_config")


def add_error_param(error: ModelServerRefused, body: dict[str, Any], *, forced: bool) -> None:
    """Complete a refusal with the place in the client's own ``body``; ``forced``: a schema that was refused is that
    of the tools."""
    if error.code == "invalid_json_schema":
        given = () if forced else (name for name in _SCHEMAS if body.get(name) is not None)
        error.param = next(iter(given), "tools")
    if error.code != "unsupported_value" or "messages" not in body:
        return
    kind = _KIND.match(error.message)
    types = _KINDS[kind[1]] if kind else _NEVER
    place = _first_part(body["messages"], types)
    if place is not None:
        error.param, found = place
        error.message = f"Unsupported value for '{error.param}': the model served takes no parts of type '{found}'."


def _first_part(messages: list[dict[str, Any]], types: tuple[str, ...]) -> tuple[str, str] | None:
    for number, message in enumerate(messages):
        content = message.get("content")
        for index, part in enumerate(content if isinstance(content, list) else ()):
            if part["type"] in types:
                return f"messages[{number}].content[{index}]", str(part["type"])
    return None
