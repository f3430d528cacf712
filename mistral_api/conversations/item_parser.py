"""From input items to chat messages, and the content parts of both in either direction.

The forms are those of OpenAI's OpenAPI description. A part of an item differs from a part of a chat message:
``input_image.image_url`` is a string, a chat's ``image_url.url`` stands in an object. No item holds sound or video;
these travel as an ``input_file`` whose ``file_data`` is a data URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import orjson

from mistral_api.conversations.encrypted_reasoning import decode_reasoning
from mistral_api.conversations.tool_items import (
    CALL_TYPES,
    FUNCTION_OUTPUT,
    OUTPUT_TYPES,
    call_from_item,
    has_own_content,
    output_content,
)
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ChatMessage, ContentPart, FileData, ImageUrl, MessageContent
from mistral_api.payload_types.responses import (
    AdditionalToolsItem,
    AgentMessageItem,
    CallItem,
    Item,
    ItemPart,
    MessageItem,
    ReasoningItem,
    ToolOutputItem,
)
from mistral_api.recording.exchange import is_placeholder
from mistral_api.system.data_urls import data_url
from mistral_api.wire.items import item_type


def items_to_messages(items: Iterable[Item]) -> list[ChatMessage]:
    """Return the chat messages of items that ``wire.items`` has accepted.

    Reasoning, the assistant's message and the function calls that follow one another become one message, as in a
    chat. Reasoning without a readable text is left out. Every ``item_reference`` must have been replaced by the item
    that it names (:func:`mistral_api.conversations.items.resolve_references`); raises KeyError for one that was not.
    """
    builder = _MessageBuilder()
    for item in items:
        _ADD[item_type(item)](builder, item)
    return builder.messages


class _MessageBuilder:
    """Builds the messages; ``turn`` is the assistant's message that the next item may still belong to."""

    def __init__(self) -> None:
        self.messages: list[ChatMessage] = []
        self.turn: ChatMessage | None = None
        # The ids of the calls by the ids of their items: some outputs name the latter.
        self._call_ids: dict[str, str] = {}

    def add_message(self, item: MessageItem) -> None:
        """Add a message of any role."""
        if item["role"] == "assistant":
            self._add_answer(item)
            return
        self.turn = None
        self.messages.append({"role": item["role"], "content": chat_content(item["content"])})

    def _add_answer(self, item: MessageItem) -> None:
        content, refusal = chat_content(item["content"]), _refusal(item["content"])
        turn = self._reasoning_turn()
        if refusal:
            turn.update({"content": content or None, "refusal": refusal})
        else:
            turn["content"] = content

    def add_reasoning(self, item: ReasoningItem) -> None:
        """Add the reasoning that precedes an answer."""
        text = _reasoning_text(item)
        if not text:
            return
        turn = self._reasoning_turn()
        before = turn.get("reasoning_content")
        turn["reasoning_content"] = f"{before}\n{text}" if before else text

    def add_call(self, item: CallItem) -> None:
        """Add a call of the model, of a tool of any kind."""
        turn = self.turn or self._begin_turn()
        call_id = item.get("call_id") or item.get("id") or ""
        self._call_ids[item.get("id") or call_id] = call_id
        calls = turn.get("tool_calls")
        if calls is None:
            calls = turn["tool_calls"] = []
        calls.append({"id": call_id} | call_from_item(item))

    def add_output(self, item: ToolOutputItem) -> None:
        """Add the output of a tool of any kind."""
        self.turn = None
        item_id = item.get("id") or ""
        message: ChatMessage = {
            "role": "tool",
            "tool_call_id": item.get("call_id") or self._call_ids.get(item_id, item_id),
            "content": output_content(item) if has_own_content(item["type"]) else chat_content(_output(item)),
        }
        if _name(item):
            message["name"] = _name(item)
        if item["type"] != FUNCTION_OUTPUT:
            message["item"] = item["type"]
        self.messages.append(message)

    def add_agent_message(self, item: AgentMessageItem) -> None:
        """Add what another agent of the client says; encrypted parts are readable for nobody here."""
        self.turn = None
        parts = [part for part in item["content"] if part["type"] != "encrypted_content"]
        self.messages.append(
            {
                "role": "user",
                "content": chat_content(parts),
                "item": "agent_message",
                "author": item["author"],
                "recipient": item["recipient"],
            }
        )

    def add_tools(self, item: AdditionalToolsItem) -> None:
        """Add tools that the model may call from here on."""
        self.turn = None
        content = orjson.dumps({"tools": item["tools"]}).decode()
        self.messages.append({"role": "developer", "content": content, "item": "additional_tools"})

    def _reasoning_turn(self) -> ChatMessage:
        """Return the current turn if it has nothing but reasoning yet, else a new one."""
        turn = self.turn
        if turn is None or turn["content"] is not None or "tool_calls" in turn or "refusal" in turn:
            turn = self._begin_turn()
        return turn

    def _begin_turn(self) -> ChatMessage:
        self.turn = {"role": "assistant", "content": None}
        self.messages.append(self.turn)
        return self.turn


# The type of an item, by which it is looked up, is the type of what the method takes.
_ADD: Mapping[str, Callable[[_MessageBuilder, Any], None]] = {
    "message": _MessageBuilder.add_message,
    "reasoning": _MessageBuilder.add_reasoning,
    "agent_message": _MessageBuilder.add_agent_message,
    "additional_tools": _MessageBuilder.add_tools,
    **dict.fromkeys(CALL_TYPES, _MessageBuilder.add_call),
    **dict.fromkeys(OUTPUT_TYPES, _MessageBuilder.add_output),
}


