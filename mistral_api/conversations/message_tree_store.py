"""The message trees of conversations in PostgreSQL: read as far as new turns need them, and written.

:func:`append_exchanges` takes three round trips for a batch, however many conversations it touches: lock the
conversations, created where missing; read the stored messages that the batch may repeat; write what is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from mistral_api.conversations.message_matching import message_chains
from mistral_api.conversations.message_tree import MessageTree, NewTurn, TreeNode, conversation_title
from mistral_api.conversations.search_text import search_columns
from mistral_api.database.tables.base import column_names, recordset, rows_as_json
from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.exchange import Exchange
from mistral_api.system.identifiers import new_id

_ConversationKey = tuple[str, str]

_HEAD_COLUMNS = ("head_id", "updated_at", "message_count")
_NEW_COLUMNS = ("id", "owner", "session_id", "title", "search_text", "search_grams", "created_at", "updated_at")
_UNTITLED = "conversations.head_id IS NULL AND conversations.title IS NULL"
# Always in the same order, so that two transactions never wait for each other's rows.
_LOCK_CONVERSATIONS = text(
    f"INSERT INTO conversations ({', '.join(_NEW_COLUMNS)}) SELECT {', '.join(_NEW_COLUMNS)} "
    f"FROM {recordset(Conversation, _NEW_COLUMNS)} ORDER BY owner, session_id "
    "ON CONFLICT (owner, session_id) DO UPDATE SET "
    "updated_at = greatest(conversations.updated_at, excluded.updated_at), "
    # A conversation that was created empty gets its title now.
    f"title = CASE WHEN {_UNTITLED} THEN excluded.title ELSE conversations.title END, "
    f"search_text = CASE WHEN {_UNTITLED} THEN excluded.search_text ELSE conversations.search_text END, "
    f"search_grams = CASE WHEN {_UNTITLED} THEN excluded.search_grams ELSE conversations.search_grams END"
    " RETURNING id, owner, session_id, head_id, updated_at"
)
# From each head up to the last answered message; every stored message that is sent again; and those continued.
_UNANSWERED = "(m.status = 'failed' OR (m.status = 'interrupted' AND m.role <> 'assistant')) AS unanswered"
_READ_NODES = text(
    "WITH RECURSIVE upwards AS ("
    f" SELECT m.id, m.conversation_id, m.parent_id, m.chain, {_UNANSWERED} FROM messages AS m"
    " WHERE m.id = ANY(CAST(:heads AS uuid[]))"
    " UNION ALL"
    f" SELECT m.id, m.conversation_id, m.parent_id, m.chain, {_UNANSWERED} FROM upwards"
    " JOIN messages AS m ON m.id = upwards.parent_id WHERE upwards.unanswered) "
    "SELECT conversation_id, id, chain, unanswered, 'last_answered' AS purpose, 0 AS sequence "
    "FROM upwards WHERE NOT unanswered "
    "UNION ALL "
    f"SELECT m.conversation_id, m.id, m.chain, {_UNANSWERED}, 'repeated', m.sequence "
    f"FROM {recordset(Message, ['conversation_id', 'chain'])} "
    "JOIN messages AS m ON m.conversation_id = new_rows.conversation_id AND m.chain = new_rows.chain "
    "UNION ALL "
    f"SELECT m.conversation_id, m.id, m.chain, {_UNANSWERED}, 'continued', m.sequence FROM messages AS m "
    "WHERE m.id = ANY(CAST(:continued AS uuid[])) ORDER BY sequence"
)
_INSERTED = [name for name in column_names(Message) if name not in ("sequence", "search")]
_INSERTED_NAMES = ", ".join(_INSERTED)
# No content is the JSON null, not the NULL of SQL.
_INSERTED_VALUES = _INSERTED_NAMES.replace(" content,", " coalesce(content, 'null'),")
_WRITE_TREES = text(
    f"INSERT INTO messages ({_INSERTED_NAMES}) SELECT {_INSERTED_VALUES} FROM {recordset(Message, _INSERTED)}; "
    "UPDATE messages SET status = 'complete' WHERE id = ANY(CAST(:answered AS uuid[])); "
    "UPDATE conversations AS c SET head_id = new_rows.head_id, updated_at = new_rows.updated_at, "
    "message_count = c.message_count + new_rows.message_count "
    f"FROM {recordset(Conversation, ['id', *_HEAD_COLUMNS], 'trees')} WHERE c.id = new_rows.id"
)


def append_exchanges(connection: Connection, exchanges: Sequence[Exchange]) -> None:
    """Append exchanges, each with a session, to their conversations, in the connection's transaction.

    Raises sqlalchemy.exc.SQLAlchemyError, and AttributeError for what is not a message.
    """
    if not exchanges:
        return
    turns = {exchange.id: _turn(exchange) for exchange in exchanges}
    chains = {exchange_id: message_chains(turn.messages) for exchange_id, turn in turns.items()}
    trees = _lock_conversations(connection, exchanges)
    _read_nodes(connection, trees, exchanges, chains)
    for exchange in exchanges:
        trees[_key(exchange)].append(turns[exchange.id], chains[exchange.id])
    write_trees(connection, trees.values())


def _turn(exchange: Exchange) -> NewTurn:
    return NewTurn(
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
    )


def _messages(exchange: Exchange) -> Sequence[ChatMessage]:
    return exchange.messages or []


def _key(exchange: Exchange) -> _ConversationKey:
    return exchange.owner, exchange.session_id or ""


def _lock_conversations(connection: Connection, exchanges: Sequence[Exchange]) -> dict[_ConversationKey, MessageTree]:
    """Create conversations that are missing, and lock all of them until the transaction ends."""
    rows: dict[_ConversationKey, dict[str, object]] = {}
    for exchange in exchanges:
        title = conversation_title(_messages(exchange))
        row = {
            "id": new_id(),
            "owner": exchange.owner,
            "session_id": exchange.session_id,
            "title": title,
            **search_columns(title),
            "created_at": exchange.created_at,
            "updated_at": exchange.created_at,
        }
        rows.setdefault(_key(exchange), row)
    locked = connection.execute(_LOCK_CONVERSATIONS, {"rows": rows_as_json(list(rows.values()))})
    return {(row.owner, row.session_id): MessageTree(row.id, row.updated_at, head_id=row.head_id) for row in locked}


def _read_nodes(
    connection: Connection,
    trees: dict[_ConversationKey, MessageTree],
    exchanges: Sequence[Exchange],
    chains: dict[UUID, list[str]],
) -> None:
    """Read the stored messages that the exchanges may repeat or continue, and each tree's last answered one."""
    sent = [
        {"conversation_id": tree.conversation_id, "chain": chain}
        for exchange in exchanges
        if (tree := trees[_key(exchange)]).head_id is not None
        for chain in chains[exchange.id]
    ]
    heads = [str(tree.head_id) for tree in trees.values() if tree.head_id is not None]
    if not heads:
        return
    continued = [str(exchange.continues) for exchange in exchanges if exchange.continues]
    by_id = {tree.conversation_id: tree for tree in trees.values()}
    for row in connection.execute(_READ_NODES, {"rows": rows_as_json(sent), "heads": heads, "continued": continued}):
        # The message that an exchange says it continues may belong to another conversation.
        if row.conversation_id in by_id:
            _add_node(by_id[row.conversation_id], row.purpose, TreeNode(row.id, row.chain.hex, row.unanswered))


def _add_node(tree: MessageTree, purpose: str, node: TreeNode) -> None:
    if purpose == "last_answered":
        tree.last_answered = node
    elif purpose == "continued":
        tree.by_id[node.id] = node
    else:
        tree.by_chain[node.chain] = node


def write_trees(connection: Connection, trees: Iterable[MessageTree]) -> None:
    """Write what was appended to trees whose conversations are locked. Raises sqlalchemy.exc.SQLAlchemyError."""
    rows = [row for tree in trees for row in tree.rows]
    heads = [
        {"id": tree.conversation_id, "head_id": tree.head_id, "updated_at": tree.updated_at,
         "message_count": len(tree.rows)}
        for tree in trees
    ]  # fmt: skip
    answered = [str(node) for tree in trees for node in tree.newly_answered]
    connection.execute(_WRITE_TREES, {"rows": rows_as_json(rows), "answered": answered, "trees": rows_as_json(heads)})
