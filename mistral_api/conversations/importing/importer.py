"""Imported conversations in PostgreSQL: what is not there yet is written, a whole conversation in one transaction.

A message that is stored under its id already is left alone, so that an import can be repeated, or go on after it was
killed. The rules for a conversation that is there already:

- Only messages that are new are added. They follow the messages that they follow in the export.
- The current branch becomes that of the export if there are new messages, and if it has not been continued here.
- Title and metadata stay as they are here.
- A message that was deleted here does not come back as long as a message below it is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from mistral_api.conversations.importing.imported import (
    ImportedConversation,
    ImportedMessage,
    MalformedConversation,
)
from mistral_api.conversations.message_matching import message_digest
from mistral_api.conversations.message_tree import MessageTree, NewMessageRow, depth_below, stored_digest
from mistral_api.conversations.message_tree_store import write_trees
from mistral_api.conversations.search_text import search_columns
from mistral_api.conversations.stored_message import chat_message_to_columns
from mistral_api.database.deadlines import without_deadline
from mistral_api.database.errors import error_message, is_row_error
from mistral_api.database.tables.base import recordset, rows_as_json
from mistral_api.database.tables.conversations import Conversation
from mistral_api.system.identifiers import new_id

# A batch ends with the first of these.
_MOST_CONVERSATIONS = 100
_MOST_CHARACTERS = 1 << 20

_COLUMNS = (
    "id", "owner", "session_id", "title", "search_text", "search_grams", "metadata", "created_at", "updated_at",
)  # fmt: skip
_NAMES = ", ".join(_COLUMNS)
_READ_CONVERSATIONS = text(
    "SELECT c.id, c.owner, c.session_id, c.head_id, c.updated_at "
    f"FROM {recordset(Conversation, ['owner', 'session_id'])} "
    "JOIN conversations AS c ON c.owner = new_rows.owner AND c.session_id = new_rows.session_id"
)
# Always in the same order, so that two transactions never wait for each other's rows.
_LOCK_CONVERSATIONS = text(
    f"INSERT INTO conversations ({_NAMES}) SELECT {_NAMES} "
    f"FROM {recordset(Conversation, _COLUMNS)} ORDER BY owner, session_id "
    "ON CONFLICT (owner, session_id) DO UPDATE SET "
    "updated_at = greatest(conversations.updated_at, excluded.updated_at) "
    "RETURNING id, owner, session_id, head_id, updated_at"
)
_READ_MESSAGES = text("SELECT id, conversation_id, depth FROM messages WHERE id = ANY(CAST(:ids AS uuid[]))")


@dataclass(frozen=True, slots=True)
class ImportedResult:
    """What became of one conversation: whether it was there before, and how many messages are new, none perhaps.

    ``reason`` says why nothing could be stored, as the predicate of a sentence.
    """

    conversation: ImportedConversation
    was_stored: bool = False
    new_messages: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    """A stored conversation, and those messages of an import that are stored, by id with their depths.

    A depth is null for a message whose digest is not known yet (``message_tree``).
    """

    id: UUID
    head_id: UUID | None
    updated_at: datetime
    depths: dict[UUID, int | None] = field(default_factory=dict)


def batches(conversations: Iterable[ImportedConversation]) -> Iterator[list[ImportedConversation]]:
    """Yield conversations in batches that are small in memory and in which no conversation stands twice."""
    batch: dict[tuple[str, str], ImportedConversation] = {}
    characters = 0
    for conversation in conversations:
        if conversation.key in batch or len(batch) == _MOST_CONVERSATIONS or characters >= _MOST_CHARACTERS:
            yield list(batch.values())
            batch, characters = {}, 0
        batch[conversation.key] = conversation
        characters += conversation.characters
    if batch:
        yield list(batch.values())


class ConversationImporter:
    """Stores conversations. With ``dry_run`` it only reads, and says what it would store."""

    def __init__(self, engine: Engine, *, dry_run: bool = False) -> None:
        self._engine = engine
        self._dry_run = dry_run

    def store(self, batch: Sequence[ImportedConversation]) -> list[ImportedResult]:
        """Store a batch in one transaction; one by one where PostgreSQL refuses any of its rows.

        Raises sqlalchemy.exc.SQLAlchemyError where PostgreSQL cannot be used.
        """
        try:
            return self._store(batch)
        except (DBAPIError, MalformedConversation, TypeError) as error:
            if not is_row_error(error):
                raise
            if len(batch) > 1:
                return [result for conversation in batch for result in self.store([conversation])]
            return [ImportedResult(batch[0], reason=_refusal(error))]

    def _store(self, batch: Sequence[ImportedConversation]) -> list[ImportedResult]:
        with self._engine.begin() as connection, without_deadline(connection):
            stored = _with_messages(connection, batch, _rows(connection, batch))
            results = [_result(conversation, stored.get(conversation.key)) for conversation in batch]
            changed = [result.conversation for result in results if not result.was_stored or result.new_messages]
            if changed and not self._dry_run:
                _write(connection, changed)
        return results


def _refusal(error: Exception) -> str:
    if isinstance(error, MalformedConversation):
        return str(error)
    return f"cannot be stored: {error_message(error)}"


def _rows(connection: Connection, batch: Sequence[ImportedConversation]) -> dict[tuple[str, str], _Stored]:
    keys = [{"owner": each.owner, "session_id": each.session_id} for each in batch]
    return _by_key(connection.execute(_READ_CONVERSATIONS, {"rows": rows_as_json(keys)}).all())


def _by_key(rows: Iterable[object]) -> dict[tuple[str, str], _Stored]:
    return {
        (row.owner, row.session_id): _Stored(row.id, row.head_id, row.updated_at)  # type: ignore[attr-defined]
        for row in rows
    }


def _with_messages(
    connection: Connection, batch: Sequence[ImportedConversation], stored: dict[tuple[str, str], _Stored]
) -> dict[tuple[str, str], _Stored]:
    """Add those messages of a batch that are stored. Raises MalformedConversation for another conversation's."""
    ids = [str(message.id) for conversation in batch for message in conversation.messages]
    rows = {row.id: row for row in connection.execute(_READ_MESSAGES, {"ids": ids})}
    for conversation in batch:
        found = [rows[message.id] for message in conversation.messages if message.id in rows]
        own = stored.get(conversation.key)
        if any(own is None or row.conversation_id != own.id for row in found):
            raise MalformedConversation("has messages that are stored in another conversation already")
        if own is not None:
            own.depths.update((row.id, row.depth) for row in found)
    return stored


