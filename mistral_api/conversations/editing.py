"""Creating, changing and deleting conversations, and adding messages to them without generating any.

The request's own transaction does this at once. The journal is for generated messages, which must not be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import find_conversation, lock_conversation
from mistral_api.conversations.message_matching import message_chains
from mistral_api.conversations.message_tree import MessageTree, NewTurn, TreeNode, conversation_title
from mistral_api.conversations.message_tree_store import write_trees
from mistral_api.conversations.search import set_search_columns
from mistral_api.conversations.stored_message import StoredMessage
from mistral_api.database.tables.conversations import Conversation, Message
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
    # Complete, so that later messages follow these: see MessageTree.last_answered.
    turn = NewTurn(messages=messages, request_id=new.request_id, created_at=now, ended_at=now)
    head = _read_head(session, conversation)
    tree = MessageTree(conversation.id, conversation.updated_at, head, conversation.head_id)
    tree.append(turn, message_chains(messages))
    write_trees(session.connection(), [tree])
    return [StoredMessage(row["id"], message) for row, message in zip(tree.rows, messages, strict=True)]


def _read_head(session: Session, conversation: Conversation) -> TreeNode | None:
    row = session.execute(select(Message.id, Message.chain).where(Message.id == conversation.head_id)).one_or_none()
    return None if row is None else TreeNode(row.id, row.chain.hex)


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


def delete_conversation(session: Session, owner: str, session_id: str) -> None:
    """Delete a conversation with its messages. Its usage rows stay. Raises NotFound."""
    conversation = find_conversation(session, owner, session_id)
    session.execute(delete(Conversation).where(Conversation.id == conversation.id))
    session.commit()
