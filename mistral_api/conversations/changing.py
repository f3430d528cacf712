"""Changing what a conversation is called, and removing conversations."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete
from sqlalchemy.orm import Session

from mistral_api.conversations.reading import find_conversation
from mistral_api.conversations.searching import title_words
from mistral_api.tables.conversation import Conversation


def change_conversation(session: Session, owner: str, session_id: str, changes: dict[str, Any]) -> Conversation:
    """Give a conversation another ``title`` (None takes it away) or other ``metadata``. Raises NotFound."""
    conversation = find_conversation(session, owner, session_id)
    if "title" in changes:
        conversation.title = changes["title"]
        conversation.search = title_words(changes["title"])
    if "metadata" in changes:
        conversation.attributes = changes["metadata"]
    session.commit()
    return conversation


def delete_conversation(session: Session, owner: str, session_id: str) -> None:
    """Delete a conversation with its messages; its usage rows keep their figures. Raises NotFound."""
    conversation = find_conversation(session, owner, session_id)
    session.execute(delete(Conversation).where(Conversation.id == conversation.id))
    session.commit()
