"""Which part of the client's request the model server refused: llama.cpp seldom says.

Its sentences are those of tools/server (server-common.cpp, server-task.cpp, server-context.cpp), common/chat.cpp and
common/json-schema-to-grammar.cpp. They speak of the request that we made of the client's, so the part is looked for in
the client's own body, in whichever API it asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from mistral_api.conversations.tool_items import is_json
from mistral_api.errors import InvalidRequest, ModelServerRefused
from mistral_api.generation.refused_schema import refused_constraint, refused_schema
from mistral_api.payload_types import JsonObject
from mistral_api.upstream.errors import UNSUPPORTED_INPUT, ContextExceeded, context_exceeded

# The types of parts that hold each kind of media, in all APIs.
_PART_TYPES = {
    "image": ("image_url", "image", "input_image"),
    "audio": ("input_audio",),
    "video": ("video_url", "input_video"),
}
_MEDIA_TYPES = tuple(kind for kinds in _PART_TYPES.values() for kind in kinds)
# The parts that no model behind llama.cpp takes (its words: "unsupported content[].type").
_NEVER_SUPPORTED = ("file", "input_file")
# The fields in which requests hold what the model reads, and those in which parts hold further parts.
_INPUTS = ("messages", "input", "prompt", "input_prefix", "input_suffix", "input_extra", "content", "tokens")
_CONTENTS = ("content", "output", "source", "prompt", "response")
_TOKEN_FIELDS = ("prompt", "input", "tokens", "input_prefix", "input_suffix", "content")
# What the fields of a chat completion, and of llama.cpp, are called elsewhere.
_OTHER_NAMES = {
    "messages": ("input", "prompt", "input_prefix"),
    "max_tokens": ("max_completion_tokens", "max_output_tokens", "n_predict"),
    "n_probs": ("top_logprobs", "logprobs"),
    "stop": ("stop_sequences",),
    "tools": ("functions",),
    "tool_choice": ("function_call",),
    "response_format": ("text.format", "output_config.format", "format"),
    "json_schema": ("response_format", "text.format", "output_config.format", "format"),
    "reasoning_effort": ("reasoning.effort", "output_config.effort"),
    "thinking_budget_tokens": ("thinking.budget_tokens",),
}
# The nouns of OpenAI's sentence on the length of the context.
_TOO_LONG = {"messages": "your messages", "input": "your input", "prompt": "your prompt"}


def name_refused_field(error: ModelServerRefused, body: object) -> None:
    """Complete a refusal with the part at fault in the client's own ``body``, as far as it can be told."""
    if not isinstance(body, dict):
        return
    if isinstance(error, ContextExceeded):
        _name_long_field(error, body)
    elif error.code == "invalid_json_schema":
        error.param = refused_schema(error.message, body)
    elif error.code == "unsupported_value" and UNSUPPORTED_INPUT.match(error.message):
        _name_unsupported_part(error, body)
    else:
        error.param = _path_in_message(error.message, body) or _own_name(error.param, body)


def _own_name(param: str | None, body: JsonObject) -> str | None:
    """Return a field that the model server named, as the client calls it; None where the client did not send it."""
    if param is None or re.split(r"[.\[]", param)[0] in body:
        return param
    return next((name for name in _OTHER_NAMES.get(param, ()) if _has(body, name)), None)


def _has(body: JsonObject, name: str) -> bool:
    value: Any = body
    for step in name.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value is not None


def _name_long_field(error: ContextExceeded, body: JsonObject) -> None:
    """Name the field that is too long. Several prompts are told apart by nothing that llama.cpp says."""
    if "[" in (error.param or ""):  # whoever asked knows which
        return
    field = next((name for name in _INPUTS if body.get(name) is not None), None)
    if field is None:
        return
    named = context_exceeded(error.limit, error.used, what=_TOO_LONG.get(field, f"'{field}'"), param=field)
    error.param, error.message = field, named.message


# Parts of content


def _parts(value: Any, path: str) -> Iterator[tuple[str, JsonObject]]:
    """Yield the parts of a message's content, or of an item, each with its path; also parts within parts."""
    for index, each in enumerate(value if isinstance(value, list) else ()):
        yield from _part(each, f"{path}[{index}]")


def _part(value: Any, path: str) -> Iterator[tuple[str, JsonObject]]:
    if not isinstance(value, dict):
        return
    yield path, value
    for name in _CONTENTS:
        inner = value.get(name)
        yield from _parts(inner, f"{path}.{name}") if isinstance(inner, list) else _part(inner, f"{path}.{name}")


def _parts_of_type(body: JsonObject, types: Collection[str]) -> list[tuple[str, JsonObject]]:
    found = (each for name in ("messages", "input") for each in _parts(body.get(name), name))
    return [(path, part) for path, part in found if part.get("type") in types]


def _name_unsupported_part(error: ModelServerRefused, body: JsonObject) -> None:
    kind = UNSUPPORTED_INPUT.match(error.message)
    types = _PART_TYPES[kind[1]] if kind and kind[1] else _NEVER_SUPPORTED
    images = next(_ollama_images(body), None)
    if images is not None:
        error.param, error.message = images, f"Unsupported value for '{images}': the model served takes no images."
        return
    found = _parts_of_type(body, types)
    if not found:  # it is a part of the history
        error.param = _own_name("messages", body)
        return
    path, part = found[0]
    error.param = path
    error.message = f"Unsupported value for '{path}': the model served takes no parts of type '{part['type']}'."


