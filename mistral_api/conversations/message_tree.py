"""The message tree of a conversation: new exchanges are appended to the branch that they continue.

A message follows its parent (``messages.parent_id``); the head of the conversation (``conversations.head_id``) is the
newest message of the current branch. A client that edits an earlier message starts another branch there.

:func:`append_exchanges` takes three round trips for a batch, however many conversations it touches: lock the
conversations, created where missing; read the stored messages that the batch may repeat; write what is new.
:meth:`MessageTree.append` decides in memory where each exchange goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
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
from mistral_api.conversations.stored_message import MessageColumns, assistant_message, chat_message_to_columns
from mistral_api.database.tables.base import column_names, recordset, rows_as_json
from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.completions import GeneratedMessage
from mistral_api.recording.exchange import Exchange
from mistral_api.system.identifiers import new_id

TITLE_LENGTH = 80


class NewMessageRow(MessageColumns):
    """A row to insert into ``messages``. ``words`` is the text that is searched."""

    id: UUID
    conversation_id: UUID
    parent_id: UUID | None
    chain: str
    words: str | None
    status: str
    request_id: str
    created_at: datetime
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(slots=True)
class TreeNode:
    """A message of the tree, as far as it is needed to append others below it.

    An ``unanswered`` message belongs to a request that failed or was interrupted before there was an answer.
    """

    id: UUID
    chain: str
    unanswered: bool = False


@dataclass(slots=True)
class MessageTree:
    """One conversation while exchanges are appended to it.

    ``last_answered`` is the newest message of the current branch that is not unanswered. ``by_chain`` has the stored
    messages that the exchanges repeat, ``by_id`` those that the exchanges say they continue. ``rows`` are to be
    inserted; ``newly_answered`` are stored messages that are unanswered no longer.
    """

    conversation_id: UUID
    updated_at: datetime
    last_answered: TreeNode | None = None
    head_id: UUID | None = None
    by_chain: dict[str, TreeNode] = field(default_factory=dict)
    by_id: dict[UUID, TreeNode] = field(default_factory=dict)
    rows: list[NewMessageRow] = field(default_factory=list)
    newly_answered: list[UUID] = field(default_factory=list)

    def append(self, exchange: Exchange, chains: Sequence[str]) -> None:
        """Append the new messages and the answers of an exchange; ``chains`` are those of its messages.

        The first answer becomes the head. Other answers (``n``) are its siblings.
        """
        parent, messages = self._place(exchange, chains)
        status = "complete" if exchange.answers else exchange.answer_status
        ids = exchange.message_ids or [new_id() for _ in messages]
        for message_id, message in zip(ids, messages, strict=True):
            parent = self._add(exchange, parent, message, status, message_id)
        self.head_id = parent.id if parent else None
        answers = [
            self._add_answer(exchange, parent, answer, exchange.answer_id if number == 0 else None)
            for number, answer in enumerate(exchange.answers or [])
        ]
        if answers:
            # The tokens of all answers are counted with the first.
            first = self.rows[-len(answers)]
            first["prompt_tokens"], first["completion_tokens"] = exchange.prompt_tokens, exchange.completion_tokens
            self.head_id, self.last_answered = answers[0].id, answers[0]
        elif status == "complete":
            self.last_answered = parent
        self.updated_at = max(self.updated_at, exchange_end(exchange))

    def _place(self, exchange: Exchange, chains: Sequence[str]) -> tuple[TreeNode | None, Sequence[ChatMessage]]:
        """Return the message below which an exchange goes, None for the root, and which of its messages are new.

        - An exchange that says what it continues, or has ids for its messages already, is new as a whole.
        - A list that repeats stored messages up to an answer goes below the last one of these; the rest is new.
        - Any other list goes below the last answered message; system messages that it repeats are not stored again.
          Messages after the last answered one never got an answer. They stay behind as a side branch.
        """
        sent = _messages(exchange)
        continued = self.by_id.get(exchange.continues) if exchange.continues else None
        if continued is not None or exchange.message_ids:
            return continued or self.last_answered, sent
        roles = [message.get("role") for message in sent]
        shared = shared_prefix_length(chains, roles, self.by_chain)
        if shared:
            self._mark_answered(chains[:shared])
            return self.by_chain[chains[shared - 1]], sent[shared:]
        return self.last_answered, sent[repeated_system_length(chains, roles, self.by_chain) :]

    def _mark_answered(self, chains: Sequence[str]) -> None:
        """Note that unanswered messages did get an answer: the client sends them again, with the answer behind them."""
        nodes = (self.by_chain.get(chain) for chain in chains)
        self.newly_answered += [node.id for node in nodes if node is not None and node.unanswered]

    def _add_answer(
        self, exchange: Exchange, parent: TreeNode | None, answer: GeneratedMessage, answer_id: UUID | None
    ) -> TreeNode:
        message = assistant_message(answer)
        node = self._add(exchange, parent, message, exchange.answer_status, answer_id or new_id())
        self.rows[-1]["created_at"], self.rows[-1]["model"] = exchange_end(exchange), exchange.model
        return node

    def _add(
        self, exchange: Exchange, parent: TreeNode | None, message: ChatMessage, status: str, message_id: UUID
    ) -> TreeNode:
        chain = extend_chain(parent.chain if parent else "", message_digest(message))
        unanswered = status == "failed" or (status == "interrupted" and message.get("role") != "assistant")
        node = self.by_chain[chain] = self.by_id[message_id] = TreeNode(message_id, chain, unanswered)
        self.rows.append(
            {
                "id": node.id,
                "conversation_id": self.conversation_id,
                "parent_id": parent.id if parent else None,
                **chat_message_to_columns(message),
                "chain": node.chain,
                "words": searchable_text(message.get("content")),
                "status": status,
                "request_id": exchange.public_request_id,
                "created_at": exchange.created_at,
                "model": None,
                "prompt_tokens": None,
                "completion_tokens": None,
            }
        )
        return node


def exchange_end(exchange: Exchange) -> datetime:
    """Return when an exchange ended."""
    return exchange.created_at + timedelta(milliseconds=exchange.latency_ms)


def conversation_title(messages: Sequence[ChatMessage]) -> str | None:
    """Return the beginning of the user's first text."""
    for message in messages:
        words = searchable_text(message.get("content")) if message.get("role") == "user" else None
        if words and words.strip():
            return " ".join(words.split())[:TITLE_LENGTH]
    return None


