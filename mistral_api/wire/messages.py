"""The messages of a chat: roles, content and parts (OpenAI's ChatCompletionRequestMessage).

Checked by plain functions: a schema object for each of a thousand messages would be most of a request's time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mistral_api.wire.field_errors import refuse_missing, refuse_type
from mistral_api.wire.fields import CheckedField, check_array, check_choice, check_object, check_text, without_nulls

MOST_MESSAGES = 10_000
# llama.cpp reads these in messages of every role, and answers 500 where one is no string.
_TEXTS = ("name", "refusal", "reasoning_content", "tool_call_id")
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def _check_url(part: dict[str, Any], name: str, path: str) -> None:
    if name not in part:
        refuse_missing(f"{path}.{name}")
    value = part[name]
    check_object(value, f"{path}.{name}")
    if "url" not in value:
        refuse_missing(f"{path}.{name}.url")
    check_text(value["url"], 1, path=f"{path}.{name}.url")
    if value.get("detail") is not None:
        check_choice(value["detail"], ("auto", "low", "high"), f"{path}.{name}.detail")


def _check_words(part: dict[str, Any], name: str, path: str) -> None:
    if name not in part:
        refuse_missing(f"{path}.{name}")
    check_text(part[name], path=f"{path}.{name}")


def _check_audio(part: dict[str, Any], name: str, path: str) -> None:
    if name not in part:
        refuse_missing(f"{path}.{name}")
    check_object(part[name], f"{path}.{name}")
    for field in ("data", "format"):
        if field not in part[name]:
            refuse_missing(f"{path}.{name}.{field}")
        check_text(part[name][field], 1, path=f"{path}.{name}.{field}")


def _check_file(part: dict[str, Any], name: str, path: str) -> None:
    if name not in part:
        refuse_missing(f"{path}.{name}")
    check_object(part[name], f"{path}.{name}")


# A part's type is also the name of the field that carries it.
_PARTS: dict[str, Callable[[dict[str, Any], str, str], None]] = {
    "text": _check_words,
    "refusal": _check_words,
    "image_url": _check_url,
    "video_url": _check_url,
    "input_audio": _check_audio,
    "input_video": _check_file,
    "file": _check_file,
}


def _check_part(part: Any, path: str) -> None:
    check_object(part, path)
    if "type" not in part:
        refuse_missing(f"{path}.type")
    kind = part["type"]
    check_choice(kind, tuple(_PARTS), f"{path}.type")
    _PARTS[kind](part, kind, path)


def _check_content(message: dict[str, Any], path: str) -> None:
    """A string, or parts; an assistant that calls tools may have said nothing."""
    content = message.get("content")
    if isinstance(content, str):
        return
    if isinstance(content, list):
        check_array(content, 1, path=f"{path}.content")
        for index, part in enumerate(content):
            _check_part(part, f"{path}.content[{index}]")
        return
    if content is not None:
        refuse_type("a string or an array of parts", content, f"{path}.content")
    may_be_silent = message["role"] == "assistant" and any(
        message.get(name) for name in ("tool_calls", "function_call", "refusal", "reasoning_content")
    )
    if not may_be_silent:
        refuse_missing(f"{path}.content")


def _check_tool_calls(calls: Any, path: str) -> None:
    check_array(calls, 0, path=path)
    for index, call in enumerate(calls):
        where = f"{path}[{index}]"
        check_object(call, where)
        if call.get("id") is not None:
            check_text(call["id"], path=f"{where}.id")
        for name in ("type", "function"):
            if name not in call:
                refuse_missing(f"{where}.{name}")
        check_choice(call["type"], ("function",), f"{where}.type")
        _check_call(call["function"], f"{where}.function")


def _check_call(call: Any, path: str) -> None:
    check_object(call, path)
    for name in ("name", "arguments"):
        if name not in call:
            refuse_missing(f"{path}.{name}")
        check_text(call[name], path=f"{path}.{name}")


def check_message(message: Any, path: str) -> None:
    """Refuse what is no message."""
    check_object(message, path)
    if "role" not in message:
        refuse_missing(f"{path}.role")
    check_choice(message["role"], ROLES, f"{path}.role")
    _check_content(message, path)
    for name in _TEXTS:
        if message.get(name) is not None:
            check_text(message[name], path=f"{path}.{name}")
    if message.get("tool_calls") is not None:
        _check_tool_calls(message["tool_calls"], f"{path}.tool_calls")
    if message.get("function_call") is not None:
        _check_call(message["function_call"], f"{path}.function_call")
    if message["role"] == "tool" and message.get("tool_call_id") is None:
        refuse_missing(f"{path}.tool_call_id")


def _present(message: dict[str, Any]) -> dict[str, Any]:
    """The message without nulls; a null content says that a message of tool calls has none."""
    present = without_nulls(message, keep="content")
    if "tool_calls" in present:
        present["tool_calls"] = [without_nulls(call) for call in present["tool_calls"]]
    return present


class Messages(CheckedField):
    """The messages, at least one; what is null in them counts as absent, as SDKs replay it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return [_present(message) for message in super()._deserialize(value, attr, data, **kwargs)]

    def check(self, value: Any) -> None:
        """Refuse the first message that is wrong."""
        check_array(value, 1, MOST_MESSAGES)
        for index, message in enumerate(value):
            check_message(message, f"[{index}]")
