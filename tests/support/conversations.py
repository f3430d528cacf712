"""Change and read conversations as their clients do, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation_list import ConversationLister
from mistral_api.conversations.conversation_reader import ConversationReader
from mistral_api.conversations.editing import NewMessages, add_messages, create_conversation
from mistral_api.conversations.history import HistoryReader
from mistral_api.conversations.items import ItemPageQuery, delete_item, list_items
from mistral_api.conversations.message_matching import message_digest
from mistral_api.conversations.message_tree import stored_digest
from mistral_api.conversations.stored_message import MessageRecord, row_to_chat_message
from mistral_api.database.reads import DatabaseReads
from mistral_api.database.tables.conversations import Message
from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.payload_types.chat import ChatMessage, ToolCall
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.pending import PendingExchanges
from mistral_api.recording.recorder import Recorder
from mistral_api.responses.response_store import ResponseStore
from tests.support.databases import rows_of

Messages = list[ChatMessage]
TOOL_CALLS: list[ToolCall] = [
    {"id": f"call_{number}", "type": "function", "function": {"name": "add", "arguments": "{}"}} for number in range(3)
]
ASSISTANT_WITH_CALLS: ChatMessage = {
    "role": "assistant",
    "content": "Wait.",
    "tool_calls": TOOL_CALLS,
    "reasoning_content": "Hm",
}
# Deliver the exchanges of a test in one batch, and one by one.
together = pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])


def user(text: str) -> ChatMessage:
    """Return a user message in chat form."""
    return {"role": "user", "content": text}


def assistant(text: str) -> ChatMessage:
    """Return an assistant message in chat form."""
    return {"role": "assistant", "content": text}


def new_messages(messages: Messages, most_bytes: int = 1 << 20) -> NewMessages:
    """Return messages of the owner ``local`` to be added; larger attachments than ``most_bytes`` are omitted."""
    return NewMessages("local", "a-request", messages, most_bytes)


def start_conversation(engine: Engine, messages: Messages, metadata: dict[str, str] | None = None) -> str:
    """Create a conversation with these messages, and return its session id."""
    with Session(engine) as session:
        return create_conversation(session, new_messages(messages), metadata or {}).session_id


def add_items(engine: Engine, session_id: str, messages: Messages) -> list[str]:
    """Add messages to a conversation, and return the ids of their items."""
    with Session(engine) as session:
        stored = add_messages(session, session_id, new_messages(messages))
    return [item["id"] for each in stored for item in each.items]


def deliver_each(engine: Engine, *exchanges: Exchange) -> None:
    """Deliver exchanges to the database one by one."""
    for exchange in exchanges:
        BatchInserter(engine).insert([exchange])


def deliver_batch(engine: Engine, exchanges: list[Exchange], together: bool) -> None:
    """Deliver exchanges to the database in one batch, or one by one."""
    inserter = BatchInserter(engine)
    for batch in [exchanges] if together else [[exchange] for exchange in exchanges]:
        inserter.insert(batch)


def branch_texts(engine: Engine, session_id: str) -> list[Any]:
    """Return the contents of the messages of the current branch, oldest first."""
    return [message.content for message in read_messages(engine, session_id)]


def read_messages(engine: Engine, session_id: str) -> list[MessageRecord]:
    """Return the messages of the current branch, oldest first."""
    return conversation_reader(engine).read_page("local", session_id, 500, None, None)[1].messages


def conversation_reader(engine: Engine, pending: PendingExchanges | None = None) -> ConversationReader:
    """Return a reader of the conversations in a database, by default without a journal."""
    return ConversationReader(DatabaseReads(engine), pending or PendingExchanges(list))


def conversation_lister(engine: Engine, pending: PendingExchanges | None = None) -> ConversationLister:
    """Return what lists the conversations in a database, by default without a journal."""
    return ConversationLister(DatabaseReads(engine), pending or PendingExchanges(list))


def response_store(engine: Engine, recorder: Recorder) -> ResponseStore:
    """Return a store of responses with an empty cache."""
    reads = DatabaseReads(engine)
    history = HistoryReader(ConversationReader(reads, recorder.pending))
    return ResponseStore(engine, reads, history, recorder)


def read_items(engine: Engine, session_id: str, **query: Any) -> tuple[list[Any], bool]:
    """Return a page of items, by default the oldest 100, and whether there are more."""
    wanted = ItemPageQuery(**{"limit": 100, "newest_first": False} | query)
    return list_items(conversation_reader(engine), "local", session_id, wanted)


def read_item_ids(engine: Engine, session_id: str, **query: Any) -> list[str]:
    """Return the ids of a page of items."""
    return [item["id"] for item in read_items(engine, session_id, **query)[0]]


def remove_item(engine: Engine, session_id: str, item_id: str) -> int:
    """Delete an item, and return the number of messages left."""
    with Session(engine) as session:
        return delete_item(session, "local", session_id, item_id).message_count


def assert_digests_match(engine: Engine) -> None:
    """Check the digests that messages have, and that the messages of each conversation are counted."""
    with Session(engine) as session:
        messages = list(session.query(Message))
        for message in messages:
            if message.digest is not None:
                assert message.digest == stored_digest(message_digest(row_to_chat_message(message)))
        counted = rows_of(engine, "SELECT message_count FROM conversations WHERE message_count > 0")
        assert sum(count for (count,) in counted) == len(messages)
