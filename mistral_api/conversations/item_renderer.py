"""Chat messages to output items; item ids.

The ids of items: made from the id of the message they are a view of, so that they need no table.

From stored chat messages to items, in the form of OpenAI's ``ConversationItem`` and ``ResponseItem``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from mistral_api.conversations.item_parser import input_parts, output_parts, output_text
from mistral_api.errors import InvalidRequest
from mistral_api.wire.field_errors import quote_value
from mistral_api.wire.pagination import list_body
from mistral_api.wire.payload_types import Item

_FORM = re.compile(r"(?P<kind>msg|rs|fco|fc)_(?P<message>[0-9a-f]{32})(?:_(?P<number>0|[1-9][0-9]{0,5}))?")
_KINDS = {
    "msg": "message",
    "rs": "reasoning",
    "fc": "function_call",
    "fco": "function_call_output",
}


@dataclass(frozen=True, slots=True)
class ItemIds:
    """The ids of the items that one stored message can make."""

    message_id: UUID

    @property
    def message(self) -> str:
        """The message item."""
        return f"msg_{self.message_id.hex}"

    @property
    def reasoning(self) -> str:
        """The reasoning that came before it."""
        return f"rs_{self.message_id.hex}"

    @property
    def output(self) -> str:
        """The output of a function: a message of the role ``tool``."""
        return f"fco_{self.message_id.hex}"

    def call(self, number: int) -> str:
        """One of its function calls, counted from 0."""
        return f"fc_{self.message_id.hex}_{number}"


@dataclass(frozen=True, slots=True)
class ItemId:
    """What an item's id says: the ``type`` of the item, its message, and which function call of it."""

    type: str
    message_id: UUID
    call_number: int = 0


def item_ids(message_id: UUID) -> ItemIds:
    """The ids of a message's items."""
    return ItemIds(message_id)


def parse_item_id(text: str, param: str = "item_id") -> ItemId:
    """Read an item's id. Raises InvalidRequest (``invalid_value``) for what is none of ours."""
    form = _FORM.fullmatch(text)
    if form is None or (form["number"] is None) == (form["kind"] == "fc"):
        raise InvalidRequest(
            f"Invalid '{param}': '{quote_value(text)}'. Expected the id of an item, which begins with "
            "'msg_', 'rs_', 'fc_' or 'fco_'.",
            code="invalid_value",
            param=param,
        )
    return ItemId(_KINDS[form["kind"]], UUID(hex=form["message"]), int(form["number"] or 0))


def message_to_items(message_id: UUID, message: dict[str, Any], status: str = "completed") -> list[Item]:
    """The items of a chat message, at least one: its reasoning, what was said, its function calls.

    ``message`` holds ``role``, ``content`` and maybe ``tool_calls``, ``tool_call_id``, ``reasoning_content``
    and ``refusal``. ``status`` is that of the items: ``completed``, ``incomplete`` or ``in_progress``.
    """
    ids, role = item_ids(message_id), message["role"]
    if role in ("tool", "function"):
        return [_output_item(ids, message, status)]
    if role != "assistant":
        return [message_item(ids.message, role, input_parts(message.get("content")), status)]
    items = _reasoning_items(ids, message, status)
    parts = output_parts(message.get("content"), message.get("refusal"))
    calls = _call_items(ids, message, status)
    if not parts and not items and not calls:
        parts = [output_text("")]
    if parts:
        items.append(message_item(ids.message, role, parts, status))
    return items + calls


def item_list(items: Sequence[Item], has_more: bool) -> dict[str, Any]:
    """A page of items. The ids of an empty one are empty: OpenAI's schema requires strings."""
    return list_body(list(items), has_more, none="")


def message_item(item_id: str, role: str, parts: list[Item], status: str) -> Item:
    """A message item."""
    return {"id": item_id, "type": "message", "status": status, "role": role, "content": parts}


def reasoning_item(item_id: str, text: str, status: str) -> Item:
    """What a model thought."""
    content = [{"type": "reasoning_text", "text": text}]
    return {"id": item_id, "type": "reasoning", "status": status, "summary": [], "content": content}


def call_item(item_id: str, call_id: str, name: str, arguments: str, status: str) -> Item:
    """A function that a model called."""
    return {
        "id": item_id,
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def _reasoning_items(ids: ItemIds, message: dict[str, Any], status: str) -> list[Item]:
    text = message.get("reasoning_content")
    return [reasoning_item(ids.reasoning, text, status)] if text else []


def _output_item(ids: ItemIds, message: dict[str, Any], status: str) -> Item:
    content = message.get("content")
    return {
        "id": ids.output,
        "type": "function_call_output",
        "status": status,
        # The deprecated role "function" knows no id of a call: the name of the function ties the two together.
        "call_id": message.get("tool_call_id") or message.get("name") or "",
        "output": input_parts(content) if isinstance(content, list) else content or "",
    }


def _call_items(ids: ItemIds, message: dict[str, Any], status: str) -> list[Item]:
    calls = message.get("tool_calls") or []
    items = []
    for number, call in zip(call_numbers(calls), calls, strict=True):
        item_id, function = ids.call(number), call.get("function") or {}
        call_id = call.get("id") or f"call_{ids.message_id.hex}_{number}"
        items.append(call_item(item_id, call_id, function.get("name", ""), function.get("arguments", ""), status))
    if not items and isinstance(message.get("function_call"), dict):
        function = message["function_call"]
        name, arguments = str(function.get("name", "")), str(function.get("arguments", ""))
        items.append(call_item(ids.call(0), name, name, arguments, status))
    return items


def call_numbers(calls: Sequence[dict[str, Any]]) -> list[int]:
    """The numbers that name a message's function calls: their ``index``, where one among them was deleted."""
    numbers = [call.get("index") for call in calls]
    if len(set(numbers)) == len(numbers) and all(type(number) is int and 0 <= number < 10**6 for number in numbers):
        return [int(number) for number in numbers if number is not None]
    return list(range(len(calls)))
