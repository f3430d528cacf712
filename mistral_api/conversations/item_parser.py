"""From input items to chat messages, and the content parts of both in either direction.

The forms are those of OpenAI's OpenAPI description. A part of an item differs from a part of a chat message:
``input_image.image_url`` is a string, a chat's ``image_url.url`` stands in an object. No item holds sound or video;
these travel as an ``input_file`` whose ``file_data`` is a data URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ChatMessage, ContentPart, FileData, FunctionCall, ImageUrl, MessageContent
from mistral_api.payload_types.responses import (
    FunctionCallItem,
    FunctionOutputItem,
    Item,
    ItemPart,
    MessageItem,
    ReasoningItem,
)
from mistral_api.recording.exchange import is_placeholder
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

    def add_call(self, item: FunctionCallItem) -> None:
        """Add a function call of the model."""
        turn = self.turn or self._begin_turn()
        function: FunctionCall = {"name": item["name"], "arguments": item["arguments"]}
        calls = turn.get("tool_calls")
        if calls is None:
            calls = turn["tool_calls"] = []
        calls.append({"id": item["call_id"], "type": "function", "function": function})

    def add_output(self, item: FunctionOutputItem) -> None:
        """Add the output of a function."""
        self.turn = None
        message: ChatMessage = {
            "role": "tool",
            "tool_call_id": item["call_id"],
            "content": chat_content(item["output"]),
        }
        if item.get("name"):
            message["name"] = item["name"]
        self.messages.append(message)

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
    "function_call": _MessageBuilder.add_call,
    "function_call_output": _MessageBuilder.add_output,
}


def _refusal(content: str | list[ItemPart]) -> str | None:
    """Return the text with which the model refused, if it did."""
    if isinstance(content, str):
        return None
    return "\n".join(part["refusal"] for part in content if part["type"] == "refusal") or None


def _reasoning_text(item: ReasoningItem) -> str:
    """Return the reasoning itself, or else its summary."""
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
    url = data if data.startswith("data:") else f"data:{media}/{form or 'mp4'};base64,{data}"
    part: ItemPart = {"type": "input_file", "file_data": url}
    return part | {"filename": f"{media}.{form}"} if form else part
