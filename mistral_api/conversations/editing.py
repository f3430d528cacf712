"""Creating, changing and deleting conversations, and adding messages to them without generating any.

The request's own transaction does this at once. The journal is for generated messages, which must not be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import find_conversation, lock_conversation
from mistral_api.conversations.message_alignment import SentMessages
from mistral_api.conversations.message_tree import MessageTree
from mistral_api.conversations.message_tree_store import PlacedTurn, read_nodes, write_trees
from mistral_api.conversations.search import set_search_columns
from mistral_api.conversations.session_aliases import session_ids_of
from mistral_api.conversations.stored_message import StoredMessage
from mistral_api.conversations.turn_placement import NewTurn, append_turn, conversation_title
from mistral_api.database.tables.conversations import Conversation
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.exchange import replace_nul, without_large_attachments
from mistral_api.system.identifiers import new_conversation_id, new_id
from mistral_api.wire.conversations import ConversationEdit


@dataclass(frozen=True, slots=True)
class NewMessages:
    """Chat messages that an owner adds, and the id of the request that brings them.

    Attachments larger than ``max_attachment_bytes`` are stored as their hash and length.
    """

    owner: str
    request_id: str
    messages: Sequence[ChatMessage]
    max_attachment_bytes: int


def create_conversation(session: Session, new: NewMessages, metadata: dict[str, str]) -> Conversation:
    """Create a conversation with these messages, which may be none."""
    now = datetime.now(UTC)
    conversation = Conversation(
        id=new_id(),
        owner=new.owner,
        session_id=new_conversation_id(),
        attributes=metadata,
        message_count=0,
        created_at=now,
        updated_at=now,
    )
    session.add(conversation)
    _append(session, conversation, new)
    session.commit()
    return conversation


def add_messages(session: Session, session_id: str, new: NewMessages) -> list[StoredMessage]:
    """Append messages to the current branch of a conversation, and return them. Raises NotFound."""
    conversation = lock_conversation(session, new.owner, session_id)
    stored = _append(session, conversation, new)
    session.commit()
    return stored


def _append(session: Session, conversation: Conversation, new: NewMessages) -> list[StoredMessage]:
    messages: list[ChatMessage] = replace_nul(without_large_attachments(new.messages, new.max_attachment_bytes))
    if conversation.title is None and conversation.head_id is None:
        conversation.title = conversation_title(messages)
        set_search_columns(conversation, conversation.title)
    session.flush()
    if not messages:
        return []
    now = datetime.now(UTC)
    turn = NewTurn(
        id=new_id(),
        messages=messages,
        continues=conversation.head_id,
        message_ids=[new_id() for _ in messages],
        request_id=new.request_id,
        created_at=now,
        ended_at=now,
        # Complete, so that later messages follow these: see MessageTree.find_last_answered.
        status="complete",
    )
    tree = MessageTree(conversation.id, conversation.updated_at, conversation.head_id, conversation.message_count > 0)
    sent = SentMessages(messages)
    read_nodes(session.connection(), [PlacedTurn(tree, turn, sent)])
    append_turn(tree, turn, sent)
    write_trees(session.connection(), [tree])
    return [StoredMessage(row["id"], message) for row, message in zip(tree.rows, messages, strict=True)]


def change_conversation(session: Session, owner: str, session_id: str, changes: ConversationEdit) -> Conversation:
    """Change the title or the metadata of a conversation. Raises NotFound."""
    conversation = find_conversation(session, owner, session_id)
    if "title" in changes:
        conversation.title = changes["title"]
        set_search_columns(conversation, changes["title"])
    if "metadata" in changes:
        conversation.attributes = changes["metadata"]
    session.commit()
    return conversation


def delete_conversation(session: Session, owner: str, session_id: str) -> list[str]:
    """Delete a conversation with its messages, and return the session ids that led to it. Its usage rows stay.

    Raises NotFound.
    """
    conversation = find_conversation(session, owner, session_id)
    session_ids = session_ids_of(session, conversation.id)
    session.execute(delete(Conversation).where(Conversation.id == conversation.id))
    session.commit()
    return session_ids
