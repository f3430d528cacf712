"""Stored responses: rows in PostgreSQL, newest ones in memory.

Stored responses in PostgreSQL: finding them, what was said up to one, and deleting them.

The responses of late, in memory: a chain goes on without waiting for a PostgreSQL that is far away, or down.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from mistral_api.conversations.history import chat_message, prompt_message
from mistral_api.database.tables.conversations import Message
from mistral_api.database.tables.stored import StoredResponse
from mistral_api.recording.exchange import replace_nul

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
# A conversation that holds nothing but deleted responses, and was never given a name by a client.
_DELETE_UNUSED = text(
    "DELETE FROM conversations AS c WHERE c.id = :conversation AND starts_with(c.session_id, :made) "
    "AND NOT EXISTS (SELECT 1 FROM responses AS r WHERE r.conversation_id = c.id AND NOT r.deleted) "
    "AND NOT EXISTS (SELECT 1 FROM messages AS m WHERE m.conversation_id = c.id AND NOT EXISTS ("
    "SELECT 1 FROM responses AS r WHERE r.conversation_id = c.id AND (m.id = r.answer_id OR m.id = ANY(r.input_ids)))) "
    "RETURNING c.session_id"
)


@dataclass(frozen=True, slots=True)
class StoredContext:
    """What a new response goes on from: ``messages`` in chat form, oldest first, of which the last is ``continues``.

    ``status`` is that of the response it continues, None where it continues none.
    """

    session_id: str
    continues: UUID | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    status: str | None = None


def read_context(session: Session, owner: str, response_id: str, *, deleted: bool = False) -> StoredContext | None:
    """All that was said up to a response's answer; None where its owner has no such response.

    ``deleted``: also of a response that was deleted, whose messages stay while later ones build on them.
    """
    rows = session.execute(_CONTEXT, {"id": response_id, "owner": owner, "deleted": deleted}).all()
    if not rows:
        return None
    head = rows[0]
    messages = [chat_message(row) for row in rows if row.role is not None]
    return StoredContext(head.session_id, head.answer_id, messages, head.response_status)


def find_response(session: Session, owner: str, response_id: str) -> StoredResponse | None:
    """An owner's response, unless it was deleted."""
    found = session.get(StoredResponse, response_id)
    return found if found is not None and found.owner == owner and not found.deleted else None


def read_input(session: Session, response: StoredResponse) -> list[Message]:
    """The messages that a response was asked with, as far as they are there, in their order."""
    found = session.scalars(select(Message).where(Message.id.in_(response.input_ids)))
    by_id = {message.id: message for message in found}
    return [by_id[each] for each in response.input_ids if each in by_id]


def delete_response(session: Session, owner: str, response_id: str, made_prefix: str) -> tuple[bool, str | None]:
    """Delete a response; whether it was there, and the session that went with it.

    Its messages stay where later responses build on them, or where the conversation holds anything else;
    ``made_prefix`` begins the session ids that no client chose.
    """
    conversation = session.scalar(_DELETE, {"id": response_id, "owner": owner})
    if conversation is None:
        return False, None
    gone = session.scalar(_DELETE_UNUSED, {"conversation": conversation, "made": made_prefix})
    session.commit()
    return True, gone


# So many bytes of JSON are kept; the objects they are read from take a few times as much.
MAX_CACHED_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """A response that has ended, with what was recorded of its input and its answer, in chat form.

    ``chained``: what it builds on is its previous response alone, not a conversation that others add to.
    """

    owner: str
    session_id: str
    body: dict[str, Any]
    input_ids: list[UUID]
    input: list[dict[str, Any]]
    answer_id: UUID | None
    answer: dict[str, Any] | None
    chained: bool

    @property
    def id(self) -> str:
        """The id of the response."""
        return str(self.body["id"])


@dataclass(frozen=True, slots=True)
class CachedChain:
    """The end of a chain that is in memory; ``before`` is the response that the rest of it ends with, if any."""

    context: StoredContext
    before: str | None


class ResponseCache:
    """The last responses by id, as many as fit. Safe to use from many threads."""

    def __init__(self, most_bytes: int = MAX_CACHED_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[CachedResponse, int]] = OrderedDict()
        self._bytes = 0

    def add(self, kept: CachedResponse) -> None:
        """Keep a response; the oldest go where there is no room for all."""
        written = orjson.dumps([kept.body, kept.input, kept.answer])
        size = len(written)
        if rb"\u0000" in written:
            body, asked, answer = replace_nul([kept.body, kept.input, kept.answer])
            kept = replace(kept, body=body, input=asked, answer=answer)
        with self._lock:
            self._kept[kept.id] = kept, size
            self._bytes += size
            while self._bytes > self._most_bytes:
                _, (_, freed) = self._kept.popitem(last=False)
                self._bytes -= freed

    def get(self, owner: str, response_id: str) -> CachedResponse | None:
        """An owner's response, if it is here."""
        kept, _ = self._kept.get(response_id, (None, 0))
        return kept if kept is not None and kept.owner == owner else None

    def context(self, owner: str, response_id: str) -> CachedChain | None:
        """What was said up to a response, as far back as it is here; None where the response is not."""
        last = self.get(owner, response_id)
        if last is None or not last.chained:
            return None
        turns, before = [last], last.body.get("previous_response_id")
        while before and (earlier := self.get(owner, before)) is not None and earlier.chained:
            turns.append(earlier)
            before = earlier.body.get("previous_response_id")
        messages = [message for turn in reversed(turns) for message in _said(turn)]
        return CachedChain(StoredContext(last.session_id, last.answer_id, messages, last.body["status"]), before)

    def remove(self, response_id: str) -> None:
        """A response was deleted."""
        with self._lock:
            _, freed = self._kept.pop(response_id, (None, 0))
            self._bytes -= freed

    def remove_session(self, owner: str, session_id: str) -> None:
        """A conversation was deleted, or changed: what is here of it may not be true any more."""
        self._forget(lambda kept: (kept.owner, kept.session_id) == (owner, session_id))

    def remove_before(self, moment: float) -> None:
        """Forget what was made before, in Unix seconds: PostgreSQL may have forgotten it too."""
        self._forget(lambda kept: kept.body["created_at"] < moment)

    def _forget(self, concerned: Callable[[CachedResponse], bool]) -> None:
        with self._lock:
            gone = [name for name, (kept, _) in self._kept.items() if concerned(kept)]
        for response_id in gone:
            self.remove(response_id)


def _said(turn: CachedResponse) -> list[dict[str, Any]]:
    """A turn as PostgreSQL has it, to the byte: the model server has read the beginning of the prompt already."""
    answer = [] if turn.answer is None else [{"role": "assistant"} | turn.answer]
    return [prompt_message(message) for message in [*turn.input, *answer]]
