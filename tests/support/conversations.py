"""Conversations as their clients change and read them, without a server."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import find_conversation, read_page
from mistral_api.conversations.editing import NewMessages, add_messages, create_conversation
from mistral_api.conversations.items import ItemPageQuery, delete_item, list_items
from mistral_api.conversations.message_matching import extend_chain, message_digest
from mistral_api.conversations.stored_message import row_to_chat_message
from mistral_api.database.tables.conversations import Message
from mistral_api.delivery.writer import BatchInserter
from mistral_api.recording.exchange import Exchange
from tests.support.databases import rows_of

Messages = list[dict[str, Any]]
CALLS = [
    {"id": f"call_{number}", "type": "function", "function": {"name": "add", "arguments": "{}"}} for number in range(3)
]
CALLED = {"role": "assistant", "content": "Wait.", "tool_calls": CALLS, "reasoning_content": "Hm"}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def addition(messages: Messages, most_bytes: int = 1 << 20) -> NewMessages:
    return NewMessages("local", "a-request", messages, most_bytes)


def create(engine: Engine, messages: Messages, metadata: dict[str, str] | None = None) -> str:
    with Session(engine) as session:
        return create_conversation(session, addition(messages), metadata or {}).session_id


def add(engine: Engine, session_id: str, messages: Messages) -> list[str]:
    """The ids of the items added."""
    with Session(engine) as session:
        stored = add_messages(session, session_id, addition(messages))
    return [item["id"] for each in stored for item in each.items]


def deliver(engine: Engine, *exchanges: Exchange) -> None:
    for exchange in exchanges:
        BatchInserter(engine).insert([exchange])


def texts_of(engine: Engine, session_id: str) -> list[Any]:
    with Session(engine) as session:
        page = read_page(session, find_conversation(session, "local", session_id), 500, None, None)
        return [message.content for message in page.messages]


def items_of(engine: Engine, session_id: str, **query: Any) -> tuple[list[dict[str, Any]], bool]:
    with Session(engine) as session:
        wanted = ItemPageQuery(**{"limit": 100, "newest_first": False} | query)
        return list_items(session, find_conversation(session, "local", session_id), wanted)


def ids_of(engine: Engine, session_id: str, **query: Any) -> list[str]:
    return [item["id"] for item in items_of(engine, session_id, **query)[0]]


def delete(engine: Engine, session_id: str, item_id: str) -> int:
    """How many messages are left."""
    with Session(engine) as session:
        return delete_item(session, "local", session_id, item_id).message_count


def assert_chained(engine: Engine) -> None:
    """Every message is recognised by all that was said before it, whatever has been deleted."""
    with Session(engine) as session:
        messages = {message.id: message for message in session.query(Message)}
        for message in messages.values():
            above = messages[message.parent_id].chain.hex if message.parent_id else ""
            assert message.chain.hex == extend_chain(above, message_digest(row_to_chat_message(message)))
        counted = rows_of(engine, "SELECT message_count FROM conversations WHERE message_count > 0")
        assert sum(count for (count,) in counted) == len(messages)
