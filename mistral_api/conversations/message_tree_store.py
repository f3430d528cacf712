"""The message trees of conversations in PostgreSQL: read as far as new turns need them, and written.

:func:`append_exchanges` takes three round trips for a batch, however many conversations it touches: lock the
conversations, created where missing; read the stored messages that the batch may repeat; write what is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict
from uuid import UUID

from sqlalchemy import Connection, Row, text

from mistral_api.conversations.message_alignment import SentMessages
from mistral_api.conversations.message_matching import NO_DIGEST, message_digest
from mistral_api.conversations.message_tree import MessageTree, TreeNode, read_digest, stored_digest
from mistral_api.conversations.search_text import search_columns, searchable_text
from mistral_api.conversations.stored_message import row_to_chat_message
from mistral_api.conversations.turn_placement import NewTurn, append_turn, conversation_title
from mistral_api.database.tables.base import column_names, recordset, rows_as_json
from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.exchange import Exchange
from mistral_api.system.identifiers import new_id

_ConversationKey = tuple[str, str]

_HEAD_COLUMNS = ("head_id", "updated_at", "message_count")
_NEW_COLUMNS = ("id", "owner", "session_id", "title", "search_text", "search_grams", "created_at", "updated_at")
_UNTITLED = "conversations.head_id IS NULL AND conversations.title IS NULL"
# A session id may lead to another conversation (``session_aliases``): ``session_id`` is that of the conversation then.
# Always in the same order, so that two transactions never wait for each other's rows.
_LOCK_CONVERSATIONS = text(
    "WITH named AS MATERIALIZED ("
    "SELECT new_rows.*, coalesce(joined.session_id, new_rows.session_id) AS leads_to "
    f"FROM {recordset(Conversation, _NEW_COLUMNS)} "
    "LEFT JOIN session_aliases AS a ON a.owner = new_rows.owner AND a.session_id = new_rows.session_id "
    "LEFT JOIN conversations AS joined ON joined.id = a.conversation_id), locked AS ("
    f"INSERT INTO conversations ({', '.join(_NEW_COLUMNS)}) "
    "SELECT DISTINCT ON (owner, leads_to) id, owner, leads_to, title, search_text, search_grams, "
    "created_at, updated_at "
    "FROM named ORDER BY owner, leads_to, created_at "
    "ON CONFLICT (owner, session_id) DO UPDATE SET "
    "updated_at = greatest(conversations.updated_at, excluded.updated_at), "
    # A conversation that was created empty gets its title now.
    f"title = CASE WHEN {_UNTITLED} THEN excluded.title ELSE conversations.title END, "
    f"search_text = CASE WHEN {_UNTITLED} THEN excluded.search_text ELSE conversations.search_text END, "
    f"search_grams = CASE WHEN {_UNTITLED} THEN excluded.search_grams ELSE conversations.search_grams END"
    " RETURNING id, owner, session_id, head_id, updated_at, message_count) "
    "SELECT named.session_id AS named_session_id, locked.* FROM named "
    "JOIN locked ON locked.owner = named.owner AND locked.session_id = named.leads_to"
)
_UNANSWERED = "(m.status = 'failed' OR (m.status = 'interrupted' AND m.role <> 'assistant'))"
_IS_CUT = "(m.status = 'interrupted' AND m.role = 'assistant')"
_STEP = f"m.id, m.parent_id, {_UNANSWERED} AS unanswered, {_IS_CUT} AS interrupted"


def nodes_query(heads: str, conversations: str, sought: str) -> str:
    """Return the query for the stored messages that turns may repeat or continue.

    These are, from each head, the messages up to the last answered one; those that may be sent again, answers below
    them that were cut off, and messages without a digest; those that are continued; and those of older versions, which
    have neither digest nor depth yet.
    ``heads`` and ``conversations`` are SQL for arrays of ids, ``sought`` is a FROM item with the columns
    ``conversation_id`` and ``digest``. The parameters are ``returned``, ``continued`` and ``no_digest`` of
    ``NodeParameters``.
    """
    return (
        "WITH RECURSIVE upwards AS ("
        f" SELECT {_STEP} FROM messages AS m WHERE m.id = ANY({heads})"
        f" UNION ALL SELECT {_STEP} FROM upwards JOIN messages AS m ON m.id = upwards.parent_id"
        "  WHERE upwards.unanswered"
        "), found AS ("
        " SELECT id, interrupted AS has_text FROM upwards"
        " UNION ALL SELECT m.id, m.digest = ANY(CAST(:returned AS uuid[]))"
        f" FROM {sought}"
        " JOIN messages AS m ON m.conversation_id = new_rows.conversation_id AND m.digest = new_rows.digest"
        " UNION ALL SELECT cut.id, true"
        f" FROM {sought}"
        " JOIN messages AS m ON m.conversation_id = new_rows.conversation_id AND m.digest = new_rows.digest"
        " JOIN messages AS cut ON cut.parent_id = m.id AND cut.role = 'assistant' AND cut.status = 'interrupted'"
        " UNION ALL SELECT m.id, m.role IN ('system', 'developer')"
        f"  FROM messages AS m WHERE m.conversation_id = ANY({conversations})"
        "  AND m.digest = CAST(:no_digest AS uuid)"
        " UNION ALL SELECT m.id, true FROM messages AS m"
        f"  WHERE m.conversation_id = ANY({conversations}) AND m.digest IS NULL"
        " UNION ALL SELECT id, false FROM messages WHERE id = ANY(CAST(:continued AS uuid[]))"
        "), chosen AS (SELECT id, bool_or(has_text) AS has_text FROM found GROUP BY id)"
        " SELECT m.id, m.conversation_id, m.parent_id, m.role, m.digest, m.depth, m.framing, m.sequence,"
        f" {_UNANSWERED} AS unanswered, {_IS_CUT} AS interrupted, chosen.has_text,"
        " CASE WHEN chosen.has_text THEN m.content END AS content,"
        " CASE WHEN chosen.has_text THEN m.tool_calls END AS tool_calls,"
        " CASE WHEN chosen.has_text THEN m.extra END AS extra, parent.depth AS parent_depth"
        " FROM chosen JOIN messages AS m ON m.id = chosen.id LEFT JOIN messages AS parent ON parent.id = m.parent_id"
        f" WHERE m.conversation_id = ANY({conversations}) ORDER BY m.sequence"
    )


READ_NODES = text(
    nodes_query(
        "CAST(:heads AS uuid[])",
        "CAST(:conversations AS uuid[])",
        recordset(Message, ["conversation_id", "digest"]),
    )
)
_INSERTED = [name for name in column_names(Message) if name not in ("sequence", "search")]
_INSERTED_NAMES = ", ".join(_INSERTED)
# No content is the JSON null, not the NULL of SQL.
_INSERTED_VALUES = _INSERTED_NAMES.replace(" content,", " coalesce(content, 'null'),")
_WRITE_TREES = text(
    f"INSERT INTO messages ({_INSERTED_NAMES}) SELECT {_INSERTED_VALUES} FROM {recordset(Message, _INSERTED)}; "
    "UPDATE messages SET status = 'complete' WHERE id = ANY(CAST(:answered AS uuid[])); "
    "UPDATE messages AS m SET digest = new_rows.digest, depth = new_rows.depth "
    f"FROM {recordset(Message, ['id', 'digest', 'depth'], 'digests')} WHERE m.id = new_rows.id; "
    "UPDATE conversations AS c SET head_id = new_rows.head_id, updated_at = new_rows.updated_at, "
    "message_count = c.message_count + new_rows.message_count "
    f"FROM {recordset(Conversation, ['id', *_HEAD_COLUMNS], 'trees')} WHERE c.id = new_rows.id"
)


class ConversationDigest(TypedDict):
    """A message that may be repeated, as a parameter of the query for stored messages."""

    conversation_id: UUID
    digest: UUID


class NodeParameters(TypedDict):
    """The parameters of ``READ_NODES``: ids and digests as text, rows as JSON."""

    rows: str
    heads: list[str]
    conversations: list[str]
    continued: list[str]
    returned: list[str]
    no_digest: str


def append_exchanges(connection: Connection, exchanges: Sequence[Exchange]) -> None:
    """Append exchanges, each with a session, to their conversations, in the connection's transaction.

    Raises sqlalchemy.exc.SQLAlchemyError, and AttributeError for what is not a message.
    """
    if not exchanges:
        return
    trees = _lock_conversations(connection, exchanges)
    turns = [place_turn(trees[_key(exchange)], exchange) for exchange in exchanges]
    read_nodes(connection, turns)
    for exchange, placed in zip(exchanges, turns, strict=True):
        ids = append_turn(placed.tree, placed.turn, placed.sent)
        if exchange.message_ids is not None:
            # What a stored response was asked with may be messages that were stored before.
            exchange.message_ids = [message_id for message_id in ids if message_id is not None]
    write_trees(connection, {tree.conversation_id: tree for tree in trees.values()}.values())


@dataclass(frozen=True, slots=True)
class PlacedTurn:
    """A turn, with its sent messages, and the tree that it is appended to."""

    tree: MessageTree
    turn: NewTurn
    sent: SentMessages


def place_turn(tree: MessageTree, exchange: Exchange) -> PlacedTurn:
    """Return the turn that an exchange adds to a tree."""
    turn = turn_of(exchange)
    return PlacedTurn(tree, turn, SentMessages(turn.messages))


def turn_of(exchange: Exchange) -> NewTurn:
    """Return the turn that an exchange adds to its conversation."""
    return NewTurn(
        id=exchange.id,
        messages=_messages(exchange),
        request_id=exchange.public_request_id,
        created_at=exchange.created_at,
        ended_at=exchange.created_at + timedelta(milliseconds=exchange.latency_ms),
        status=exchange.answer_status,
        answers=exchange.answers or [],
        continues=exchange.continues,
        message_ids=exchange.message_ids,
        answer_id=exchange.answer_id,
        model=exchange.model,
        prompt_tokens=exchange.prompt_tokens,
        completion_tokens=exchange.completion_tokens,
        resends_history=exchange.resends_history,
        side_request=_is_side_request(exchange),
    )


def _is_side_request(exchange: Exchange) -> bool:
    """Return whether an exchange stands beside the main line. In a conversation of its own it is all that there is."""
    return exchange.side_request and (exchange.resends_history or not exchange.is_new_session)


def title_of(exchanges: Iterable[Exchange]) -> str | None:
    """Return the title that turns give to a conversation without a main line: the first one that begins it gives it."""
    first = next((exchange for exchange in exchanges if not _is_side_request(exchange)), None)
    return None if first is None else conversation_title(_messages(first))


def _messages(exchange: Exchange) -> Sequence[ChatMessage]:
    return exchange.messages or []


def _key(exchange: Exchange) -> _ConversationKey:
    return exchange.owner, exchange.session_id or ""


def _lock_conversations(connection: Connection, exchanges: Sequence[Exchange]) -> dict[_ConversationKey, MessageTree]:
    """Create conversations that are missing, and lock all of them until the transaction ends.

    Exchanges whose session id leads to another conversation get the session id of that one.
    """
    by_session: dict[_ConversationKey, list[Exchange]] = {}
    for exchange in exchanges:
        by_session.setdefault(_key(exchange), []).append(exchange)
    rows = [_conversation_row(each) for each in by_session.values()]
    locked = connection.execute(_LOCK_CONVERSATIONS, {"rows": rows_as_json(rows)})
    trees: dict[UUID, MessageTree] = {}
    by_key: dict[_ConversationKey, MessageTree] = {}
    session_ids: dict[_ConversationKey, str] = {}
    for found in locked:
        tree = trees.setdefault(
            found.id, MessageTree(found.id, found.updated_at, found.head_id, found.message_count > 0)
        )
        by_key[found.owner, found.named_session_id] = by_key[found.owner, found.session_id] = tree
        session_ids[found.owner, found.named_session_id] = found.session_id
    for exchange in exchanges:
        exchange.session_id = session_ids[_key(exchange)]
    return by_key


def _conversation_row(exchanges: Sequence[Exchange]) -> dict[str, object]:
    """Return the row of the conversation that these exchanges begin, where it is missing."""
    first, title = exchanges[0], title_of(exchanges)
    return {
        "id": new_id(),
        "owner": first.owner,
        "session_id": first.session_id,
        "title": title,
        **search_columns(title),
        "created_at": first.created_at,
        "updated_at": first.created_at,
    }


def read_nodes(connection: Connection, turns: Sequence[PlacedTurn]) -> None:
    """Read the stored messages that turns may repeat or continue, and the last answered one of each tree."""
    stored = [turn for turn in turns if turn.tree.has_stored_messages]
    if stored:
        add_nodes(connection.execute(READ_NODES, node_parameters(stored)), [turn.tree for turn in stored])


def node_parameters(turns: Sequence[PlacedTurn]) -> NodeParameters:
    """Return the parameters of ``READ_NODES`` for turns whose trees have stored messages."""
    trees = {turn.tree.conversation_id: turn.tree for turn in turns}
    sought: list[ConversationDigest] = [
        {"conversation_id": turn.tree.conversation_id, "digest": stored_digest(digest)}
        for turn in turns
        for digest in dict.fromkeys(turn.sent.digests)
        if digest
    ]
    return {
        "rows": rows_as_json(sought),
        "heads": [str(tree.head_id) for tree in trees.values() if tree.head_id],
        "conversations": [str(conversation_id) for conversation_id in trees],
        "continued": [str(each.turn.continues) for each in turns if each.turn.continues],
        "returned": [str(stored_digest(each.sent.last_answer_digest)) for each in turns if each.sent.has_answer],
        "no_digest": str(stored_digest(NO_DIGEST)),
    }


def add_nodes(rows: Iterable[Row[Any]], trees: Iterable[MessageTree]) -> None:
    """Add the rows of ``READ_NODES`` to their trees."""
    by_id = {tree.conversation_id: tree for tree in trees}
    for row in rows:
        tree = by_id[row.conversation_id]
        if row.digest is None:
            tree.add_undigested(_undigested_node(row), row.parent_depth)
        else:
            tree.add_node(_node(row, read_digest(row.digest), row.depth))
    for tree in by_id.values():
        tree.find_last_answered()


def _undigested_node(row: Row[Any]) -> TreeNode:
    """Return a message that was stored before there were digests. Its depth is not known yet."""
    return _node(row, message_digest(row_to_chat_message(row)), -1)


def _node(row: Row[Any], digest: str, depth: int) -> TreeNode:
    return TreeNode(
        id=row.id,
        parent_id=row.parent_id,
        role=row.role,
        digest=digest,
        depth=depth,
        framing=row.framing.hex if row.framing else None,
        sequence=row.sequence,
        unanswered=row.unanswered,
        interrupted=row.interrupted,
        message=row_to_chat_message(row) if row.has_text else None,
    )


def write_trees(connection: Connection, trees: Iterable[MessageTree]) -> None:
    """Write what was appended to trees whose conversations are locked. Raises sqlalchemy.exc.SQLAlchemyError."""
    rows = [{**row, **search_columns(searchable_text(row["content"]))} for tree in trees for row in tree.rows]
    heads = [
        {"id": tree.conversation_id, "head_id": tree.head_id, "updated_at": tree.updated_at,
         "message_count": len(tree.rows)}
        for tree in trees
    ]  # fmt: skip
    parameters = {
        "rows": rows_as_json(rows),
        "answered": [str(node) for tree in trees for node in tree.newly_answered],
        "digests": rows_as_json([digest for tree in trees for digest in tree.new_digests]),
        "trees": rows_as_json(heads),
    }
    connection.execute(_WRITE_TREES, parameters)
