"""Adding exchanges to their conversations: only what is new, on the branch it belongs to.

A batch takes three round trips, however many conversations it touches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from mistral_api.conversations.matching import chains_of
from mistral_api.conversations.searching import CONFIGURATION, searchable_text
from mistral_api.conversations.tree import Node, Tree
from mistral_api.exchange import Exchange
from mistral_api.identifiers import new_id
from mistral_api.tables.conversation import Conversation, Message
from mistral_api.tables.recordset import column_names, recordset, written

TITLE_LENGTH = 80
_HEAD = ("head_id", "updated_at", "message_count")

_Key = tuple[str, str]

_NEW = ("id", "owner", "session_id", "title", "created_at", "updated_at")
_UNTITLED = "conversations.head_id IS NULL AND conversations.title IS NULL"
# In one order always, so that two transactions never wait for each other's rows.
_OPEN = text(
    "INSERT INTO conversations (id, owner, session_id, title, search, created_at, updated_at) "
    f"SELECT id, owner, session_id, title, to_tsvector('{CONFIGURATION}', title), created_at, updated_at "
    f"FROM {recordset(Conversation, _NEW)} ORDER BY owner, session_id "
    "ON CONFLICT (owner, session_id) DO UPDATE SET "
    "updated_at = greatest(conversations.updated_at, excluded.updated_at), "
    # One that was made empty gets its title now.
    f"title = CASE WHEN {_UNTITLED} THEN excluded.title ELSE conversations.title END, "
    f"search = CASE WHEN {_UNTITLED} THEN excluded.search ELSE conversations.search END"
    " RETURNING id, owner, session_id, head_id, updated_at"
)
# Upwards from each head to the last answered turn, every stored message that is sent again, and those continued.
_UNANSWERED = "(m.status = 'failed' OR (m.status = 'interrupted' AND m.role <> 'assistant')) AS unanswered"
_READ = text(
    "WITH RECURSIVE upwards AS ("
    f" SELECT m.id, m.conversation_id, m.parent_id, m.chain, {_UNANSWERED} FROM messages AS m"
    " WHERE m.id = ANY(CAST(:heads AS uuid[]))"
    " UNION ALL"
    f" SELECT m.id, m.conversation_id, m.parent_id, m.chain, {_UNANSWERED} FROM upwards"
    " JOIN messages AS m ON m.id = upwards.parent_id WHERE upwards.unanswered) "
    "SELECT conversation_id, id, chain, unanswered, 'resume' AS found, 0 AS sequence FROM upwards WHERE NOT unanswered "
    "UNION ALL "
    f"SELECT m.conversation_id, m.id, m.chain, {_UNANSWERED}, 'repeated', m.sequence "
    f"FROM {recordset(Message, ['conversation_id', 'chain'])} "
    "JOIN messages AS m ON m.conversation_id = given.conversation_id AND m.chain = given.chain "
    "UNION ALL "
    f"SELECT m.conversation_id, m.id, m.chain, {_UNANSWERED}, 'continued', m.sequence FROM messages AS m "
    "WHERE m.id = ANY(CAST(:continued AS uuid[])) ORDER BY sequence"
)
_WRITTEN = [name for name in column_names(Message) if name not in ("sequence", "search")]
_NAMES = ", ".join(_WRITTEN)
# No content is the JSON null, not the NULL of SQL.
_VALUES = _NAMES.replace(" content,", " coalesce(content, 'null'),")
_WRITE = text(
    f"INSERT INTO messages ({_NAMES}, search) "
    f"SELECT {_VALUES}, to_tsvector('{CONFIGURATION}', words) "
    f"FROM {recordset(Message, _WRITTEN, more=['words text'])}; "
    "UPDATE messages SET status = 'complete' WHERE id = ANY(CAST(:answered AS uuid[])); "
    "UPDATE conversations AS c SET head_id = given.head_id, updated_at = given.updated_at, "
    "message_count = c.message_count + given.message_count "
    f"FROM {recordset(Conversation, ['id', *_HEAD], 'trees')} WHERE c.id = given.id"
)


def append_exchanges(connection: Connection, exchanges: Sequence[Exchange]) -> None:
    """Append the messages of exchanges, each with a session, in the connection's transaction.

    Raises sqlalchemy.exc.SQLAlchemyError, and AttributeError for what is not a message.
    """
    if not exchanges:
        return
    chains = {exchange.id: chains_of(exchange.messages or []) for exchange in exchanges}
    trees = _open(connection, exchanges)
    _read(connection, trees, exchanges, chains)
    for exchange in exchanges:
        trees[_key(exchange)].append(exchange, chains[exchange.id])
    write_trees(connection, trees.values())


def _key(exchange: Exchange) -> _Key:
    return exchange.owner, exchange.session_id or ""


def _open(connection: Connection, exchanges: Sequence[Exchange]) -> dict[_Key, Tree]:
    """Every conversation, made if need be, and locked until the transaction ends."""
    new: dict[_Key, dict[str, Any]] = {}
    for exchange in exchanges:
        row = {
            "id": new_id(),
            "owner": exchange.owner,
            "session_id": exchange.session_id,
            "title": title_of(exchange.messages or []),
            "created_at": exchange.created_at,
            "updated_at": exchange.created_at,
        }
        new.setdefault(_key(exchange), row)
    rows = connection.execute(_OPEN, {"rows": written(list(new.values()))})
    return {(row.owner, row.session_id): Tree(row.id, row.updated_at, head_id=row.head_id) for row in rows}


def _read(
    connection: Connection,
    trees: dict[_Key, Tree],
    exchanges: Sequence[Exchange],
    chains: dict[UUID, list[str]],
) -> None:
    """Read what the exchanges may repeat, and where each conversation goes on."""
    wanted = [
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
    for row in connection.execute(_READ, {"rows": written(wanted), "heads": heads, "continued": continued}):
        # What an exchange says it continues may lie in a conversation that is not its own.
        if row.conversation_id in by_id:
            _take(by_id[row.conversation_id], row.found, Node(row.id, row.chain.hex, row.unanswered))


def _take(tree: Tree, found: str, node: Node) -> None:
    if found == "resume":
        tree.resume = node
    elif found == "continued":
        tree.named[node.id] = node
    else:
        tree.known[node.chain] = node


def write_trees(connection: Connection, trees: Iterable[Tree]) -> None:
    """Write what was appended to trees whose conversations are locked. Raises sqlalchemy.exc.SQLAlchemyError."""
    rows = [row for tree in trees for row in tree.rows]
    heads = [
        {"id": tree.conversation_id, "head_id": tree.head_id, "updated_at": tree.updated_at,
         "message_count": len(tree.rows)}
        for tree in trees
    ]  # fmt: skip
    answered = [str(node) for tree in trees for node in tree.answered]
    connection.execute(_WRITE, {"rows": written(rows), "answered": answered, "trees": written(heads)})


def title_of(sent: Sequence[dict[str, Any]]) -> str | None:
    """The beginning of what the user said first."""
    for message in sent:
        said = searchable_text(message.get("content")) if message.get("role") == "user" else None
        if said and said.strip():
            return " ".join(said.split())[:TITLE_LENGTH]
    return None
