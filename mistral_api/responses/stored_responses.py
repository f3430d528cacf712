"""The responses stored in PostgreSQL: found, read as the context of the next one, and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.orm import Session

from mistral_api.conversations.session_aliases import session_ids_of
from mistral_api.conversations.session_resolver import ResolvedSession
from mistral_api.conversations.stored_message import StoredMessage, prompt_message, row_to_chat_message
from mistral_api.database.reads import DatabaseReads
from mistral_api.errors import NotFound
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.responses import Response

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
_FIND = text("SELECT body FROM responses WHERE id = :id AND owner = :owner AND NOT deleted")
_INPUT = text(
    "SELECT m.id, m.role, m.content, m.tool_calls, m.extra FROM responses AS r"
    " LEFT JOIN messages AS m ON m.id = ANY(r.input_ids) WHERE r.id = :id AND r.owner = :owner AND NOT r.deleted"
    " ORDER BY array_position(r.input_ids, m.id)"
)
_DELETE = text(
    "UPDATE responses SET body = NULL, deleted = true WHERE id = :id AND owner = :owner AND NOT deleted "
    "RETURNING conversation_id"
)
# A conversation with nothing but deleted responses, whose session id was made by this server.
_DELETE_UNUSED = text(
    "DELETE FROM conversations AS c WHERE c.id = :conversation AND starts_with(c.session_id, :made) "
    "AND NOT EXISTS (SELECT 1 FROM responses AS r WHERE r.conversation_id = c.id AND NOT r.deleted) "
    "AND NOT EXISTS (SELECT 1 FROM messages AS m WHERE m.conversation_id = c.id AND NOT EXISTS ("
    "SELECT 1 FROM responses AS r WHERE r.conversation_id = c.id AND (m.id = r.answer_id OR m.id = ANY(r.input_ids)))) "
    "RETURNING c.session_id"
)


@dataclass(frozen=True, slots=True)
class StoredContext:
    """What a new response continues: ``messages`` in chat form, oldest first, the last of which is ``continues``.

    ``status`` is that of the response that it continues, None where it continues none. ``resolved`` says how its
    conversation was found, once it was.
    """

    session_id: str
    continues: UUID | None = None
    messages: list[ChatMessage] = field(default_factory=list)
    status: str | None = None
    resolved: ResolvedSession | None = None


def response_not_found(response_id: str) -> NotFound:
    """Return the error for a response that its owner does not have."""
    return NotFound(f"Response with id '{response_id[:100]}' not found.", param="response_id")


def read_context(reads: DatabaseReads, owner: str, response_id: str, *, deleted: bool = False) -> StoredContext:
    """Return all messages up to the answer of an owner's response. Raises NotFound and Unavailable.

    ``deleted`` finds a deleted response too: its messages stay while later responses continue it.
    """
    rows = _read(reads, _CONTEXT, response_id, {"id": response_id, "owner": owner, "deleted": deleted})
    messages = [prompt_message(row_to_chat_message(row)) for row in rows if row.role is not None]
    return StoredContext(rows[0].session_id, rows[0].answer_id, messages, rows[0].response_status)


def find_response(reads: DatabaseReads, owner: str, response_id: str) -> Response:
    """Return an owner's response. Raises NotFound, also for a deleted one, and Unavailable."""
    body: Response = _read(reads, _FIND, response_id, {"id": response_id, "owner": owner})[0].body
    return body


def read_input(reads: DatabaseReads, owner: str, response_id: str) -> list[StoredMessage]:
    """Return the input of an owner's response in its order, without messages that were deleted.

    Raises NotFound and Unavailable.
    """
    rows = _read(reads, _INPUT, response_id, {"id": response_id, "owner": owner})
    return [StoredMessage(row.id, row_to_chat_message(row)) for row in rows if row.id is not None]


def _read(
    reads: DatabaseReads, statement: TextClause, response_id: str, parameters: Mapping[str, object]
) -> Sequence[Row[Any]]:
    # PostgreSQL has no NUL character, not even in a parameter.
    rows = reads.rows(statement, parameters) if "\0" not in response_id else ()
    if not rows:
        raise response_not_found(response_id)
    return rows


def delete_response(session: Session, owner: str, response_id: str, made_prefix: str) -> list[str]:
    """Delete a response, and its conversation if that holds nothing else. Return the session ids that led to it then.

    Messages on which later responses build stay. A conversation is deleted only if its session id begins with
    ``made_prefix``, so that no client chose it. Raises NotFound.
    """
    conversation = session.scalar(_DELETE, {"id": response_id, "owner": owner})
    if conversation is None:
        raise response_not_found(response_id)
    session_ids = session_ids_of(session, conversation)
    deleted = session.scalar(_DELETE_UNUSED, {"conversation": conversation, "made": made_prefix})
    session.commit()
    return session_ids if deleted is not None else []
