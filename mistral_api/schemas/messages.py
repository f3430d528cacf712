"""The messages of a chat: roles, content and parts (OpenAI's ChatCompletionRequestMessage).

Checked by plain functions: a schema object for each of a thousand messages would be most of a request's time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mistral_api.schemas.fields import Checked, check_array, check_choice, check_object, check_text
from mistral_api.schemas.issues import quoted, refuse_missing, refuse_type, refuse_value

MOST_MESSAGES = 10_000
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
    if not isinstance(kind, str) or kind not in _PARTS:
        refuse_value(quoted(tuple(_PARTS)), kind, f"{path}.type")
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
        if "function" not in call:
            refuse_missing(f"{where}.function")
        check_object(call["function"], f"{where}.function")
        for name in ("name", "arguments"):
            if name not in call["function"]:
                refuse_missing(f"{where}.function.{name}")
            check_text(call["function"][name], path=f"{where}.function.{name}")


def check_message(message: Any, path: str) -> None:
    """Refuse what is no message."""
    check_object(message, path)
    if "role" not in message:
        refuse_missing(f"{path}.role")
    role = message["role"]
    check_choice(role, ROLES, f"{path}.role")
    _check_content(message, path)
    for name in ("name", "refusal", "reasoning_content"):
        if message.get(name) is not None:
            check_text(message[name], path=f"{path}.{name}")
    if role == "assistant" and message.get("tool_calls") is not None:
        _check_tool_calls(message["tool_calls"], f"{path}.tool_calls")
    if role == "tool":
        if message.get("tool_call_id") is None:
            refuse_missing(f"{path}.tool_call_id")
        check_text(message["tool_call_id"], path=f"{path}.tool_call_id")


class Messages(Checked):
    """The messages, at least one."""

    def check(self, value: Any) -> None:
        """Refuse the first message that is wrong."""
        check_array(value, 1, MOST_MESSAGES)
        for index, message in enumerate(value):
            check_message(message, f"[{index}]")
