"""Refusals in a history as the model server gets them: as text. Neither llama.cpp nor a chat template knows others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistral_api.payload_types.chat import ChatMessage, ContentPart


def refusals_as_text(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return messages in which what a model refused with, as a part or as a field, is what it said."""
    return [_as_text(message) if _refuses(message) else message for message in messages]


def _refuses(message: ChatMessage) -> bool:
    content = message.get("content")
    return "refusal" in message or (isinstance(content, list) and any(map(_is_refusal, content)))


def _is_refusal(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "refusal"


def _as_text(message: ChatMessage) -> ChatMessage:
    spoken = message.copy()
    refusal, content = spoken.pop("refusal", None), spoken.get("content")
    if isinstance(content, list):
        parts: list[Any] = [_text_part(part) if _is_refusal(part) else part for part in content]
        spoken["content"] = parts
    elif refusal and not content:
        spoken["content"] = refusal
    return spoken


def _text_part(part: Any) -> ContentPart:
    return {"type": "text", "text": part["refusal"]}
