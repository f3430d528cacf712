"""New messages appended to the right branch, in batches.

The part of a conversation's tree that a batch of exchanges touches, and where each of them goes.

Adding exchanges to their conversations: only what is new, on the branch it belongs to.

A batch takes three round trips, however many conversations it touches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from mistral_api.conversations.message_matching import (
    extend_chain,
    message_chains,
    message_digest,
    repeated_system_length,
    shared_prefix_length,
)
from mistral_api.conversations.search import TEXT_SEARCH_CONFIGURATION, searchable_text
from mistral_api.database.tables.base import column_names, recordset, rows_as_json
from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.recording.exchange import Exchange
from mistral_api.system.identifiers import new_id

_OWN_COLUMNS = ("role", "content", "tool_calls")
Row = dict[str, Any]


@dataclass(slots=True)
class TreeNode:
    """A message of the tree: enough to hang others below it."""

    id: UUID
    chain: str
    unanswered: bool = False


@dataclass(slots=True)
class MessageTree:
    """One conversation while exchanges are appended to it.

    ``known`` has the stored messages that the exchanges may repeat, by chain; ``resume`` is the last message
    of the current branch that belongs to an answered turn, ``named`` has those that exchanges say they continue.
    What is to be written gathers in ``rows``.
    """

    conversation_id: UUID
    updated_at: datetime
    last_answered: TreeNode | None = None
    head_id: UUID | None = None
    by_chain: dict[str, TreeNode] = field(default_factory=dict)
    by_id: dict[UUID, TreeNode] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    newly_answered: list[UUID] = field(default_factory=list)

    def append(self, exchange: Exchange, chains: Sequence[str]) -> None:
        """Add what is new of an exchange, on the branch it belongs to; ``chains`` are those of its messages."""
        parent, new = self._place(exchange, chains)
        status = "complete" if exchange.answers else exchange.answer_status
        ids = exchange.message_ids or [new_id() for _ in new]
        for message_id, message in zip(ids, new, strict=True):
            parent = self._add(exchange, parent, message, status, message_id)
        self.head_id = parent.id if parent else None
        answers = [
            self._answer(exchange, parent, answer, exchange.answer_id if number == 0 else None)
            for number, answer in enumerate(exchange.answers or [])
        ]
        if answers:
            # The first of several choices is the one the conversation goes on from; the tokens stand with it.
            first = self.rows[-len(answers)]
            first["prompt_tokens"], first["completion_tokens"] = exchange.prompt_tokens, exchange.completion_tokens
            self.head_id, self.last_answered = answers[0].id, answers[0]
        elif status == "complete":
            self.last_answered = parent
        self.updated_at = max(self.updated_at, exchange_end(exchange))

    def _place(self, exchange: Exchange, chains: Sequence[str]) -> tuple[TreeNode | None, Sequence[Row]]:
        """The message to append to, and the sent messages that are new: all of them, where it is known what they
        continue, or where they have ids already."""
        sent = exchange.messages or []
        continued = self.by_id.get(exchange.continues) if exchange.continues else None
        if continued is not None or exchange.message_ids:
            return continued or self.last_answered, sent
        roles = [message.get("role") for message in sent]
        shared = shared_prefix_length(chains, roles, self.by_chain)
        if shared:
            return self._after_shared(chains[:shared]), sent[shared:]
        return self.last_answered, sent[repeated_system_length(chains, roles, self.by_chain) :]

    def _after_shared(self, chains: Sequence[str]) -> TreeNode:
        """The end of what a client has sent again: only a list that repeats an answer proves that it resends history.

        Others go on from the last answer: messages that were never answered are left as a side branch.
        """
        again = (self.by_chain.get(chain) for chain in chains)
        self.newly_answered += [node.id for node in again if node is not None and node.unanswered]
        return self.by_chain[chains[-1]]

    def _answer(self, exchange: Exchange, parent: TreeNode | None, answer: Row, given: UUID | None) -> TreeNode:
        """One of the model's choices."""
        said = {"role": "assistant"} | answer
        node = self._add(exchange, parent, said, exchange.answer_status, given or new_id())
        self.rows[-1] |= {"created_at": exchange_end(exchange), "model": exchange.model}
        return node

    def _add(
        self, exchange: Exchange, parent: TreeNode | None, message: Row, status: str, message_id: UUID
    ) -> TreeNode:
        chain = extend_chain(parent.chain if parent else "", message_digest(message))
        unanswered = status == "failed" or (status == "interrupted" and message.get("role") != "assistant")
        node = self.by_chain[chain] = self.by_id[message_id] = TreeNode(message_id, chain, unanswered)
        self.rows.append(self._row(exchange, node, parent, message, status))
        return node

    def _row(self, exchange: Exchange, node: TreeNode, parent: TreeNode | None, message: Row, status: str) -> Row:
        extra = {name: value for name, value in message.items() if name not in _OWN_COLUMNS and value is not None}
        return {
            "id": node.id,
            "conversation_id": self.conversation_id,
            "parent_id": parent.id if parent else None,
            "role": message.get("role", "user"),
            "content": message.get("content"),
            "tool_calls": message.get("tool_calls"),
            "extra": extra or None,
            "chain": node.chain,
            "words": searchable_text(message.get("content")),
            "status": status,
            "request_id": exchange.public_request_id,
            "created_at": exchange.created_at,
        }


