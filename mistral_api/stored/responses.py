"""Stored responses in PostgreSQL: finding them, what was said up to one, and deleting them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from mistral_api.conversations.history import chat_message
from mistral_api.tables.conversation import Message
from mistral_api.tables.stored import StoredResponse

# One query, however long the chain: the branch of the conversation that ends with the response's answer.
_CONTEXT = text(
    "WITH RECURSIVE start AS ("
    " SELECT r.status, r.answer_id, c.session_id FROM responses AS r"
    " JOIN conversations AS c ON c.id = r.conversation_id WHERE r.id = :id AND r.owner = :owner"
    " AND (:deleted OR NOT r.deleted)"
    "), branch AS ("
    " SELECT m.id, m.parent_id, 0 AS depth FROM start JOIN messages AS m ON m.id = start.answer_id"
    " UNION ALL SELECT m.id, m.parent_id, branch.depth + 1 FROM branch JOIN messages AS m ON m.id = branch.parent_id"
    ") SELECT start.status AS response_status, start.answer_id, start.session_id,"
    " m.role, m.content, m.tool_calls, m.extra FROM start"
    " LEFT JOIN branch ON true LEFT JOIN messages AS m ON m.id = branch.id ORDER BY branch.depth DESC"
)
_DELETE = text(
    "UPDATE responses SET body = NULL, deleted = true WHERE id = :id AND owner = :owner AND NOT deleted "
    "RETURNING conversation_id"
)
# A conversation that holds nothing but deleted responses, and was never given a name by a client.
_DELETE_UNUSED = text(
    "DELETE FROM conversations AS c WHERE c.id = :conversation AND starts_with(c.session_id, :made) "
    "AND NOT EXISTS (SELECT 1 FROM responses AS r WHERE r.conversation_id = c.id AND NOT r.deleted) "
    "AND NOT EXISTS (SELECT 1 FROM messages AS m WHERE m.conversation_id = c.id AND NOT EXISTS ("
    "SELECT 1 FROM responses AS r WHERE r.conversation_id = c.id AND (m.id = r.answer_id OR m.id = ANY(r.input_ids)))) "
    "RETURNING c.session_id"
)


@dataclass(frozen=True, slots=True)
class StoredContext:
    """What a new response goes on from: ``messages`` in chat form, oldest first, of which the last is ``continues``.

    ``status`` is that of the response it continues, None where it continues none.
    """

    session_id: str
    continues: UUID | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    status: str | None = None


def read_context(session: Session, owner: str, response_id: str, *, deleted: bool = False) -> StoredContext | None:
    """All that was said up to a response's answer; None where its owner has no such response.

    ``deleted``: also of a response that was deleted, whose messages stay while later ones build on them.
    """
    rows = session.execute(_CONTEXT, {"id": response_id, "owner": owner, "deleted": deleted}).all()
    if not rows:
        return None
    head = rows[0]
    messages = [chat_message(row) for row in rows if row.role is not None]
    return StoredContext(head.session_id, head.answer_id, messages, head.response_status)


def find_response(session: Session, owner: str, response_id: str) -> StoredResponse | None:
    """An owner's response, unless it was deleted."""
    found = session.get(StoredResponse, response_id)
    return found if found is not None and found.owner == owner and not found.deleted else None


def read_input(session: Session, response: StoredResponse) -> list[Message]:
    """The messages that a response was asked with, as far as they are there, in their order."""
    found = session.scalars(select(Message).where(Message.id.in_(response.input_ids)))
    by_id = {message.id: message for message in found}
    return [by_id[each] for each in response.input_ids if each in by_id]


def delete_response(session: Session, owner: str, response_id: str, made_prefix: str) -> tuple[bool, str | None]:
    """Delete a response; whether it was there, and the session that went with it.

    Its messages stay where later responses build on them, or where the conversation holds anything else;
    ``made_prefix`` begins the session ids that no client chose.
    """
    conversation = session.scalar(_DELETE, {"id": response_id, "owner": owner})
    if conversation is None:
        return False, None
    gone = session.scalar(_DELETE_UNUSED, {"conversation": conversation, "made": made_prefix})
    session.commit()
    return True, gone