def _ollama_images(body: JsonObject) -> Iterator[str]:
    """Yield the path of each list of images in a request of Ollama's API."""
    if body.get("images"):
        yield "images"
    for path, message in _objects(body.get("messages"), "messages"):
        if message.get("images"):
            yield f"{path}.images"


def _only_media(_message: re.Match[str], body: JsonObject) -> str | None:
    """Return the path of an image or a sound that cannot be read: it is known where there is no other."""
    found = _parts_of_type(body, _MEDIA_TYPES)
    return found[0][0] if len(found) == 1 else _own_name("messages", body)


def _unreadable_arguments(_message: re.Match[str], body: JsonObject) -> str | None:
    """Return the path of the arguments of a tool call that are no JSON."""
    written = ((path, arguments) for path, arguments in _call_arguments(body) if isinstance(arguments, str))
    return next((path for path, text in written if not is_json(text)), None) or _own_name("messages", body)


def _call_arguments(body: JsonObject) -> Iterator[tuple[str, object]]:
    """Yield the arguments of each call of a function, with their path. Ollama's clients send objects, or none."""
    for path, message in _objects(body.get("messages"), "messages"):
        for of_call, call in _objects(message.get("tool_calls"), f"{path}.tool_calls"):
            function = call.get("function")
            if isinstance(function, dict):
                yield f"{of_call}.function.arguments", function.get("arguments")
    for path, item in _objects(body.get("input"), "input"):
        if item.get("type") == "function_call":
            yield f"{path}.arguments", item.get("arguments")


def _objects(value: object, path: str) -> Iterator[tuple[str, JsonObject]]:
    """Yield the objects of an array, each with its path."""
    for index, each in enumerate(value if isinstance(value, list) else ()):
        if isinstance(each, dict):
            yield f"{path}[{index}]", each


# Tokens


def unknown_token(body: JsonObject) -> str | None:
    """Return the path of a token that is not in the vocabulary, where one is not: then the largest is not."""
    numbers = [each for name in _TOKEN_FIELDS for each in _integers(body.get(name), name)]
    return max(numbers, key=lambda found: found[1])[0] if numbers else _own_name("messages", body)


def unknown_token_refusal(param: str) -> InvalidRequest:
    """Return the refusal of a token, by its path."""
    return InvalidRequest(f"Invalid '{param}': the model served has no such token.", code="invalid_value", param=param)


def _unknown_token(_message: re.Match[str], body: JsonObject) -> str | None:
    return unknown_token(body)


def _integers(value: Any, path: str) -> Iterator[tuple[str, int]]:
    for index, each in enumerate(value if isinstance(value, list) else ()):
        if isinstance(each, list):
            yield from _integers(each, f"{path}[{index}]")
        elif isinstance(each, int):
            yield f"{path}[{index}]", each


# Sentences of llama.cpp


def _template_argument(message: re.Match[str], body: JsonObject) -> str | None:
    name = message[1]
    return f"chat_template_kwargs.{name}" if _has(body, f"chat_template_kwargs.{name}") else None


def _field(name: str) -> Callable[[re.Match[str], JsonObject], str | None]:
    return lambda _message, body: _own_name(name, body)


def _media_in_prompt(_message: re.Match[str], body: JsonObject) -> str | None:
    prompts = body.get("prompt")
    found = [*_part(prompts, "prompt"), *_parts(prompts, "prompt")]
    return next((f"{path}.multimodal_data" for path, part in found if "multimodal_data" in part), None)


def _last_message(_message: re.Match[str], body: JsonObject) -> str | None:
    field = _own_name("messages", body)
    messages = body.get(field or "")
    return f"{field}[{len(messages) - 1}]" if isinstance(messages, list) and messages else field


# In a message of llama.cpp: which part of the request it is about.
_SENTENCES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], JsonObject], str | None]], ...] = tuple(
    (re.compile(pattern), locate)
    for pattern, locate in (
        (r"contains invalid tokens|[Ii]nvalid token", _unknown_token),
        (r"invalid type for \"(\w+)\"", _template_argument),
        (r"Failed to load (?:image|audio)|[Ff]ailed to decode (?:image|audio)|Invalid (?:url|base64)", _only_media),
        (r"Multimodal data provided|multimodal_data", _media_in_prompt),
        (r"Failed to parse tool call arguments", _unreadable_arguments),
        (r"Failed to parse tools", _field("tools")),
        (r"Failed to parse messages", _field("messages")),
        (r"continue_final_message|Cannot continue an assistant message", _field("continue_final_message")),
        (r"2 or more assistant messages at the end", _last_message),
        (r"[Gg]rammar", lambda _message, body: refused_constraint(body)),
        (r"multiple aLoRAs|'lora'", _field("lora")),
        (r"dry_sequence_breakers", _field("dry_sequence_breakers")),
        (r"is not supported by this model", lambda _message, _body: "model"),
    )
)


def _path_in_message(message: str, body: JsonObject) -> str | None:
    for pattern, locate in _SENTENCES:
        found = pattern.search(message)
        if found is not None:
            return locate(found, body)
    return None
