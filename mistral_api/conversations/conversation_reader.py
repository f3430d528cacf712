"""Reads conversations as they are now: what PostgreSQL has, with the turns that are still in the journal laid over it.

This is the one place where both are put together. A read looks into the journal first, then sends PostgreSQL one
statement, and waits for no delivery. It asks PostgreSQL nothing about a session that is in the journal from its first
exchange on. Where PostgreSQL is away, what the journal has is read all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn
from uuid import UUID

from sqlalchemy import Text, Uuid, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY

from mistral_api.conversations.conversation import MessagePage, conversation_not_found
from mistral_api.conversations.pending_turns import (
    CurrentConversation,
    lay_over,
    may_have_added,
    possible_ids,
    starts_session,
)
from mistral_api.conversations.stored_conversation import (
    BranchQuery,
    StoredConversations,
    conversation_parameters,
    conversations_statement,
    pending_parameters,
)
from mistral_api.conversations.stored_message import MESSAGE_COLUMNS, MessageRecord
from mistral_api.database.reads import DatabaseReads
from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.errors import NotFound, Unavailable
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.pending import PendingExchanges

# So many of an owner's newest pending exchanges are searched for a message of which only the id is known.
_SEARCHED_EXCHANGES = 1000
_MESSAGES = (
    select(*(getattr(Message, name) for name in MESSAGE_COLUMNS))
    .join(Conversation, Conversation.id == Message.conversation_id)
    .where(
        Conversation.owner == bindparam("owner", type_=Text),
        Message.id == bindparam("ids", type_=ARRAY(Uuid(as_uuid=False))).any_(),
    )
)


@dataclass(frozen=True, slots=True)
class BranchRead:
    """A conversation, and messages of one of its branches, oldest first, with those wanted besides."""

    current: CurrentConversation
    messages: list[MessageRecord]
    wanted: dict[UUID, MessageRecord]

    @property
    def conversation(self) -> Conversation:
        """The conversation."""
        return self.current.conversation

    def raise_not_found(self, error: NotFound) -> NoReturn:
        """Raise the error; Unavailable where PostgreSQL is away, which may have what was not found."""
        if not self.current.is_whole:
            raise Unavailable("The database does not answer.", code="database_unavailable") from error
        raise error


class ConversationReader:
    """Reads conversations. Safe to use from many threads."""

    def __init__(self, reads: DatabaseReads, pending: PendingExchanges) -> None:
        self._reads = reads
        self._pending = pending

    def read_page(
        self, owner: str, session_id: str, limit: int, before: UUID | None, after: UUID | None
    ) -> tuple[Conversation, MessagePage]:
        """Return a conversation with the newest ``limit`` messages of its current branch, or those next to one of it.

        Those are ``before`` or ``after`` that message. Raises NotFound for a conversation or a message that is not
        there, and Unavailable.
        """
        if after is not None:
            read = self.read(owner, session_id, BranchQuery(before=before, stop_before=after, wanted=(after,)))
        else:
            read = self.read(owner, session_id, BranchQuery(newest=limit + 1, before=before))
        for param, message_id in (("before", before), ("after", after)):
            if message_id is not None and message_id not in read.wanted:
                text = f"Message with id '{message_id}' not found in this conversation."
                read.raise_not_found(NotFound(text, param=param))
        messages = read.messages
        kept = messages[:limit] if after is not None else messages[-limit:]
        # Without PostgreSQL nobody knows what stands before the journal's messages.
        unknown = after is None and not read.current.is_whole
        return read.conversation, MessagePage(kept, has_more=len(messages) > limit or unknown)

    def read(self, owner: str, session_id: str, query: BranchQuery, param: str = "session_id") -> BranchRead:
        """Return a conversation with a part of a branch. Raises NotFound, which names ``param``, and Unavailable.

        The messages ``before`` and ``wanted`` of the query are among those wanted where the conversation has them.
        """
        read = self.find(owner, session_id, query)
        if read is None:
            raise conversation_not_found(session_id, param)
        return read

    def find(self, owner: str, session_id: str, query: BranchQuery) -> BranchRead | None:
        """Return a conversation with a part of a branch, None where there is none. Raises Unavailable."""
        exchanges = self._pending.of_session(owner, session_id)
        sent, stored = self._query_stored(owner, [session_id], exchanges, query)
        others = [each for each in stored.session_ids.get(session_id, ()) if each != session_id]
        if others and self._pending.of_session(owner, *others):
            # Another session id leads to the conversation, and turns under that one are pending too.
            exchanges = self._pending.of_session(owner, session_id, *others)
            sent, stored = self._query_stored(owner, [session_id, *others], exchanges, query)
        conversation = stored.conversations.get(session_id)
        start = sent.start or (conversation.head_id if conversation is not None else None)
        undelivered = [exchange for exchange in exchanges if exchange.id not in stored.delivered]
        current = lay_over(conversation, stored.nodes, undelivered, is_whole=stored.is_whole)
        if current is None:
            return None
        named = {each: current.pending[each] for each in sent.wanted if each in current.pending}
        wanted = {each: current.as_answered(message) for each, message in stored.wanted.items()}
        read = BranchRead(current, [], wanted | named)
        messages = self._branch(read, query, stored.branch, start)
        return BranchRead(current, [current.as_answered(message) for message in messages], read.wanted)

    def read_messages(self, owner: str, ids: set[UUID]) -> list[MessageRecord]:
        """Return those messages of an owner's conversations that have one of these ids. Raises Unavailable."""
        found: dict[UUID, MessageRecord] = {}
        pending = (each for each in self._pending.newest(owner, _SEARCHED_EXCHANGES) if may_have_added(each, ids))
        for session_id in dict.fromkeys(exchange.session_id or "" for exchange in pending):
            read = self.find(owner, session_id, BranchQuery(newest=1, wanted=tuple(ids)))
            found |= read.wanted if read is not None else {}
        left = [str(each) for each in ids - found.keys()]
        rows = self._reads.rows(_MESSAGES, {"owner": owner, "ids": left}) if left else ()
        return [*found.values(), *(MessageRecord(**row._mapping) for row in rows)]

    def _query_stored(
        self, owner: str, session_ids: list[str], exchanges: Sequence[Exchange], query: BranchQuery
    ) -> tuple[BranchQuery, StoredConversations]:
        """Return the query as PostgreSQL gets it, and the answer."""
        sent = _for_stored(query, {each for exchange in exchanges for each in possible_ids(exchange)})
        return sent, self._stored(owner, session_ids, exchanges, sent)

    def _stored(
        self, owner: str, session_ids: list[str], exchanges: Sequence[Exchange], query: BranchQuery
    ) -> StoredConversations:
        """Return what PostgreSQL has. Where it is away, that is nothing known; without a journal row: Unavailable."""
        if exchanges and starts_session(exchanges[0]):
            return StoredConversations()
        statement = conversations_statement(with_branch=True, with_pending=bool(exchanges))
        parameters = conversation_parameters(owner, session_ids) | query.parameters()
        if not exchanges:
            return StoredConversations.from_row(self._reads.rows(statement, parameters)[0])
        rows = self._reads.rows_if_reachable(statement, parameters | pending_parameters(exchanges))
        return StoredConversations(is_whole=False) if rows is None else StoredConversations.from_row(rows[0])

    def _branch(
        self, read: BranchRead, query: BranchQuery, stored: list[MessageRecord], stored_start: UUID | None
    ) -> list[MessageRecord]:
        """Return the messages of a branch, oldest first: those of PostgreSQL, and the pending ones below them.

        ``stored`` is the answer to the query for the branch that ends with ``stored_start``.
        """
        pending, above = read.current.pending_branch(_start_of(read, query), query.stop_before)
        if above is None or above == query.stop_before:
            stored = []
        elif above != stored_start:
            stored = _cut(stored, above, query, len(pending)) or self._stored_branch(read, query, above)
        messages = [*stored, *reversed(pending)]
        if query.oldest is not None:
            return messages[: query.oldest]
        return messages if query.newest is None else messages[-query.newest :]

    def _stored_branch(self, read: BranchRead, query: BranchQuery, start: UUID) -> list[MessageRecord]:
        """Ask PostgreSQL again: the pending turns begin a branch that the first answer does not show."""
        again = BranchQuery(newest=query.newest, oldest=query.oldest, start=start, stop_before=query.stop_before)
        conversation = read.conversation
        return self._stored(conversation.owner, [conversation.session_id], (), again).branch


