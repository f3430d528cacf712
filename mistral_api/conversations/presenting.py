"""How conversations look to clients (the contract's ``conversation`` object)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistral_api import pages
from mistral_api.conversations.reading import Page
from mistral_api.tables.conversation import Conversation, Message


def conversation_body(conversation: Conversation, page: Page) -> dict[str, Any]:
    """A conversation with a page of its messages."""
    shown = [message_body(message) for message in page.messages]
    return _head(conversation) | {
        "messages": shown,
        "has_more": page.has_more,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }


def conversation_list_body(conversations: Sequence[Conversation], has_more: bool) -> dict[str, Any]:
    """A list of conversations without their messages."""
    return pages.list_body([head_body(each) for each in conversations], has_more, key="session_id")


def _head(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.session_id,
        "object": "conversation",
        "session_id": conversation.session_id,
        "title": conversation.title,
        "metadata": conversation.attributes,
        "created_at": int(conversation.created_at.timestamp()),
        "updated_at": int(conversation.updated_at.timestamp()),
    }


def head_body(conversation: Conversation) -> dict[str, Any]:
    """A conversation without its messages."""
    return _head(conversation) | {"message_count": conversation.message_count}


def message_body(message: Message) -> dict[str, Any]:
    """A message; what else the client sent with it (``name``, ``tool_call_id`` …) stands beside the rest."""
    return (message.extra or {}) | {
        "id": str(message.id),
        "role": message.role,
        "content": message.content,
        "tool_calls": message.tool_calls,
        "created_at": int(message.created_at.timestamp()),
        "model": message.model,
        "request_id": message.request_id,
        "status": message.status,
        "usage": _usage(message),
    }


def _usage(message: Message) -> dict[str, int | None] | None:
    if message.prompt_tokens is None and message.completion_tokens is None:
        return None
    return {
        "prompt_tokens": message.prompt_tokens,
        "completion_tokens": message.completion_tokens,
        "total_tokens": (message.prompt_tokens or 0) + (message.completion_tokens or 0),
    }
