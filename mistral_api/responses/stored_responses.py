"""Stored responses: the rows in PostgreSQL, and a cache of the newest ones in memory.

With the cache a chain of responses continues without waiting for a PostgreSQL that is far away, or down.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import orjson
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from mistral_api.conversations.stored_message import (
    StoredMessage,
    assistant_message,
    prompt_message,
    row_to_chat_message,
)
from mistral_api.database.tables.conversations import Message
from mistral_api.database.tables.stored import StoredResponse
from mistral_api.errors import NotFound
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.completions import GeneratedMessage
from mistral_api.payload_types.responses import Response
from mistral_api.recording.exchange import replace_nul

# The size of the cached responses as JSON, in bytes. The objects in memory take a few times as much.
MAX_CACHED_BYTES = 32 << 20

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

    ``status`` is that of the response that it continues, None where it continues none.
    """

    session_id: str
    continues: UUID | None = None
    messages: list[ChatMessage] = field(default_factory=list)
    status: str | None = None


def response_not_found(response_id: str) -> NotFound:
    """Return the error for a response that its owner does not have."""
    return NotFound(f"Response with id '{response_id[:100]}' not found.", param="response_id")


def read_context(session: Session, owner: str, response_id: str, *, deleted: bool = False) -> StoredContext:
    """Return all messages up to the answer of an owner's response. Raises NotFound.

    ``deleted`` finds a deleted response too: its messages stay while later responses continue it.
    """
    rows = session.execute(_CONTEXT, {"id": response_id, "owner": owner, "deleted": deleted}).all()
    if not rows:
        raise response_not_found(response_id)
    messages = [prompt_message(row_to_chat_message(row)) for row in rows if row.role is not None]
    return StoredContext(rows[0].session_id, rows[0].answer_id, messages, rows[0].response_status)


def find_response(session: Session, owner: str, response_id: str) -> StoredResponse:
    """Return an owner's response. Raises NotFound, also for a deleted one."""
    response = session.get(StoredResponse, response_id)
    if response is None or response.owner != owner or response.deleted:
        raise response_not_found(response_id)
    return response


def read_input(session: Session, response: StoredResponse) -> list[StoredMessage]:
    """Return the input of a response in its order, without messages that were deleted."""
    rows = session.scalars(select(Message).where(Message.id.in_(response.input_ids)))
    by_id = {row.id: StoredMessage.from_row(row) for row in rows}
    return [by_id[message_id] for message_id in response.input_ids if message_id in by_id]


def delete_response(session: Session, owner: str, response_id: str, made_prefix: str) -> str | None:
    """Delete a response, and its conversation if that holds nothing else. Return the session id of the latter.

    Messages on which later responses build stay. A conversation is deleted only if its session id begins with
    ``made_prefix``, so that no client chose it. Raises NotFound.
    """
    conversation = session.scalar(_DELETE, {"id": response_id, "owner": owner})
    if conversation is None:
        raise response_not_found(response_id)
    session_id: str | None = session.scalar(_DELETE_UNUSED, {"conversation": conversation, "made": made_prefix})
    session.commit()
    return session_id


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """A finished response, with its input and its answer as they were recorded, in chat form.

    ``in_chain`` says that it continues its previous response alone, or nothing; it does not belong to a conversation
    that others add to.
    """

    owner: str
    session_id: str
    body: Response
    input_ids: list[UUID]
    input: Sequence[ChatMessage]
    answer_id: UUID | None
    answer: GeneratedMessage | None
    in_chain: bool

    @property
    def id(self) -> str:
        """The id of the response."""
        return self.body["id"]

    @property
    def prompt_messages(self) -> list[ChatMessage]:
        """Input and answer as the model gets them again, as PostgreSQL would return them."""
        answer = [] if self.answer is None else [assistant_message(self.answer)]
        return [prompt_message(message) for message in [*self.input, *answer]]


@dataclass(frozen=True, slots=True)
class CachedChain:
    """The cached end of a chain. ``previous_response_id`` is the response before it, which is not cached, if any."""

    context: StoredContext
    previous_response_id: str | None


class ResponseCache:
    """The newest responses by id, as many as fit. Safe to use from many threads."""

    def __init__(self, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[CachedResponse, int]] = OrderedDict()
        self._bytes = 0

    def add(self, response: CachedResponse) -> None:
        """Add a response. The oldest ones are removed where there is no room for all."""
        encoded = orjson.dumps([response.body, response.input, response.answer])
        size = len(encoded)
        if rb"\u0000" in encoded:
            response = replace(
                response,
                body=replace_nul(response.body),
                input=replace_nul(response.input),
                answer=replace_nul(response.answer),
            )
        with self._lock:
            self._entries[response.id] = response, size
            self._bytes += size
            while self._bytes > self._max_bytes:
                _, (_, freed) = self._entries.popitem(last=False)
                self._bytes -= freed

    def get(self, owner: str, response_id: str) -> CachedResponse | None:
        """Return an owner's response, or None where it is not cached."""
        response, _ = self._entries.get(response_id, (None, 0))
        return response if response is not None and response.owner == owner else None

    def chain(self, owner: str, response_id: str) -> CachedChain | None:
        """Return the chain that ends with a response, as far back as it is cached; None where the response is not."""
        last = self.get(owner, response_id)
        if last is None or not last.in_chain:
            return None
        chain, previous_id = [last], last.body.get("previous_response_id")
        while previous_id and (previous := self.get(owner, previous_id)) is not None and previous.in_chain:
            chain.append(previous)
            previous_id = previous.body.get("previous_response_id")
        messages = [message for response in reversed(chain) for message in response.prompt_messages]
        context = StoredContext(last.session_id, last.answer_id, messages, last.body["status"])
        return CachedChain(context, previous_id)

    def remove(self, response_id: str) -> None:
        """Remove a response."""
        with self._lock:
            _, freed = self._entries.pop(response_id, (None, 0))
            self._bytes -= freed

    def remove_session(self, owner: str, session_id: str) -> None:
        """Remove the responses of a session: its conversation was deleted or changed."""
        self._remove_where(lambda response: (response.owner, response.session_id) == (owner, session_id))

    def remove_before(self, moment: float) -> None:
        """Remove the responses created before a moment (Unix seconds): PostgreSQL may have deleted them."""
        self._remove_where(lambda response: response.body["created_at"] < moment)

    def _remove_where(self, condition: Callable[[CachedResponse], bool]) -> None:
        with self._lock:
            ids = [response_id for response_id, (response, _) in self._entries.items() if condition(response)]
        for response_id in ids:
            self.remove(response_id)