_ConversationKey = tuple[str, str]

_HEAD_COLUMNS = ("head_id", "updated_at", "message_count")
_NEW_COLUMNS = ("id", "owner", "session_id", "title", "created_at", "updated_at")
_UNTITLED = "conversations.head_id IS NULL AND conversations.title IS NULL"
# Always in the same order, so that two transactions never wait for each other's rows.
_LOCK_CONVERSATIONS = text(
    "INSERT INTO conversations (id, owner, session_id, title, search, created_at, updated_at) "
    f"SELECT id, owner, session_id, title, to_tsvector('{TEXT_SEARCH_CONFIGURATION}', title), created_at, updated_at "
    f"FROM {recordset(Conversation, _NEW_COLUMNS)} ORDER BY owner, session_id "
    "ON CONFLICT (owner, session_id) DO UPDATE SET "
    "updated_at = greatest(conversations.updated_at, excluded.updated_at), "
    # A conversation that was created empty gets its title now.
    f"title = CASE WHEN {_UNTITLED} THEN excluded.title ELSE conversations.title END, "
    f"search = CASE WHEN {_UNTITLED} THEN excluded.search ELSE conversations.search END"
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
    f"INSERT INTO messages ({_INSERTED_NAMES}, search) "
    f"SELECT {_INSERTED_VALUES}, to_tsvector('{TEXT_SEARCH_CONFIGURATION}', words) "
    f"FROM {recordset(Message, _INSERTED, more=['words text'])}; "
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
    chains = {exchange.id: message_chains(_messages(exchange)) for exchange in exchanges}
    trees = _lock_conversations(connection, exchanges)
    _read_nodes(connection, trees, exchanges, chains)
    for exchange in exchanges:
        trees[_key(exchange)].append(exchange, chains[exchange.id])
    write_trees(connection, trees.values())


def _messages(exchange: Exchange) -> Sequence[ChatMessage]:
    return exchange.messages or []


def _key(exchange: Exchange) -> _ConversationKey:
    return exchange.owner, exchange.session_id or ""


def _lock_conversations(connection: Connection, exchanges: Sequence[Exchange]) -> dict[_ConversationKey, MessageTree]:
    """Create conversations that are missing, and lock all of them until the transaction ends."""
    rows: dict[_ConversationKey, dict[str, object]] = {}
    for exchange in exchanges:
        row = {
            "id": new_id(),
            "owner": exchange.owner,
            "session_id": exchange.session_id,
            "title": conversation_title(_messages(exchange)),
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
