"""Input items of Conversations and Responses.

The content of input items: a string, or parts (OpenAI's ``InputContent`` and ``OutputContent``).

Input items, as the Conversations and Responses APIs take them (OpenAI's ``InputItem``).

Checked by plain functions, as messages are. Unknown fields of an item do no harm: clients send back the items
that they were given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mistral_api.wire.field_errors import quote_name, refuse, refuse_missing, refuse_type, refuse_value
from mistral_api.wire.fields import CheckedField, check_array, check_choice, check_object, check_text

INPUT_PARTS = ("input_text", "input_image", "input_file", "input_audio")
ASSISTANT_PARTS = ("output_text", "refusal", *INPUT_PARTS)


def require(value: dict[str, Any], names: tuple[str, ...], path: str) -> None:
    """Refuse an object that lacks one of these fields, or has null for it."""
    for name in names:
        if value.get(name) is None:
            refuse_missing(f"{path}.{name}")


def check_content(content: Any, kinds: tuple[str, ...], path: str, low: int) -> None:
    """A string, or parts of these kinds."""
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        refuse_type("a string or an array of parts", content, path)
    check_array(content, low, path=path)
    for index, part in enumerate(content):
        where = f"{path}[{index}]"
        check_object(part, where)
        require(part, ("type",), where)
        check_choice(part["type"], kinds, f"{where}.type")
        _PARTS[part["type"]](part, where)


def _check_text_part(part: dict[str, Any], path: str) -> None:
    require(part, ("text",), path)
    check_text(part["text"], path=f"{path}.text")


def _check_refusal(part: dict[str, Any], path: str) -> None:
    require(part, ("refusal",), path)
    check_text(part["refusal"], path=f"{path}.refusal")


def _check_image(part: dict[str, Any], path: str) -> None:
    _refuse_file_id(part, path)
    require(part, ("image_url",), path)
    check_text(part["image_url"], 1, path=f"{path}.image_url")
    if part.get("detail") is not None:
        check_choice(part["detail"], ("low", "high", "auto", "original"), f"{path}.detail")


def _check_file(part: dict[str, Any], path: str) -> None:
    _refuse_file_id(part, path)
    for name in ("file_data", "file_url", "filename"):
        if part.get(name) is not None:
            check_text(part[name], 1, path=f"{path}.{name}")
    if part.get("file_data") is None and part.get("file_url") is None:
        refuse_missing(f"{path}.file_data")


def _check_audio(part: dict[str, Any], path: str) -> None:
    require(part, ("input_audio",), path)
    audio, where = part["input_audio"], f"{path}.input_audio"
    check_object(audio, where)
    require(audio, ("data", "format"), where)
    for name in ("data", "format"):
        check_text(audio[name], 1, path=f"{where}.{name}")


def _refuse_file_id(part: dict[str, Any], path: str) -> None:
    if part.get("file_id") is not None:
        text = "Unsupported value for '{param}': this server keeps no uploaded files; send the data itself, or a URL."
        refuse("unsupported_value", text, f"{path}.file_id")


_PARTS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "input_text": _check_text_part,
    "output_text": _check_text_part,
    "refusal": _check_refusal,
    "input_image": _check_image,
    "input_file": _check_file,
    "input_audio": _check_audio,
}


MOST_ITEMS = 10_000
# So many can be added to a conversation at once (OpenAI's description of POST /conversations/{id}/items).
MOST_ITEMS_ADDED = 20
ROLES = ("user", "assistant", "system", "developer")
_STATUSES = ("in_progress", "completed", "incomplete")
# Items of tools that OpenAI runs itself, or that no model served here can call.
_UNSUPPORTED = (
    "additional_tools", "apply_patch_call", "apply_patch_call_output", "code_interpreter_call", "compaction",
    "compaction_trigger", "computer_call", "computer_call_output", "configuration_update", "custom_tool_call",
    "custom_tool_call_output", "file_search_call", "image_generation_call", "local_shell_call",
    "local_shell_call_output", "mcp_approval_request", "mcp_approval_response", "mcp_call", "mcp_list_tools",
    "program", "program_output", "shell_call", "shell_call_output", "tool_search_call", "tool_search_output",
    "web_search_call",
)  # fmt: skip


def check_items(items: Any, low: int = 0, high: int = MOST_ITEMS) -> None:
    """Refuse what is no array of items; paths begin with ``[0]``."""
    check_array(items, low, high)
    for index, item in enumerate(items):
        _check_item(item, f"[{index}]")


class Items(CheckedField):
    """An array of input items."""

    def __init__(self, low: int = 0, high: int = MOST_ITEMS, **options: Any) -> None:
        super().__init__(**options)
        self.low, self.high = low, high

    def check(self, value: Any) -> None:
        """Refuse the first item that is wrong."""
        check_items(value, self.low, self.high)


def item_type(item: dict[str, Any]) -> str:
    """The type of an item that may leave it out: one with a role is a message, one with an id alone a reference."""
    if item.get("type") is not None:
        return str(item["type"])
    return "item_reference" if "id" in item and "role" not in item else "message"


def _check_item(item: Any, path: str) -> None:
    check_object(item, path)
    if item.get("type") is not None:
        _check_type(item["type"], f"{path}.type")
    if item.get("id") is not None:
        check_text(item["id"], 1, path=f"{path}.id")
    if item.get("status") is not None:
        check_choice(item["status"], _STATUSES, f"{path}.status")
    _ITEMS[item_type(item)](item, path)


def _check_type(kind: Any, path: str) -> None:
    check_text(kind, path=path)
    if kind in _UNSUPPORTED:
        text = (
            f"Unsupported value for '{{param}}': this server runs no hosted tools and takes no items of type "
            f"'{kind}'. Supported values are: {quote_name(tuple(_ITEMS))}."
        )
        refuse("unsupported_value", text, path)
    if kind not in _ITEMS:
        refuse_value(quote_name(tuple(_ITEMS)), kind, path)


def _check_message(item: dict[str, Any], path: str) -> None:
    require(item, ("role", "content"), path)
    check_choice(item["role"], ROLES, f"{path}.role")
    answer = item["role"] == "assistant"
    # An answer that was cut off at once is given back with no parts.
    check_content(item["content"], ASSISTANT_PARTS if answer else INPUT_PARTS, f"{path}.content", 0 if answer else 1)


def _check_call(item: dict[str, Any], path: str) -> None:
    require(item, ("call_id", "name", "arguments"), path)
    check_text(item["call_id"], 1, path=f"{path}.call_id")
    check_text(item["name"], 1, path=f"{path}.name")
    check_text(item["arguments"], path=f"{path}.arguments")


def _check_output(item: dict[str, Any], path: str) -> None:
    require(item, ("call_id", "output"), path)
    check_text(item["call_id"], 1, path=f"{path}.call_id")
    if item.get("name") is not None:
        check_text(item["name"], path=f"{path}.name")
    check_content(item["output"], INPUT_PARTS, f"{path}.output", 0)


def _check_reasoning(item: dict[str, Any], path: str) -> None:
    for name, kind in (("summary", "summary_text"), ("content", "reasoning_text")):
        parts = item.get(name)
        if parts is None:
            continue
        check_array(parts, path=f"{path}.{name}")
        for index, part in enumerate(parts):
            where = f"{path}.{name}[{index}]"
            check_object(part, where)
            require(part, ("type", "text"), where)
            check_choice(part["type"], (kind,), f"{where}.type")
            check_text(part["text"], path=f"{where}.text")


def _check_reference(item: dict[str, Any], path: str) -> None:
    require(item, ("id",), path)


_ITEMS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "message": _check_message,
    "function_call": _check_call,
    "function_call_output": _check_output,
    "reasoning": _check_reasoning,
    "item_reference": _check_reference,
}
