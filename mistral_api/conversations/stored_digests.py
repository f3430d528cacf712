"""Stored conversations as digests, read from PostgreSQL to be recognised (``recognition``)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from mistral_api.conversations.digest_tree import Answer, AnswerText, digest_bytes, node_digest
from mistral_api.conversations.message_alignment import DISTINCTIVE_CHARACTERS
from mistral_api.conversations.message_matching import normalized_text
from mistral_api.conversations.message_tree import read_digest
from mistral_api.conversations.recognition import StoredDigest
from mistral_api.conversations.stored_message import row_to_chat_message

# The conversations used last whose messages are at most so many together.
_NEWEST = text(
    "SELECT id, owner, session_id, updated_at, message_count FROM ("
    " SELECT *, sum(message_count) OVER (ORDER BY updated_at DESC, id DESC) AS total FROM ("
    "  SELECT id, owner, session_id, updated_at, message_count FROM conversations"
    "  ORDER BY updated_at DESC, id DESC LIMIT :most) AS newest"
    ") AS summed WHERE total <= :most ORDER BY updated_at DESC, id DESC"
)
GENERATED = "(m.role = 'assistant' AND (m.model IS NOT NULL OR m.completion_tokens IS NOT NULL))"
# The text is needed of answers that were cut off, and of messages of older versions, which have no digest.
_NEEDS_TEXT = "(m.digest IS NULL OR (m.role = 'assistant' AND m.status = 'interrupted'))"
STORED_DIGEST_COLUMNS = (
    f"m.conversation_id, m.id, m.parent_id, m.role, m.status, m.digest, {GENERATED} AS generated,"
    f" (m.tool_calls IS NOT NULL OR length(m.content #>> '{{}}') >= {DISTINCTIVE_CHARACTERS}) AS is_long,"
    f" CASE WHEN {_NEEDS_TEXT} THEN m.content END AS content,"
    f" CASE WHEN {_NEEDS_TEXT} THEN m.tool_calls END AS tool_calls,"
    f" CASE WHEN {_NEEDS_TEXT} THEN m.extra END AS extra"
)
_NODES = text(
    f"SELECT {STORED_DIGEST_COLUMNS} FROM messages AS m WHERE m.conversation_id = ANY(CAST(:ids AS uuid[])) "
    "ORDER BY m.conversation_id, m.sequence"
)
# Whether the normalized text of a stored answer is long enough to be distinctive is not known if its text is not read.
_LONG_ANSWER, _SHORT_ANSWER = Answer(distinctive=True, ordinary=True), Answer(distinctive=False, ordinary=True)


@dataclass(frozen=True, slots=True)
class ConversationKey:
    """A stored conversation: its id, owner and session, when it was used last, and how many messages it has."""

    id: UUID
    owner: str
    session_id: str
    updated_at: datetime
    message_count: int


def newest_conversations(connection: Connection, most_messages: int) -> list[ConversationKey]:
    """Return the conversations that were used last, the newest first, with at most so many messages together.

    Raises sqlalchemy.exc.SQLAlchemyError.
    """
    return [ConversationKey(*row) for row in connection.execute(_NEWEST, {"most": most_messages})]


def read_stored_digests(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, list[StoredDigest]]:
    """Return the messages of conversations, parents before their children. Raises sqlalchemy.exc.SQLAlchemyError."""
    return group_stored_digests(connection.execute(_NODES, {"ids": [str(each) for each in ids]}).all())


def group_stored_digests(rows: Sequence[Row[Any]]) -> dict[UUID, list[StoredDigest]]:
    """Return rows with the columns STORED_DIGEST_COLUMNS, and ``continued`` perhaps, by their conversation."""
    nodes: defaultdict[UUID, list[StoredDigest]] = defaultdict(list)
    for row in rows:
        nodes[row.conversation_id].append(_stored_digest(row))
    return nodes


def _stored_digest(row: Row[Any]) -> StoredDigest:
    digest = node_digest(row_to_chat_message(row)) if row.digest is None else digest_bytes(read_digest(row.digest))
    answer = _answer(row) if row.generated else None
    return StoredDigest(row.id, row.parent_id, digest, answer, continued=getattr(row, "continued", False))


def _answer(row: Row[Any]) -> Answer:
    if row.status == "interrupted":
        return Answer(row.is_long, True, AnswerText.of(normalized_text(row_to_chat_message(row))))
    return _LONG_ANSWER if row.is_long else _SHORT_ANSWER
