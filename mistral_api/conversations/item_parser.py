"""Input items to chat messages; content parts both ways.

Parts of content, from the form of items to that of chat messages and back.

The forms are those of OpenAI's OpenAPI description: ``input_image.image_url`` is a string there, a chat's
``image_url.url`` stands in an object. No item holds sound or video: they travel as an ``input_file`` whose
``file_data`` is a data URL.

From input items to the chat messages that are stored, and that the model server reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from mistral_api.recording.exchange import is_placeholder
from mistral_api.wire.items import item_type
from mistral_api.wire.payload_types import ChatMessage, Item

Part = dict[str, Any]


def chat_content(content: str | list[Part]) -> str | list[Part]:
    """An item's content in a chat's form; a single text becomes a string, no parts an empty one."""
    if isinstance(content, str):
        return content
    parts = [_chat_part(part) for part in content if part["type"] != "refusal"]
    if not parts:
        return ""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return str(parts[0]["text"])
    return parts


def _chat_part(part: Part) -> Part:
    match part["type"]:
        case "input_image":
            image = {"url": part["image_url"]}
            return _part("image_url", image if part.get("detail") is None else image | {"detail": part["detail"]})
        case "input_audio":
            return _part("input_audio", part["input_audio"])
        case "input_file":
            return _chat_file(part)
        case _:
            return _part("text", part["text"])


def _chat_file(part: Part) -> Part:
    """A file; one that holds sound or video becomes the part that models take it from."""
    data = part.get("file_data") or ""
    head, _, encoded = data.partition(",")
    kind, _, form = head.removeprefix("data:").partition(";")[0].partition("/")
    if head.startswith("data:") and kind == "audio":
        return _part("input_audio", {"data": encoded, "format": form})
    if head.startswith("data:") and kind == "video":
        return _part("video_url", {"url": data})
    kept = ("file_data", "file_url", "filename")
    return _part("file", {name: part[name] for name in kept if part.get(name) is not None})


def _part(kind: str, value: Any) -> Part:
    # A chat part's type is also the name of the field that carries it.
    return {"type": kind, kind: value}


def input_parts(content: Any) -> list[Part]:
    """A chat message's content as parts of an input item."""
    if not isinstance(content, list):
        return [_input_text(content or "")]
    if not all(isinstance(part, dict) for part in content):
        return [_input_text(text) for text in prompt_texts(content)]
    return [_input_part(part) for part in content]


def prompt_texts(prompt: list[Any]) -> list[str]:
    """The prompts of a legacy completion: texts, or tokens."""
    return prompt if all(isinstance(text, str) for text in prompt) else [orjson.dumps(prompt).decode()]


def output_parts(content: Any, refusal: str | None) -> list[Part]:
    """What an assistant said, as parts of an output item."""
    parts = content if isinstance(content, list) else [_part("text", content)] if content else []
    shown = [_output_part(part) for part in parts]
    return [*shown, _part("refusal", refusal)] if refusal else shown


def output_text(text: str) -> Part:
    """A text of the model."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _output_part(part: Part) -> Part:
    kind = part.get("type")
    if kind == "text":
        return output_text(part["text"])
    return _part("refusal", part["refusal"]) if kind == "refusal" else _input_part(part)


def _input_text(text: str) -> Part:
    return {"type": "input_text", "text": text}


def _input_part(part: Part) -> Part:
    kind = str(part.get("type"))
    value = part.get(kind)
    if isinstance(value, str):
        return _input_text(value)
    if not isinstance(value, dict):
        return _input_text("")
    omitted = next((text for text in value.values() if isinstance(text, str) and is_placeholder(text)), None)
    if omitted is not None:
        # As an address it would lead nowhere, and a model server would refuse it when it is sent again.
        return _input_text(f"[{omitted}]")
    if kind == "image_url":
        return {"type": "input_image", "detail": value.get("detail") or "auto", "image_url": value["url"]}
    return {"type": "input_file"} | _file_fields(kind, value)


def _file_fields(kind: str, value: Part) -> Part:
    """What an ``input_file`` says of a file, a sound or a video."""
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


def items_to_messages(items: Iterable[Item]) -> list[ChatMessage]:
    """Chat messages of items that fit :data:`mistral_api.wire.items.ITEMS`.

    Reasoning, the assistant's message and the function calls that follow one another are one message, as chat
    has it. Reasoning without a readable text leaves nothing behind. An ``item_reference`` must have been replaced
    by the item it names (:mod:`mistral_api.conversations.references`); raises KeyError for one that was not.
    """
    joiner = _Joiner()
    for item in items:
        _ADD[item_type(item)](joiner, item)
    return joiner.messages


class _Joiner:
    """The messages so far; ``turn`` is the assistant's one that the next item may still belong to."""

    def __init__(self) -> None:
        self.messages: list[ChatMessage] = []
        self.turn: ChatMessage | None = None

    def message(self, item: Item) -> None:
        """What somebody said."""
        if item["role"] == "assistant":
            self._answer(item)
            return
        self.turn = None
        self.messages.append({"role": item["role"], "content": chat_content(item["content"])})

    def _answer(self, item: Item) -> None:
        content, refusal = chat_content(item["content"]), _refusal(item["content"])
        said = {"content": content or None, "refusal": refusal} if refusal else {"content": content}
        self._reasoning_turn().update(said)

    def reasoning(self, item: Item) -> None:
        """What the model thought before it answered."""
        text = _reasoning_text(item)
        if not text:
            return
        turn = self._reasoning_turn()
        before = turn.get("reasoning_content")
        turn["reasoning_content"] = f"{before}\n{text}" if before else text

    def call(self, item: Item) -> None:
        """A function that the model called."""
        turn = self.turn or self._begin()
        function = {"name": item["name"], "arguments": item["arguments"]}
        turn.setdefault("tool_calls", []).append({"id": item["call_id"], "type": "function", "function": function})

    def output(self, item: Item) -> None:
        """What a function answered."""
        self.turn = None
        message = {"role": "tool", "tool_call_id": item["call_id"], "content": chat_content(item["output"])}
        if item.get("name"):
            message["name"] = item["name"]
        self.messages.append(message)

    def _reasoning_turn(self) -> ChatMessage:
        """The turn that has nothing yet but reasoning, else a new one."""
        turn = self.turn
        if turn is None or turn["content"] is not None or "tool_calls" in turn or "refusal" in turn:
            turn = self._begin()
        return turn

    def _begin(self) -> ChatMessage:
        self.turn = {"role": "assistant", "content": None}
        self.messages.append(self.turn)
        return self.turn


_ADD = {
    "message": _Joiner.message,
    "reasoning": _Joiner.reasoning,
    "function_call": _Joiner.call,
    "function_call_output": _Joiner.output,
}


def _refusal(content: str | list[Item]) -> str | None:
    """The words with which the model refused, if it did."""
    if isinstance(content, str):
        return None
    return "\n".join(part["refusal"] for part in content if part["type"] == "refusal") or None


def _reasoning_text(item: Item) -> str:
    """The reasoning itself, else its summary."""
    parts = item.get("content") or item.get("summary") or []
    return "\n".join(part["text"] for part in parts if part["text"])
