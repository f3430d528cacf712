"""Joining exchanges to the conversations that they continue, where these were not recognised when the request came.

What is recognised in memory is bounded, and it is empty when a process starts. An exchange that got a session id of
its own since nothing was recognised, although its list has answers, is therefore looked for once more when it is
delivered: in the whole database, and among the exchanges before it in its batch, by the same rules (``recognition``).
Its rows then go into the conversation that it continues, and its session id leads there too (``session_aliases``).

Messages that were stored before there were digests are not found here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from mistral_api.conversations.digest_tree import MessageDigests
from mistral_api.conversations.recognition import LONGEST_RUN, RecognitionIndex
from mistral_api.conversations.stored_digests import GENERATED, STORED_DIGEST_COLUMNS, group_stored_digests
from mistral_api.database.tables.base import rows_as_json
from mistral_api.recording.exchange import Exchange

# So many of the last answers of a list are looked for, each in so many conversations of its owner at most.
MOST_ANSWERS, MOST_CONVERSATIONS = 8, 100
# Besides what was read there is room for the messages of the batch.
MOST_NOTED = 1_000_000
_SOUGHT = "json_to_recordset(CAST(:rows AS json)) AS sought(owner text, digest uuid, is_question boolean)"
_OF_OWNER = "JOIN conversations AS c ON c.id = m.conversation_id AND c.owner = sought.owner"
# The answers with a digest that was sent; the answers below a question that was sent, which were cut off; and what
# stands above both. The index on (digest, conversation_id) gives the newest conversations first.
_FIND = text(
    f"WITH RECURSIVE sought AS (SELECT DISTINCT owner, digest, is_question FROM {_SOUGHT}), answers AS ("
    " SELECT found.id FROM sought JOIN LATERAL ("
    f"  SELECT m.id FROM messages AS m {_OF_OWNER} WHERE m.digest = sought.digest AND {GENERATED}"
    "  ORDER BY m.conversation_id DESC LIMIT :most) AS found ON NOT sought.is_question"
    " UNION SELECT found.id FROM sought JOIN LATERAL ("
    f"  SELECT m.id FROM messages AS m {_OF_OWNER} WHERE m.digest = sought.digest"
    "  ORDER BY m.conversation_id DESC LIMIT :most) AS question ON sought.is_question"
    " JOIN messages AS found ON found.parent_id = question.id"
    "  AND found.role = 'assistant' AND found.status = 'interrupted'"
    "), upwards AS ("
    " SELECT m.id, m.parent_id, 0 AS height FROM answers JOIN messages AS m ON m.id = answers.id"
    " UNION ALL SELECT m.id, m.parent_id, height + 1 FROM upwards JOIN messages AS m ON m.id = upwards.parent_id"
    f" WHERE height < {LONGEST_RUN}"
    f") SELECT c.owner, c.session_id, c.updated_at, m.id <> c.head_id AS continued, {STORED_DIGEST_COLUMNS}"
    " FROM (SELECT DISTINCT id FROM upwards) AS found JOIN messages AS m ON m.id = found.id"
    " JOIN conversations AS c ON c.id = m.conversation_id ORDER BY m.sequence"
)
_WRITE_ALIASES = text(
    "INSERT INTO session_aliases (owner, session_id, conversation_id) SELECT aliases.owner, aliases.alias, c.id "
    "FROM json_to_recordset(CAST(:rows AS json)) AS aliases(owner text, alias text, session_id text) "
    "JOIN conversations AS c ON c.owner = aliases.owner AND c.session_id = aliases.session_id ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class JoinedExchange:
    """An exchange that was joined to a conversation; ``alias`` is the session id that its client was told."""

    exchange: Exchange
    alias: str


def join_conversations(connection: Connection, exchanges: Sequence[Exchange]) -> list[JoinedExchange]:
    """Give every exchange that continues a conversation unrecognised the session id of that conversation.

    ``exchanges`` belong to conversations. Return those that got another session id. It costs nothing, and no round
    trip, without such an exchange. Raises sqlalchemy.exc.SQLAlchemyError.
    """
    unrecognised = [exchange for exchange in exchanges if may_continue(exchange)]
    if not unrecognised:
        return []
    index = _read_candidates(connection, unrecognised)
    joined: dict[tuple[str, str], str] = {}
    found: list[JoinedExchange] = []
    for exchange in exchanges:
        given = exchange.session_id or ""
        # A later exchange of the batch may have the session id of one that was joined.
        exchange.session_id = joined.get((exchange.owner, given), given)
        match = index.find(exchange.owner, exchange.client, exchange.messages or []) if may_continue(exchange) else None
        if match is not None and match.session_id != given:
            joined[exchange.owner, given] = exchange.session_id = match.session_id
            exchange.resends_history = True
            found.append(JoinedExchange(exchange, given))
        index.note(exchange)
    return found


def may_continue(exchange: Exchange) -> bool:
    """Return whether an exchange may continue a conversation that was not recognised when the request came."""
    return exchange.is_new_session and any(message.get("role") == "assistant" for message in exchange.messages or [])


def _read_candidates(connection: Connection, exchanges: Iterable[Exchange]) -> RecognitionIndex:
    """Return an index of the conversations that have one of the last answers of an exchange."""
    sought = [row for exchange in exchanges for row in _sought_digests(exchange)]
    rows = connection.execute(_FIND, {"rows": rows_as_json(sought), "most": MOST_CONVERSATIONS}).all()
    conversations: dict[UUID, Row[Any]] = {row.conversation_id: row for row in rows}
    index = RecognitionIndex(max_messages=len(rows) + MOST_NOTED)
    for conversation_id, stored in group_stored_digests(rows).items():
        row = conversations[conversation_id]
        index.restore(row.owner, row.session_id, row.updated_at.timestamp(), stored)
    return index


def _sought_digests(exchange: Exchange) -> Iterable[dict[str, object]]:
    sent = MessageDigests(exchange.messages or [])
    for position in sent.answer_positions(MOST_ANSWERS):
        yield {"owner": exchange.owner, "digest": UUID(bytes=sent.digest(position)), "is_question": False}
        question = sent.digest_before(position)
        if question:
            yield {"owner": exchange.owner, "digest": UUID(bytes=question), "is_question": True}


def write_aliases(connection: Connection, joined: Sequence[JoinedExchange]) -> None:
    """Let the session ids of exchanges that were joined, and whose conversations exist now, lead to these.

    Raises sqlalchemy.exc.SQLAlchemyError.
    """
    rows = [
        {"owner": each.exchange.owner, "alias": each.alias, "session_id": each.exchange.session_id} for each in joined
    ]
    if rows:
        connection.execute(_WRITE_ALIASES, {"rows": rows_as_json(rows)})