def _result(conversation: ImportedConversation, stored: _Stored | None) -> ImportedResult:
    if stored is None:
        return ImportedResult(conversation, new_messages=len(conversation.messages))
    deleted = _deleted(conversation, stored)
    new = [each for each in conversation.messages if each.id not in stored.depths and each.id not in deleted]
    return ImportedResult(conversation, was_stored=True, new_messages=len(new))


def _deleted(conversation: ImportedConversation, stored: _Stored) -> set[UUID]:
    """Return the messages that were deleted here: those that are not stored, but a message below them is."""
    above = {message.id: message.parent_id for message in conversation.messages}
    deleted: set[UUID] = set()
    for message in conversation.messages:
        parent = message.parent_id if message.id in stored.depths else None
        while parent is not None and parent not in stored.depths and parent not in deleted:
            deleted.add(parent)
            parent = above[parent]
    return deleted


def _write(connection: Connection, conversations: Sequence[ImportedConversation]) -> None:
    rows = [
        {
            "id": new_id(),
            "owner": each.owner,
            "session_id": each.session_id,
            "title": each.title,
            **search_columns(each.title),
            "metadata": each.metadata,
            "created_at": each.created_at,
            "updated_at": each.updated_at,
        }
        for each in conversations
    ]
    locked = _by_key(connection.execute(_LOCK_CONVERSATIONS, {"rows": rows_as_json(rows)}).all())
    stored = _with_messages(connection, conversations, locked)
    write_trees(connection, [_tree(conversation, stored[conversation.key]) for conversation in conversations])


def _tree(conversation: ImportedConversation, stored: _Stored) -> MessageTree:
    """Return the tree with the new messages of a conversation, ready to be written."""
    deleted = _deleted(conversation, stored)
    tree = MessageTree(stored.id, stored.updated_at, head_id=stored.head_id)
    depths: dict[UUID | None, int | None] = {None: -1}
    depths.update(stored.depths.items())
    resolved: dict[UUID | None, UUID | None] = {None: None}
    for message in conversation.messages:
        parent = resolved[message.parent_id]
        resolved[message.id] = parent if message.id in deleted else message.id
        if message.id not in stored.depths and message.id not in deleted:
            row = _message_row(stored.id, message, parent, depths[parent])
            depths[message.id] = row["depth"]
            tree.rows.append(row)
    own_ids = {message.id for message in conversation.messages}
    if tree.rows and (stored.head_id is None or stored.head_id in own_ids):
        tree.head_id = resolved[conversation.head_id]
    return tree


def _message_row(
    conversation_id: UUID, message: ImportedMessage, parent_id: UUID | None, parent_depth: int | None
) -> NewMessageRow:
    """Return the row of a message below a stored or new one. Without the depth of that, it gets a digest later."""
    digest = message_digest(message.message)
    return {
        "id": message.id,
        "conversation_id": conversation_id,
        "parent_id": parent_id,
        **chat_message_to_columns(message.message),
        "digest": None if parent_depth is None else stored_digest(digest),
        "depth": None if parent_depth is None else depth_below(parent_depth, digest),
        "framing": message.framing,
        "sent": message.sent,
        "status": message.status,
        "request_id": message.request_id,
        "created_at": message.created_at,
        "model": message.model,
        "prompt_tokens": message.prompt_tokens,
        "completion_tokens": message.completion_tokens,
    }
