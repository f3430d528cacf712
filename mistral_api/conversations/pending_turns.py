"""Turns that are still in the journal, laid over their conversation as PostgreSQL has it.

The writer appends the same turns to the same tree by the same code (``turn_placement``), and every message has the id
that it will have there. So what is read before delivery is what will be read after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from mistral_api.conversations.message_alignment import SentMessages
from mistral_api.conversations.message_tree import MessageTree, NewMessageRow
from mistral_api.conversations.message_tree_store import add_nodes, title_of, turn_of
from mistral_api.conversations.stored_message import MESSAGE_COLUMNS, MessageRecord
from mistral_api.conversations.turn_placement import NewTurn, append_turn
from mistral_api.database.tables.conversations import Conversation
from mistral_api.recording.exchange import INTERRUPTED, Exchange


@dataclass(frozen=True, slots=True)
class CurrentConversation:
    """A conversation with all that was said in it.

    ``pending`` are the messages that PostgreSQL does not have yet; ``newly_answered`` are messages there that have got
    an answer since. ``sent_ids`` has, by pending exchange, the id of each message that was sent with it, None for what
    is no row. Where ``is_whole`` is false PostgreSQL is away, and may have more.
    """

    conversation: Conversation
    pending: dict[UUID, MessageRecord] = field(default_factory=dict)
    newly_answered: frozenset[UUID] = frozenset()
    is_whole: bool = True
    sent_ids: dict[UUID, list[UUID | None]] = field(default_factory=dict)

    def pending_branch(self, start: UUID | None, stop_before: UUID | None) -> tuple[list[MessageRecord], UUID | None]:
        """Return the pending messages of the branch that ends with ``start``, the newest first.

        The id is that of the message above them, stored or ``stop_before``; None where there is none.
        """
        messages = []
        while start is not None and start != stop_before and (message := self.pending.get(start)) is not None:
            messages.append(message)
            start = message.parent_id
        return messages, start

    def as_answered(self, message: MessageRecord) -> MessageRecord:
        """Return a stored message with the status that it has now."""
        if message.id in self.newly_answered:
            message.status = "complete"
        return message


def starts_session(exchange: Exchange) -> bool:
    """Return whether nothing of an exchange's session was recorded before this exchange.

    Of one whose process died it is not known whether others of its session ended before.
    """
    return exchange.begins_session and not exchange.overtaken and exchange.error_code != INTERRUPTED


def lay_over(
    stored: Conversation | None, nodes: Sequence[Any], exchanges: Sequence[Exchange], *, is_whole: bool = True
) -> CurrentConversation | None:
    """Return a conversation with the exchanges that PostgreSQL does not have yet appended to it, in their order.

    ``nodes`` are the rows of ``READ_NODES`` of the conversation. Return None where there is neither.
    """
    if not exchanges:
        return None if stored is None else CurrentConversation(stored)
    conversation = _new_conversation(exchanges) if stored is None else _titled(stored, exchanges)
    tree = MessageTree(conversation.id, conversation.updated_at, conversation.head_id, conversation.message_count > 0)
    add_nodes(nodes, [tree])
    sent_ids = {}
    for exchange in exchanges:
        turn = turn_of(exchange)
        sent_ids[exchange.id] = append_turn(tree, turn, SentMessages(turn.messages))
    conversation.head_id, conversation.updated_at = tree.head_id, tree.updated_at
    conversation.message_count += len(tree.rows)
    pending = {row["id"]: _message_record(row) for row in tree.rows}
    for message_id in tree.newly_answered:
        if message_id in pending:
            pending[message_id].status = "complete"
    return CurrentConversation(conversation, pending, frozenset(tree.newly_answered), is_whole, sent_ids)


def _message_record(row: NewMessageRow) -> MessageRecord:
    columns: dict[str, Any] = {**row}
    return MessageRecord(**{name: columns[name] for name in MESSAGE_COLUMNS})


def ended_at(exchange: Exchange) -> datetime:
    """Return when an exchange ended: the time of its answers."""
    return exchange.created_at + timedelta(milliseconds=exchange.latency_ms)


def possible_ids(exchange: Exchange) -> Iterator[UUID]:
    """Yield the ids of all messages that an exchange may add to its conversation."""
    turn: NewTurn = turn_of(exchange)
    yield from (turn.message_id(position) for position in range(len(turn.messages)))
    yield from (turn.answer_id_of(number) for number in range(len(turn.answers)))


def may_have_added(exchange: Exchange, ids: Set[UUID]) -> bool:
    """Return whether an exchange may have added one of these messages. It is a quick look, for many exchanges."""
    given = {*(exchange.message_ids or ()), exchange.answer_id}
    # A derived id begins as the id that it is derived from.
    same_millisecond = any(each.int >> 80 == exchange.id.int >> 80 for each in ids)
    return not given.isdisjoint(ids) or (same_millisecond and not ids.isdisjoint(possible_ids(exchange)))


def _new_conversation(exchanges: Sequence[Exchange]) -> Conversation:
    first = exchanges[0]
    return Conversation(
        id=first.id,
        owner=first.owner,
        session_id=first.session_id,
        title=title_of(exchanges),
        attributes={},
        head_id=None,
        message_count=0,
        created_at=first.created_at,
        updated_at=first.created_at,
    )


def _titled(stored: Conversation, exchanges: Sequence[Exchange]) -> Conversation:
    if stored.title is None and stored.head_id is None:
        stored.title = title_of(exchanges)
    return stored
