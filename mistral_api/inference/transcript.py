"""What the model said and what it cost, gathered from an answer: whole, or piece by piece.

Field names are those of OpenAI's chat completion and completion objects and their stream chunks;
``timings`` is llama.cpp's (tools/server/README.md), and the only count an interrupted stream has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_JOINED = ("content", "reasoning_content", "refusal")


@dataclass(slots=True)
class Tokens:
    """Token counts of one request; None where the model server did not say."""

    prompt: int | None = None
    cached: int | None = None
    completion: int | None = None


@dataclass(slots=True)
class Choice:
    """One answer of the model: the fields of its message, and why it ended."""

    message: dict[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None


class Transcript:
    """The growing record of one answer."""

    def __init__(self) -> None:
        self.choices: dict[int, Choice] = {}
        self.tokens = Tokens()
        self.model: str | None = None
        self.generation_ms: float | None = None
        self.tokens_per_second: float | None = None
        self._pieces = 0
        self._has_usage = False

    def add_body(self, body: dict[str, Any]) -> None:
        """Take a whole answer (``chat.completion`` or ``text_completion``)."""
        for choice in _dicts(body.get("choices")):
            message = choice.get("message") or {"content": choice.get("text")}
            entry = self._choice(choice)
            entry.message = {name: value for name, value in message.items() if name != "role"}
        self._add_counts(body)

    def add_chunk(self, chunk: dict[str, Any]) -> None:
        """Take one chunk of a stream."""
        for choice in _dicts(chunk.get("choices")):
            delta = choice.get("delta") or {"content": choice.get("text")}
            entry = self._choice(choice)
            self._pieces += _extend(entry.message, delta)
        self._add_counts(chunk)

    def _choice(self, choice: dict[str, Any]) -> Choice:
        entry = self.choices.setdefault(int(choice.get("index") or 0), Choice())
        entry.finish_reason = choice.get("finish_reason") or entry.finish_reason
        return entry

    def _add_counts(self, body: dict[str, Any]) -> None:
        self.model = body.get("model") or self.model
        usage, timings = body.get("usage"), body.get("timings")
        if isinstance(usage, dict):
            self._add_usage(usage)
        if isinstance(timings, dict):
            self._add_timings(timings)

    def _add_usage(self, usage: dict[str, Any]) -> None:
        """Streams of several prompts report each prompt's usage apart: they add up."""
        self._has_usage = True
        details = usage.get("prompt_tokens_details") or {}
        self.tokens.prompt = (self.tokens.prompt or 0) + int(usage.get("prompt_tokens") or 0)
        self.tokens.completion = (self.tokens.completion or 0) + int(usage.get("completion_tokens") or 0)
        self.tokens.cached = (self.tokens.cached or 0) + int(details.get("cached_tokens") or 0)

    def _add_timings(self, timings: dict[str, Any]) -> None:
        self.generation_ms = timings.get("predicted_ms")
        self.tokens_per_second = timings.get("predicted_per_second") or None

    def settle(self) -> Tokens:
        """The counts as far as known. A stream cut short has one token a piece, as llama.cpp sends it."""
        if not self._has_usage and self._pieces:
            self.tokens.completion = self._pieces
        return self.tokens

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason if 0 in self.choices else None

    @property
    def said_anything(self) -> bool:
        """Whether there is an answer to keep."""
        return any(any(choice.message.values()) for choice in self.choices.values())


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _extend(message: dict[str, Any], delta: dict[str, Any]) -> int:
    """Add a delta to a message; answer 1 if it carried something the model generated."""
    generated = 0
    for name in _JOINED:
        if delta.get(name):
            message[name] = (message.get(name) or "") + delta[name]
            generated = 1
    for call in _dicts(delta.get("tool_calls")):
        _extend_tool_call(message.setdefault("tool_calls", []), call)
        generated = 1
    return generated


def _extend_tool_call(calls: list[dict[str, Any]], delta: dict[str, Any]) -> None:
    """Join the pieces of a tool call by its index: the first brings id and name, all bring arguments."""
    index = int(delta.get("index") or 0)
    while len(calls) <= index:
        calls.append({"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
    call, function = calls[index], delta.get("function") or {}
    call["id"] = delta.get("id") or call["id"]
    call["function"]["name"] += function.get("name") or ""
    call["function"]["arguments"] += function.get("arguments") or ""