def exchange_end(exchange: Exchange) -> datetime:
    """When an exchange ended."""
    return exchange.created_at + timedelta(milliseconds=exchange.latency_ms)


TITLE_LENGTH = 80
_HEAD = ("head_id", "updated_at", "message_count")

_Key = tuple[str, str]

_NEW = ("id", "owner", "session_id", "title", "created_at", "updated_at")
_UNTITLED = "conversations.head_id IS NULL AND conversations.title IS NULL"
# In one order always, so that two transactions never wait for each other's rows.
_OPEN = text(
    "INSERT INTO conversations (id, owner, session_id, title, search, created_at, updated_at) "
    f"SELECT id, owner, session_id, title, to_tsvector('{TEXT_SEARCH_CONFIGURATION}', title), created_at, updated_at "
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
    "JOIN messages AS m ON m.conversation_id = new_rows.conversation_id AND m.chain = new_rows.chain "
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
    f"SELECT {_VALUES}, to_tsvector('{TEXT_SEARCH_CONFIGURATION}', words) "
    f"FROM {recordset(Message, _WRITTEN, more=['words text'])}; "
    "UPDATE messages SET status = 'complete' WHERE id = ANY(CAST(:answered AS uuid[])); "
    "UPDATE conversations AS c SET head_id = new_rows.head_id, updated_at = new_rows.updated_at, "
    "message_count = c.message_count + new_rows.message_count "
    f"FROM {recordset(Conversation, ['id', *_HEAD], 'trees')} WHERE c.id = new_rows.id"
)


def append_exchanges(connection: Connection, exchanges: Sequence[Exchange]) -> None:
    """Append the messages of exchanges, each with a session, in the connection's transaction.

    Raises sqlalchemy.exc.SQLAlchemyError, and AttributeError for what is not a message.
    """
    if not exchanges:
        return
    chains = {exchange.id: message_chains(exchange.messages or []) for exchange in exchanges}
    trees = _open(connection, exchanges)
    _read(connection, trees, exchanges, chains)
    for exchange in exchanges:
        trees[_key(exchange)].append(exchange, chains[exchange.id])
    write_trees(connection, trees.values())


def _key(exchange: Exchange) -> _Key:
    return exchange.owner, exchange.session_id or ""


def _open(connection: Connection, exchanges: Sequence[Exchange]) -> dict[_Key, MessageTree]:
    """Every conversation, made if need be, and locked until the transaction ends."""
    new: dict[_Key, dict[str, Any]] = {}
    for exchange in exchanges:
        row = {
            "id": new_id(),
            "owner": exchange.owner,
            "session_id": exchange.session_id,
            "title": conversation_title(exchange.messages or []),
            "created_at": exchange.created_at,
            "updated_at": exchange.created_at,
        }
        new.setdefault(_key(exchange), row)
    rows = connection.execute(_OPEN, {"rows": rows_as_json(list(new.values()))})
    return {(row.owner, row.session_id): MessageTree(row.id, row.updated_at, head_id=row.head_id) for row in rows}


def _read(
    connection: Connection,
    trees: dict[_Key, MessageTree],
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
    for row in connection.execute(_READ, {"rows": rows_as_json(wanted), "heads": heads, "continued": continued}):
        # What an exchange says it continues may lie in a conversation that is not its own.
        if row.conversation_id in by_id:
            _take(by_id[row.conversation_id], row.found, TreeNode(row.id, row.chain.hex, row.unanswered))


def _take(tree: MessageTree, found: str, node: TreeNode) -> None:
    if found == "resume":
        tree.last_answered = node
    elif found == "continued":
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
    connection.execute(_WRITE, {"rows": rows_as_json(rows), "answered": answered, "trees": rows_as_json(heads)})


def conversation_title(sent: Sequence[dict[str, Any]]) -> str | None:
    """The beginning of what the user said first."""
    for message in sent:
        said = searchable_text(message.get("content")) if message.get("role") == "user" else None
        if said and said.strip():
            return " ".join(said.split())[:TITLE_LENGTH]
    return None
