"""The messages of Ollama's API in OpenAI's form: images as data URLs, and tool calls with the ids of their results."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

import orjson

from mistral_api.payload_types.chat import ChatMessage, ContentPart, FunctionCall, ToolCall
from mistral_api.payload_types.ollama import OllamaMessage, OllamaToolCall
from mistral_api.system.data_urls import data_url

# How images begin, and their kinds. llama.cpp looks at the data itself; the kind is for whoever shows the record.
_IMAGE_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}
_KIND_CHARACTERS: Final = 8


class _CallIds:
    """The ids of tool calls, which Ollama's clients mostly do not send: a call gets one, and its result finds it.

    Mistral's templates demand nine letters or digits.
    """

    def __init__(self) -> None:
        self._number = 0
        # The calls that have no result yet, as (id, name of the function).
        self._open: list[tuple[str, str]] = []

    def begin(self, call: OllamaToolCall) -> str:
        """Return the id of a call."""
        call_id = call.get("id") or self._next()
        self._open.append((call_id, call["function"]["name"]))
        return call_id

    def answer(self, message: OllamaMessage) -> str:
        """Return the id of the call whose result a message is: named, of that function, or the first without one."""
        named, name = message.get("tool_call_id"), message.get("tool_name")
        found = next((each for each in self._open if named == each[0]), None)
        if found is None and named is None:
            found = next((each for each in self._open if name in (None, each[1])), None)
        if found is None:
            return named or self._next()
        self._open.remove(found)
        return found[0]

    def _next(self) -> str:
        self._number += 1
        return f"call{self._number:05}"


def chat_messages(messages: Sequence[OllamaMessage]) -> list[ChatMessage]:
    """Return messages in OpenAI's form."""
    ids = _CallIds()
    return [_chat_message(message, ids) for message in messages]


def _chat_message(message: OllamaMessage, ids: _CallIds) -> ChatMessage:
    chat: ChatMessage = {"role": message["role"], "content": _content(message)}
    if message.get("thinking") and message["role"] == "assistant":
        chat["reasoning_content"] = message["thinking"]
    calls = message.get("tool_calls") if message["role"] == "assistant" else None
    if calls:
        chat["tool_calls"] = [_tool_call(call, ids.begin(call)) for call in calls]
        chat["content"] = chat["content"] or None
    if message["role"] == "tool":
        chat["tool_call_id"] = ids.answer(message)
        if message.get("tool_name"):
            chat["name"] = message["tool_name"]
    return chat


def _tool_call(call: OllamaToolCall, call_id: str) -> ToolCall:
    arguments = call["function"].get("arguments") or {}
    text = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    function: FunctionCall = {"name": call["function"]["name"], "arguments": text}
    return {"id": call_id, "type": "function", "function": function}


def _content(message: OllamaMessage) -> str | list[ContentPart]:
    return content_with_images(message.get("content", ""), message.get("images") or [])


def content_with_images(text: str, images: Sequence[str]) -> str | list[ContentPart]:
    """Return a text, or parts where there are images."""
    if not images:
        return text
    parts: list[ContentPart] = [{"type": "text", "text": text}] if text else []
    return parts + [{"type": "image_url", "image_url": {"url": _image_url(image)}} for image in images]


def _image_url(image: str) -> str:
    """Return base64 as a data URL; one that a client sends is taken as it is."""
    if image[:5].lower() == "data:":
        return image
    try:
        beginning = base64.b64decode(image[:_KIND_CHARACTERS])
    except ValueError:  # the model server says what is wrong with it
        beginning = b""
    kind = next((kind for mark, kind in _IMAGE_KINDS.items() if beginning.startswith(mark)), "png")
    return data_url(f"image/{kind}", image)
