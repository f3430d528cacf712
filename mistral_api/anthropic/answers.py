"""A chat completion as Anthropic's ``Message``."""

from __future__ import annotations

from typing import Any

import orjson

from mistral_api.inference.assembly import assemble_body
from mistral_api.inference.transcript import Transcript

_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_VERBOSE = "__verbose"


class MessageTranscript(Transcript):
    """A transcript that remembers what llama.cpp says beside OpenAI's fields: the stop sequence it met."""

    def __init__(self, choices_per_prompt: int = 1) -> None:
        super().__init__(choices_per_prompt)
        self.verbose: dict[str, Any] = {}

    def add_chunk(self, chunk: dict[str, Any]) -> None:
        """Take one chunk of a stream."""
        if isinstance(chunk.get(_VERBOSE), dict):
            self.verbose = chunk[_VERBOSE]
        super().add_chunk(chunk)


def complete_message(transcript: MessageTranscript, *, chat: bool) -> dict[str, Any]:
    """The chat completion of a complete transcript, with the verbose part that :func:`message_of` reads."""
    return assemble_body(transcript, chat=chat) | {_VERBOSE: transcript.verbose}


def stop_of(finish_reason: str | None, verbose: Any, *, called: bool) -> dict[str, Any]:
    """``stop_reason`` and ``stop_sequence``. ``called``: tools were; for a named one OpenAI's reason is ``stop``."""
    if called and finish_reason == "stop":
        return {"stop_reason": "tool_use", "stop_sequence": None}
    met = verbose.get("stopping_word") if isinstance(verbose, dict) else None
    if met and finish_reason == "stop":
        return {"stop_reason": "stop_sequence", "stop_sequence": met}
    return {"stop_reason": _STOP_REASONS.get(finish_reason or "", "end_turn"), "stop_sequence": None}


def usage_of(usage: dict[str, Any]) -> dict[str, Any]:
    """Anthropic counts the tokens that were read from the cache apart."""
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": max(0, (usage.get("prompt_tokens") or 0) - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.get("completion_tokens") or 0,
    }


def message_id(completion_id: object) -> str:
    """Anthropic's ids begin with ``msg_``."""
    return "msg_" + str(completion_id or "").removeprefix("chatcmpl-")


def anthropic_message(body: dict[str, Any], model: str | None) -> dict[str, Any]:
    """The ``Message`` of a ``chat.completion`` object; ``model`` is what the client asked for."""
    choice = (body.get("choices") or [{}])[0]
    said = choice.get("message") or {}
    return {
        "id": message_id(body.get("id")),
        "type": "message",
        "role": "assistant",
        "model": model or body.get("model") or "",
        "content": _blocks(said),
        **stop_of(choice.get("finish_reason"), body.get(_VERBOSE), called=bool(said.get("tool_calls"))),
        "usage": usage_of(body.get("usage") or {}),
    }


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if message.get("reasoning_content"):
        blocks.append({"type": "thinking", "thinking": message["reasoning_content"], "signature": ""})
    if message.get("content"):
        blocks.append({"type": "text", "text": message["content"]})
    return blocks + [_tool_use(call) for call in message.get("tool_calls") or []]


def _tool_use(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": _input(function["arguments"])}


def _input(arguments: str) -> dict[str, Any]:
    """An answer that was cut off may end inside its arguments: Anthropic's ``input`` is an object all the same."""
    try:
        decoded = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return {}
    return decoded if isinstance(decoded, dict) else {}
