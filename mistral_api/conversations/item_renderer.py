"""From chat messages to items, in the form of OpenAI's ``ConversationItem`` and ``ResponseItem``.

A message is one item or several: its reasoning, its text, each of its function calls. The id of an item is made from
the id of its message, so items need no table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from mistral_api.conversations.item_parser import input_parts, output_parts, output_text
from mistral_api.conversations.tool_items import (
    APPLY_PATCH_OUTPUT,
    CUSTOM_CALL,
    FUNCTION_CALL,
    FUNCTION_OUTPUT,
    LOCAL_SHELL_OUTPUT,
    TOOL_SEARCH_OUTPUT,
    call_item,
    call_type,
    message_item_type,
    output_fields,
    read_json_object,
)
from mistral_api.errors import InvalidRequest
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ChatMessage, ToolCall
from mistral_api.payload_types.responses import Item, ItemPart, MessageItem, OutputItem, ReasoningItem
from mistral_api.wire.field_errors import quote_value
from mistral_api.wire.pagination import Page, list_body

# The prefixes of ids by the types of items; only a call is one of several of its message.
_CALL_PREFIXES = {
    FUNCTION_CALL: "fc",
    CUSTOM_CALL: "ctc",
    "shell_call": "sh",
    "local_shell_call": "lsh",
    "apply_patch_call": "apc",
    "tool_search_call": "tsc",
}
_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    FUNCTION_OUTPUT: "fco",
    "custom_tool_call_output": "ctco",
    "shell_call_output": "sho",
    LOCAL_SHELL_OUTPUT: "lsho",
    APPLY_PATCH_OUTPUT: "apco",
    TOOL_SEARCH_OUTPUT: "tso",
    "additional_tools": "at",
    "agent_message": "amsg",
}
_TYPES = {prefix: kind for kind, prefix in (_PREFIXES | _CALL_PREFIXES).items()}
_ID_FORM = re.compile(
    rf"(?P<prefix>{'|'.join(_TYPES)})_(?P<message>[0-9a-f]{{32}})(?:_(?P<number>0|[1-9][0-9]{{0,5}}))?"
)


@dataclass(frozen=True, slots=True)
class ItemIds:
    """The ids of the items of one stored message."""

    message_id: UUID

    @property
    def message(self) -> str:
        """The id of the message item."""
        return f"msg_{self.message_id.hex}"

    @property
    def reasoning(self) -> str:
        """The id of the reasoning that precedes it."""
        return f"rs_{self.message_id.hex}"

    def of(self, kind: str) -> str:
        """Return the id of an item of this type that is the whole message, such as the output of a tool."""
        return f"{_PREFIXES[kind]}_{self.message_id.hex}"

    def call(self, number: int, kind: str = FUNCTION_CALL) -> str:
        """Return the id of one of its calls of tools, counted from 0; ``kind``: the type of the call's item."""
        return f"{_CALL_PREFIXES[kind]}_{self.message_id.hex}_{number}"


@dataclass(frozen=True, slots=True)
class ItemId:
    """An item's id, read: the ``type`` of the item, its message, and which call of the message it is."""

    type: str
    message_id: UUID
    call_number: int = 0

    @property
    def is_call(self) -> bool:
        """Whether it is the call of a tool."""
        return self.type in _CALL_PREFIXES


def parse_item_id(text: str, param: str = "item_id") -> ItemId:
    """Read an item's id. Raises InvalidRequest (``invalid_value``), which names ``param``, for one of another form."""
    form = _ID_FORM.fullmatch(text)
    if form is None or (form["number"] is None) == (form["prefix"] in _CALL_PREFIXES.values()):
        raise InvalidRequest(
            f"Invalid '{param}': '{quote_value(text)}'. Expected the id of an item, which begins with "
            "'msg_', 'rs_', 'fc_', 'fco_' or another prefix that this server gives.",
            code="invalid_value",
            param=param,
        )
    return ItemId(_TYPES[form["prefix"]], UUID(hex=form["message"]), int(form["number"] or 0))