def _for_stored(query: BranchQuery, pending_ids: set[UUID]) -> BranchQuery:
    """Return the query as PostgreSQL gets it, which does not know the pending messages.

    Where the branch ends with one of these, it is asked for the current branch. The message ``before`` is read too.
    """
    before = query.before if query.before not in pending_ids else None
    start = query.start if query.start not in pending_ids else None
    wanted = (*query.wanted, *([query.before] if query.before else []))
    return replace(query, before=before, start=start, wanted=wanted)


def _start_of(read: BranchRead, query: BranchQuery) -> UUID | None:
    """Return the message that the branch of a query ends with."""
    if query.before is not None:
        below = read.wanted.get(query.before)
        return below.parent_id if below is not None else None
    return query.start or read.conversation.head_id


def _cut(stored: list[MessageRecord], end: UUID, query: BranchQuery, others: int) -> list[MessageRecord] | None:
    """Return the part of a branch up to a message, None where that is not all that the query asks for.

    ``others`` is the number of messages below it that are there already.
    """
    kept = next((stored[: index + 1] for index, message in enumerate(stored) if message.id == end), None)
    if kept is None or query.oldest is not None:
        return None
    all_read = query.newest is None or stored[0].parent_id in (None, query.stop_before)
    return kept if all_read or len(kept) + others >= (query.newest or 0) else None
