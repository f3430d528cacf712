"""Input items, as the Conversations and Responses APIs take them (OpenAI's ``InputItem``).

Checked by plain functions, as messages are. Unknown fields of an item do no harm: clients send back the items
that they were given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mistral_api.schemas.fields import CheckedField, check_array, check_choice, check_object, check_text
from mistral_api.schemas.issues import quote_name, refuse, refuse_value
from mistral_api.schemas.item_parts import ASSISTANT_PARTS, INPUT_PARTS, check_content, require

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
