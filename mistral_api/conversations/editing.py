"""Creating, renaming and deleting conversations; adding messages without generating.

Making conversations, and putting messages on them by a client's own hand: nothing was generated.

They are written at once, in the request's own transaction; the journal is for what must not be lost on the way.

Changing what a conversation is called, and removing conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import find_conversation, lock_conversation
from mistral_api.conversations.items import StoredMessage
from mistral_api.conversations.message_matching import message_chains
from mistral_api.conversations.message_tree import MessageTree, TreeNode, conversation_title, write_trees
from mistral_api.conversations.search import title_vector
from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.recording.exchange import Exchange, without_large_attachments, replace_nul
from mistral_api.system.identifiers import new_conversation_id, new_id


@dataclass(frozen=True, slots=True)
class NewMessages:
    """Messages in chat form that an owner adds, and the id of the request that brings them.

    Attachments larger than ``most_bytes`` are kept as their hash and length.
    """

    owner: str
    request_id: str
    messages: Sequence[dict[str, Any]]
    max_attachment_bytes: int


def create_conversation(session: Session, addition: NewMessages, metadata: dict[str, Any]) -> Conversation:
    """A new conversation with these messages, if any."""
    now = datetime.now(UTC)
    conversation = Conversation(
        id=new_id(),
        owner=addition.owner,
        session_id=new_conversation_id(),
        attributes=metadata,
        message_count=0,
        created_at=now,
        updated_at=now,
    )
    session.add(conversation)
    _add(session, conversation, addition)
    session.commit()
    return conversation


def add_messages(session: Session, session_id: str, addition: NewMessages) -> list[StoredMessage]:
    """Put messages below the newest one of a conversation's current branch. Raises NotFound."""
    conversation = lock_conversation(session, addition.owner, session_id)
    stored = _add(session, conversation, addition)
    session.commit()
    return stored


def _add(session: Session, conversation: Conversation, addition: NewMessages) -> list[StoredMessage]:
    messages = replace_nul(without_large_attachments(list(addition.messages), addition.max_attachment_bytes))
    if conversation.title is None and conversation.head_id is None:
        conversation.title = conversation_title(messages)
        conversation.search = title_vector(conversation.title)
    session.flush()
    if not messages:
        return []
    # As an exchange that was complete, they are gone on from: see Tree.resume.
    exchange = Exchange(
        id=new_id(),
        created_at=datetime.now(UTC),
        endpoint="/v1/conversations",
        owner=addition.owner,
        client_request_id=addition.request_id,
        messages=messages,
    )
    tree = MessageTree(conversation.id, conversation.updated_at, _head(session, conversation), conversation.head_id)
    tree.append(exchange, message_chains(messages))
    write_trees(session.connection(), [tree])
    return [StoredMessage(row["id"], message) for row, message in zip(tree.rows, messages, strict=True)]


def _head(session: Session, conversation: Conversation) -> TreeNode | None:
    row = session.execute(select(Message.id, Message.chain).where(Message.id == conversation.head_id)).one_or_none()
    return None if row is None else TreeNode(row.id, row.chain.hex)


def change_conversation(session: Session, owner: str, session_id: str, changes: dict[str, Any]) -> Conversation:
    """Give a conversation another ``title`` (None takes it away) or other ``metadata``. Raises NotFound."""
    conversation = find_conversation(session, owner, session_id)
    if "title" in changes:
        conversation.title = changes["title"]
        conversation.search = title_vector(changes["title"])
    if "metadata" in changes:
        conversation.attributes = changes["metadata"]
    session.commit()
    return conversation


def delete_conversation(session: Session, owner: str, session_id: str) -> None:
    """Delete a conversation with its messages; its usage rows keep their figures. Raises NotFound."""
    conversation = find_conversation(session, owner, session_id)
    session.execute(delete(Conversation).where(Conversation.id == conversation.id))
    session.commit()