def message_to_items(message_id: UUID, message: ChatMessage, status: str = "completed") -> list[Item]:
    """Return the items of a chat message, at least one: its reasoning, its text, its function calls.

    ``message`` holds ``role``, ``content`` and maybe ``tool_calls``, ``tool_call_id``, ``reasoning_content`` and
    ``refusal``. ``status`` is that of the items: ``completed``, ``incomplete`` or ``in_progress``.
    """
    ids, role = ItemIds(message_id), message["role"]
    if role in ("tool", "function"):
        return [_output_item(ids, message, status)]
    kind = message_item_type(message)
    tools = read_json_object(message.get("content")) if kind == "additional_tools" else None
    if tools is not None:
        return [_tools_item(ids, tools)]
    if kind == "agent_message":
        return [_agent_item(ids, message)]
    if role != "assistant":
        return [message_item(ids.message, role, input_parts(message.get("content")), status)]
    return list(assistant_items(message_id, message, status))


def assistant_items(message_id: UUID, message: ChatMessage, status: str = "completed") -> list[OutputItem]:
    """Return the items of a message of the assistant; the parameters are those of :func:`message_to_items`."""
    ids = ItemIds(message_id)
    items = _reasoning_items(ids, message, status)
    parts = output_parts(message.get("content"), message.get("refusal"))
    calls = _call_items(ids, message, status)
    if not parts and not items and not calls:
        parts = [output_text("")]
    if parts:
        items.append(message_item(ids.message, "assistant", parts, status))
    return items + calls


def item_list(items: Sequence[Item], has_more: bool) -> Page[Item]:
    """Return a page of items. The ids of an empty page are empty strings: OpenAI's schema allows no null."""
    return list_body(list(items), has_more, none="")


def message_item(item_id: str, role: str, parts: list[ItemPart], status: str) -> MessageItem:
    """Return a message as an item."""
    return {"id": item_id, "type": "message", "status": status, "role": role, "content": parts}


def reasoning_item(item_id: str, text: str, status: str) -> ReasoningItem:
    """Return the reasoning of a model as an item."""
    content: list[ItemPart] = [{"type": "reasoning_text", "text": text}]
    return {"id": item_id, "type": "reasoning", "status": status, "summary": [], "content": content}


def _reasoning_items(ids: ItemIds, message: ChatMessage, status: str) -> list[OutputItem]:
    text = message.get("reasoning_content")
    return [reasoning_item(ids.reasoning, text, status)] if text else []


def _output_item(ids: ItemIds, message: ChatMessage, status: str) -> Item:
    content, kind = message.get("content"), message_item_type(message) or FUNCTION_OUTPUT
    head = {
        "id": ids.of(kind),
        "type": kind,
        "status": status,
        # A message of the deprecated role "function" has no id of its call: the function's name connects the two.
        "call_id": message.get("tool_call_id") or message.get("name") or "",
    }
    fields = output_fields(message)
    if fields is None:
        fields = {"output": input_parts(content) if isinstance(content, list) else content or ""}
    return cast("Item", head | fields)


def _tools_item(ids: ItemIds, fields: JsonObject) -> Item:
    return cast("Item", {"id": ids.of("additional_tools"), "type": "additional_tools", "role": "developer"} | fields)


def _agent_item(ids: ItemIds, message: ChatMessage) -> Item:
    return {
        "id": ids.of("agent_message"),
        "type": "agent_message",
        "author": str(message.get("author", "")),
        "recipient": str(message.get("recipient", "")),
        "content": input_parts(message.get("content")),
    }


def _call_items(ids: ItemIds, message: ChatMessage, status: str) -> list[OutputItem]:
    calls = message.get("tool_calls") or []
    items: list[OutputItem] = []
    for number, call in zip(call_numbers(calls), calls, strict=True):
        call_id = call.get("id") or f"call_{ids.message_id.hex}_{number}"
        items.append(call_item(ids.call(number, call_type(call)), call_id, call, status))
    deprecated = message.get("function_call")
    if not items and isinstance(deprecated, dict):
        name, arguments = str(deprecated.get("name", "")), str(deprecated.get("arguments", ""))
        function: ToolCall = {"type": "function", "function": {"name": name, "arguments": arguments}}
        items.append(call_item(ids.call(0), name, function, status))
    return items


def call_numbers(calls: Sequence[ToolCall]) -> list[int]:
    """Return the numbers that stand in the ids of a message's function calls.

    They are the positions of the calls, or their ``index`` where a call before them was deleted.
    """
    numbers = [call.get("index") for call in calls]
    if len(set(numbers)) == len(numbers) and all(type(number) is int and 0 <= number < 10**6 for number in numbers):
        return [int(number) for number in numbers if number is not None]
    return list(range(len(calls)))
