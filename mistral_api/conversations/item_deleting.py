"""Deleting an item: a message leaves its tree, or loses the part that the item shows.

What remains is as if the item had never been there. What a message is recognised by names all that was said
before it (``conversations.matching``), so it is made anew for all that follow: a client that sends the history
without the deleted item continues this branch, and one that still sends it starts another, as with any history
that is not the stored one.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from mistral_api.conversations.items import find_item, message_of_item, row_to_chat_message
from mistral_api.conversations.matching import chain_of, digest
from mistral_api.conversations.reading import locked_conversation
from mistral_api.conversations.searching import CONFIGURATION, searchable_text
from mistral_api.items.ids import ItemId, parse_item_id
from mistral_api.items.outgoing import call_numbers
from mistral_api.tables.conversation import Conversation, Message
from mistral_api.tables.recordset import recordset, written
from mistral_api.tables.stored import StoredResponse

_FETCHED_TOGETHER = 500
_SAID = ("content", "refusal", "reasoning_content", "tool_calls", "function_call")
_OWN_COLUMNS = ("role", "content", "tool_calls")
_RECHAIN = text(
    f"UPDATE messages SET chain = given.chain FROM {recordset(Message, ['id', 'chain'])} WHERE messages.id = given.id"
)


def delete_item(session: Session, owner: str, session_id: str, item_id: str) -> Conversation:
    """Delete an item. Raises InvalidRequest for an ill-formed id, and NotFound."""
    conversation = locked_conversation(session, owner, session_id)
    find_item(session, conversation, item_id)
    message = message_of_item(session, conversation, item_id)
    left = _without(row_to_chat_message(message), parse_item_id(item_id))
    above = _chain(session, message.parent_id)
    if left is None:
        chains = _chains_below(session, message, above)
        _remove(session, conversation, message)
    else:
        _rewrite(message, left)
        own = chain_of(above, digest(left))
        chains = {message.id: own} | _chains_below(session, message, own)
    session.flush()
    rows = [{"id": each, "chain": chain} for each, chain in chains.items()]
    session.execute(_RECHAIN, {"rows": written(rows)})
    session.commit()
    return conversation


def _without(message: dict[str, Any], item: ItemId) -> dict[str, Any] | None:
    """What is left of a message, or None where that was all."""
    left = {name: value for name, value in message.items() if value is not None}
    if item.type == "function_call":
        left.pop("function_call", None)
        left["tool_calls"] = _other_calls(message.get("tool_calls") or [], item.number)
    elif item.type == "reasoning":
        left.pop("reasoning_content", None)
    else:
        left.pop("content", None)
        left.pop("refusal", None)
    return left if any(left.get(name) for name in _SAID) else None


def _other_calls(calls: list[dict[str, Any]], number: int) -> list[dict[str, Any]] | None:
    """The calls but one; they keep the numbers that their items' ids are made of."""
    kept = [call | {"index": own} for own, call in zip(call_numbers(calls), calls, strict=True) if own != number]
    return kept or None


def _rewrite(message: Message, left: dict[str, Any]) -> None:
    message.content, message.tool_calls = left.get("content"), left.get("tool_calls")
    message.extra = {name: value for name, value in left.items() if name not in _OWN_COLUMNS} or None
    words = searchable_text(message.content)
    message.search = None if words is None else func.to_tsvector(CONFIGURATION, words)


def _remove(session: Session, conversation: Conversation, message: Message) -> None:
    """Take a message out of the tree: what followed it follows the one before it."""
    # A chain of responses goes on from what is left before the answer that was deleted.
    answers = StoredResponse.conversation_id == conversation.id, StoredResponse.answer_id == message.id
    session.execute(update(StoredResponse).where(*answers).values(answer_id=message.parent_id))
    below = Message.conversation_id == conversation.id, Message.parent_id == message.id
    session.execute(update(Message).where(*below).values(parent_id=message.parent_id))
    session.execute(delete(Message).where(Message.id == message.id))
    if conversation.head_id == message.id:
        conversation.head_id = message.parent_id
    conversation.message_count -= 1


def _chain(session: Session, message_id: UUID | None) -> str:
    chain = session.scalar(select(Message.chain).where(Message.id == message_id))
    return "" if chain is None else chain.hex


def _chains_below(session: Session, message: Message, own: str) -> dict[UUID, str]:
    """The chains of all that follow a message, in every branch; ``own`` stands in for its own."""
    later = (
        select(Message.id, Message.parent_id, Message.role, Message.content, Message.tool_calls, Message.extra)
        .where(Message.conversation_id == message.conversation_id, Message.sequence > message.sequence)
        .order_by(Message.sequence)
    )
    found = {message.id: own}
    # What follows a message has come after it.
    for row in session.execute(later, execution_options={"yield_per": _FETCHED_TOGETHER}):
        if row.parent_id in found:
            said = {"role": row.role, "content": row.content, "tool_calls": row.tool_calls}
            found[row.id] = chain_of(found[row.parent_id], digest((row.extra or {}) | said))
    del found[message.id]
    return found
