"""From input items to chat messages, and the content parts of both in either direction.

The forms are those of OpenAI's OpenAPI description. A part of an item differs from a part of a chat message:
``input_image.image_url`` is a string, a chat's ``image_url.url`` stands in an object. No item holds sound or video;
these travel as an ``input_file`` whose ``file_data`` is a data URL.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.fields import without_nulls
from mistral_api.payload_types.responses import Item
from mistral_api.recording.exchange import is_placeholder
from mistral_api.wire.items import item_type

ContentPart = dict[str, Any]


def items_to_messages(items: Iterable[Item]) -> list[ChatMessage]:
    """Return the chat messages of items that :func:`mistral_api.wire.items.check_items` has accepted.

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

    def add_message(self, item: Item) -> None:
        """Add a message of any role."""
        if item["role"] == "assistant":
            self._add_answer(item)
            return
        self.turn = None
        self.messages.append({"role": item["role"], "content": chat_content(item["content"])})

    def _add_answer(self, item: Item) -> None:
        content, refusal = chat_content(item["content"]), _refusal(item["content"])
        answer = {"content": content or None, "refusal": refusal} if refusal else {"content": content}
        self._reasoning_turn().update(answer)

    def add_reasoning(self, item: Item) -> None:
        """Add the reasoning that precedes an answer."""
        text = _reasoning_text(item)
        if not text:
            return
        turn = self._reasoning_turn()
        before = turn.get("reasoning_content")
        turn["reasoning_content"] = f"{before}\n{text}" if before else text

    def add_call(self, item: Item) -> None:
        """Add a function call of the model."""
        turn = self.turn or self._begin_turn()
        function = {"name": item["name"], "arguments": item["arguments"]}
        turn.setdefault("tool_calls", []).append({"id": item["call_id"], "type": "function", "function": function})

    def add_output(self, item: Item) -> None:
        """Add the output of a function."""
        self.turn = None
        message = {"role": "tool", "tool_call_id": item["call_id"], "content": chat_content(item["output"])}
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


_ADD = {
    "message": _MessageBuilder.add_message,
    "reasoning": _MessageBuilder.add_reasoning,
    "function_call": _MessageBuilder.add_call,
    "function_call_output": _MessageBuilder.add_output,
}


def _refusal(content: str | list[ContentPart]) -> str | None:
    """Return the text with which the model refused, if it did."""
    if isinstance(content, str):
        return None
    return "\n".join(part["refusal"] for part in content if part["type"] == "refusal") or None


def _reasoning_text(item: Item) -> str:
    """Return the reasoning itself, or else its summary."""
    parts = item.get("content") or item.get("summary") or []
    return "\n".join(part["text"] for part in parts if part["text"])


def chat_content(content: str | list[ContentPart]) -> str | list[ContentPart]:
    """Return an item's content in a chat's form. A single text becomes a string, an empty list an empty string."""
    if isinstance(content, str):
        return content
    parts = [_chat_part(part) for part in content if part["type"] != "refusal"]
    if not parts:
        return ""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return str(parts[0]["text"])
    return parts


def _chat_part(part: ContentPart) -> ContentPart:
    match part["type"]:
        case "input_image":
            image = {"url": part["image_url"]}
            return _typed_part("image_url", image if part.get("detail") is None else image | {"detail": part["detail"]})
        case "input_audio":
            return _typed_part("input_audio", part["input_audio"])
        case "input_file":
            return _chat_file(part)
        case _:
            return _typed_part("text", part["text"])


def _chat_file(part: ContentPart) -> ContentPart:
    """Return a file as a chat's part; sound and video become the parts in which models take them."""
    data = part.get("file_data") or ""
    head, _, encoded = data.partition(",")
    media, _, form = head.removeprefix("data:").partition(";")[0].partition("/")
    if head.startswith("data:") and media == "audio":
        return _typed_part("input_audio", {"data": encoded, "format": form})
    if head.startswith("data:") and media == "video":
        return _typed_part("video_url", {"url": data})
    names = ("file_data", "file_url", "filename")
    return _typed_part("file", without_nulls({name: part.get(name) for name in names}))


def _typed_part(kind: str, value: Any) -> ContentPart:
    # The type of a chat's part is also the name of the field with its value.
    return {"type": kind, kind: value}


def input_parts(content: Any) -> list[ContentPart]:
    """Return a chat message's content as parts of an input item."""
    if not isinstance(content, list):
        return [_input_text(content or "")]
    if not all(isinstance(part, dict) for part in content):
        return [_input_text(text) for text in prompt_texts(content)]
    return [_input_part(part) for part in content]


def prompt_texts(prompt: list[Any]) -> list[str]:
    """Return the prompts of a legacy completion as texts; prompts of tokens become one text, their JSON."""
    return prompt if all(isinstance(text, str) for text in prompt) else [orjson.dumps(prompt).decode()]


def output_parts(content: Any, refusal: str | None) -> list[ContentPart]:
    """Return the content of an assistant's message as parts of an output item."""
    parts = content if isinstance(content, list) else [_typed_part("text", content)] if content else []
    output = [_output_part(part) for part in parts]
    return [*output, _typed_part("refusal", refusal)] if refusal else output


def output_text(text: str) -> ContentPart:
    """Return a text of the model as a part of an output item."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _output_part(part: ContentPart) -> ContentPart:
    kind = part.get("type")
    if kind == "text":
        return output_text(part["text"])
    return _typed_part("refusal", part["refusal"]) if kind == "refusal" else _input_part(part)


def _input_text(text: str) -> ContentPart:
    return {"type": "input_text", "text": text}


def _input_part(part: ContentPart) -> ContentPart:
    kind = str(part.get("type"))
    value = part.get(kind)
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
    return {"type": "input_file"} | _file_fields(kind, value)


def _file_fields(kind: str, value: ContentPart) -> ContentPart:
    """Return the fields of an ``input_file`` for a file, a sound or a video."""
    if kind == "file":
        names = ("file_data", "file_url", "file_id", "filename")
        return {name: value[name] for name in names if isinstance(value.get(name), str)}
    data, form = value.get("data"), value.get("format")
    if not isinstance(data, str):
        url = str(value.get("url", ""))
        return {"file_data" if url.startswith("data:") else "file_url": url}
    media = "audio" if kind == "input_audio" else "video"
    fields = {"file_data": data if data.startswith("data:") else f"data:{media}/{form or 'mp4'};base64,{data}"}
    return fields | ({"filename": f"{media}.{form}"} if form else {})