def _output(item: ToolOutputItem) -> str | list[ItemPart]:
    output: str | list[ItemPart] = cast("Any", item)["output"]
    return output


def _name(item: ToolOutputItem) -> str | None:
    name: str | None = cast("Any", item).get("name")
    return name


def _refusal(content: str | list[ItemPart]) -> str | None:
    """Return the text with which the model refused, if it did."""
    if isinstance(content, str):
        return None
    return "\n".join(part["refusal"] for part in content if part["type"] == "refusal") or None


def _reasoning_text(item: ReasoningItem) -> str:
    """Return the reasoning itself: its text, or what stands in its encrypted form; or else its summary."""
    encrypted = None if item.get("content") else decode_reasoning(item.get("encrypted_content"))
    if encrypted is not None:
        return encrypted
    parts = item.get("content") or item.get("summary") or []
    return "\n".join(part["text"] for part in parts if part["text"])


def chat_content(content: str | list[ItemPart]) -> str | list[ContentPart]:
    """Return an item's content in a chat's form. A single text becomes a string, an empty list an empty string."""
    if isinstance(content, str):
        return content
    parts = [_chat_part(part) for part in content if part["type"] != "refusal"]
    if not parts:
        return ""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts


def _chat_part(part: ItemPart) -> ContentPart:
    match part["type"]:
        case "input_image":
            image, detail = ImageUrl(url=part["image_url"]), part.get("detail")
            return {"type": "image_url", "image_url": image if detail is None else image | {"detail": detail}}
        case "input_audio":
            return {"type": "input_audio", "input_audio": part["input_audio"]}
        case "input_file":
            return _chat_file(part)
        case _:
            return {"type": "text", "text": part["text"]}


def _chat_file(part: ItemPart) -> ContentPart:
    """Return a file as a chat's part; sound and video become the parts in which models take them."""
    data = part.get("file_data") or ""
    head, _, encoded = data.partition(",")
    media, _, form = head.removeprefix("data:").partition(";")[0].partition("/")
    if head.startswith("data:") and media == "audio":
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": form}}
    if head.startswith("data:") and media == "video":
        return {"type": "video_url", "video_url": {"url": data}}
    file: FileData = {}
    for name in ("file_data", "file_url", "filename"):
        if part.get(name) is not None:
            file[name] = part[name]
    return {"type": "file", "file": file}


def input_parts(content: MessageContent) -> list[ItemPart]:
    """Return a chat message's content as parts of an input item."""
    if not isinstance(content, list):
        return [_input_text(content or "")]
    if not all(isinstance(part, dict) for part in content):
        return [_input_text(text) for text in prompt_texts(content)]
    return [_input_part(part) for part in content if isinstance(part, dict)]


def prompt_texts(prompt: Sequence[object]) -> list[str]:
    """Return the prompts of a legacy completion as texts; prompts of tokens become one text, their JSON."""
    texts = [text for text in prompt if isinstance(text, str)]
    return texts if len(texts) == len(prompt) else [orjson.dumps(prompt).decode()]


def output_parts(content: MessageContent, refusal: str | None) -> list[ItemPart]:
    """Return the content of an assistant's message as parts of an output item."""
    if isinstance(content, list):
        output = [_output_part(part) for part in content if isinstance(part, dict)]
    else:
        output = [output_text(content)] if content else []
    return [*output, {"type": "refusal", "refusal": refusal}] if refusal else output


def output_text(text: str) -> ItemPart:
    """Return a text of the model as a part of an output item."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _output_part(part: ContentPart) -> ItemPart:
    kind = part.get("type")
    if kind == "text":
        return output_text(part["text"])
    return {"type": "refusal", "refusal": part["refusal"]} if kind == "refusal" else _input_part(part)


def _input_text(text: str) -> ItemPart:
    return {"type": "input_text", "text": text}


def _input_part(part: ContentPart) -> ItemPart:
    kind = str(part.get("type"))
    value = part.get(kind)  # the type of a chat's part is also the name of the field with its value
    if isinstance(value, str):
        return _input_text(value)
    if not isinstance(value, dict):
        return _input_text("")
    omitted = next((text for text in value.values() if isinstance(text, str) and is_placeholder(text)), None)
    if omitted is not None:
        # It is no address: a model server would refuse it when the item is sent again.
        return _input_text(f"[{omitted}]")
    if kind == "image_url":
        return {"type": "input_image", "detail": value.get("detail") or "auto", "image_url": value["url"]}
    return _file_part(kind, value)


def _file_part(kind: str, value: JsonObject) -> ItemPart:
    """Return the ``input_file`` for a file, a sound or a video."""
    if kind == "file":
        file: ItemPart = {"type": "input_file"}
        for name in ("file_data", "file_url", "file_id", "filename"):
            if isinstance(value.get(name), str):
                file[name] = value[name]
        return file
    data, form = value.get("data"), value.get("format")
    if not isinstance(data, str):
        url = str(value.get("url", ""))
        is_data = url.startswith("data:")
        return {"type": "input_file", "file_data": url} if is_data else {"type": "input_file", "file_url": url}
    media = "audio" if kind == "input_audio" else "video"
    url = data if data.startswith("data:") else data_url(f"{media}/{form or 'mp4'}", data)
    part: ItemPart = {"type": "input_file", "file_data": url}
    return part | {"filename": f"{media}.{form}"} if form else part
