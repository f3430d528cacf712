"""An answer with reasoning, tool calls and results, put together piece by piece as messages in OpenAI's chat form."""

from __future__ import annotations

from dataclasses import dataclass, field

from mistral_api.conversations.importing.source_tree import short_hash
from mistral_api.payload_types.chat import ChatMessage, ContentPart, MessageContent, ToolCall

_CALL_ID_LENGTH = 9


def derived_call_id(*names: str) -> str:
    """Return an id for a tool call that has none in its source: nine letters and digits, always the same."""
    return short_hash(*names)[:_CALL_ID_LENGTH]


def text_part(text: str) -> ContentPart:
    """Return a text as a part of a message."""
    return {"type": "text", "text": text}


def image_part(url: str) -> ContentPart:
    """Return an image, an address or a data URL, as a part of a message."""
    return {"type": "image_url", "image_url": {"url": url}}


def missing_part(kind: str, name: str) -> ContentPart:
    """Return a text in the place of an attachment that the export does not hold."""
    return text_part(f"[{kind} {name}: not in the export]" if name else f"[{kind}: not in the export]")


def join_parts(parts: list[ContentPart]) -> MessageContent:
    """Return parts as the content of a message: as one string where all are text, null where there is none."""
    if not parts:
        return None
    if all(part["type"] == "text" for part in parts):
        return "\n\n".join(part["text"] for part in parts)
    return parts


@dataclass(slots=True)
class AnswerBuilder:
    """The messages of one answer. A result of a tool ends the message with its call; what follows begins another."""

    key: str
    _messages: list[ChatMessage] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _parts: list[ContentPart] = field(default_factory=list)
    _calls: list[ToolCall] = field(default_factory=list)
    _number: int = 0

    def reason(self, text: str) -> None:
        """Add what the model thought."""
        if text.strip():
            self._reasoning.append(text.strip())

    def say(self, text: str) -> None:
        """Add text of the answer."""
        if text.strip():
            self._parts.append(text_part(text))

    def show(self, part: ContentPart) -> None:
        """Add an image, or any other part of the answer."""
        self._parts.append(part)

    def call(self, name: str, arguments: str, call_id: str | None) -> str:
        """Add the call of a tool; return its id."""
        self._number += 1
        call_id = call_id or derived_call_id(self.key, str(self._number))
        call: ToolCall = {
            "id": call_id,
            "type": "function",
            "function": {"name": name or "tool", "arguments": arguments or "{}"},
        }
        self._calls.append(call)
        return call_id

    def result(self, call_id: str, text: str) -> None:
        """Add the result of a tool call."""
        self._flush()
        self._messages.append({"role": "tool", "tool_call_id": call_id, "content": text})

    def messages(self) -> list[ChatMessage]:
        """Return the messages of the answer; none where nothing was added."""
        self._flush()
        return self._messages

    def _flush(self) -> None:
        if not (self._reasoning or self._parts or self._calls):
            return
        message: ChatMessage = {"role": "assistant", "content": join_parts(self._parts)}
        if self._reasoning:
            message["reasoning_content"] = "\n\n".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = self._calls
        self._messages.append(message)
        self._reasoning, self._parts, self._calls = [], [], []
