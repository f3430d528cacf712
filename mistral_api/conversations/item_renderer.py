"""From chat messages to items, in the form of OpenAI's ``ConversationItem`` and ``ResponseItem``.

A message is one item or several: its reasoning, its text, each of its function calls. The id of an item is made from
the id of its message, so items need no table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from mistral_api.conversations.item_parser import input_parts, output_parts, output_text
from mistral_api.errors import InvalidRequest
from mistral_api.payload_types.chat import ChatMessage, ToolCall
from mistral_api.payload_types.responses import (
    FunctionCallItem,
    FunctionOutputItem,
    Item,
    ItemPart,
    MessageItem,
    OutputItem,
    ReasoningItem,
)
from mistral_api.wire.field_errors import quote_value
from mistral_api.wire.pagination import Page, list_body

_ID_FORM = re.compile(r"(?P<prefix>msg|rs|fco|fc)_(?P<message>[0-9a-f]{32})(?:_(?P<number>0|[1-9][0-9]{0,5}))?")
_TYPES = {
    "msg": "message",
    "rs": "reasoning",
    "fc": "function_call",
    "fco": "function_call_output",
}


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

    @property
    def output(self) -> str:
        """The id of a function's output, which is a message of the role ``tool``."""
        return f"fco_{self.message_id.hex}"

    def call(self, number: int) -> str:
        """Return the id of one of its function calls, counted from 0."""
        return f"fc_{self.message_id.hex}_{number}"


@dataclass(frozen=True, slots=True)
class ItemId:
    """An item's id, read: the ``type`` of the item, its message, and which function call of the message it is."""

    type: str
    message_id: UUID
    call_number: int = 0


def parse_item_id(text: str, param: str = "item_id") -> ItemId:
    """Read an item's id. Raises InvalidRequest (``invalid_value``), which names ``param``, for one of another form."""
    form = _ID_FORM.fullmatch(text)
    if form is None or (form["number"] is None) == (form["prefix"] == "fc"):
        raise InvalidRequest(
            f"Invalid '{param}': '{quote_value(text)}'. Expected the id of an item, which begins with "
            "'msg_', 'rs_', 'fc_' or 'fco_'.",
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


def call_item(item_id: str, call_id: str, name: str, arguments: str, status: str) -> FunctionCallItem:
    """Return a function call of a model as an item."""
    return {
        "id": item_id,
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def _reasoning_items(ids: ItemIds, message: ChatMessage, status: str) -> list[OutputItem]:
    text = message.get("reasoning_content")
    return [reasoning_item(ids.reasoning, text, status)] if text else []


def _output_item(ids: ItemIds, message: ChatMessage, status: str) -> FunctionOutputItem:
    content = message.get("content")
    return {
        "id": ids.output,
        "type": "function_call_output",
        "status": status,
        # A message of the deprecated role "function" has no id of its call: the function's name connects the two.
        "call_id": message.get("tool_call_id") or message.get("name") or "",
        "output": input_parts(content) if isinstance(content, list) else content or "",
    }


def _call_items(ids: ItemIds, message: ChatMessage, status: str) -> list[OutputItem]:
    calls = message.get("tool_calls") or []
    items: list[OutputItem] = []
    for number, call in zip(call_numbers(calls), calls, strict=True):
        item_id, function = ids.call(number), call.get("function") or {}
        call_id = call.get("id") or f"call_{ids.message_id.hex}_{number}"
        items.append(call_item(item_id, call_id, function.get("name", ""), function.get("arguments", ""), status))
    deprecated = message.get("function_call")
    if not items and isinstance(deprecated, dict):
        name, arguments = str(deprecated.get("name", "")), str(deprecated.get("arguments", ""))
        items.append(call_item(ids.call(0), name, name, arguments, status))
    return items


def call_numbers(calls: Sequence[ToolCall]) -> list[int]:
    """Return the numbers that stand in the ids of a message's function calls.

    They are the positions of the calls, or their ``index`` where a call before them was deleted.
    """
    numbers = [call.get("index") for call in calls]
    if len(set(numbers)) == len(numbers) and all(type(number) is int and 0 <= number < 10**6 for number in numbers):
        return [int(number) for number in numbers if number is not None]
    return list(range(len(calls)))
