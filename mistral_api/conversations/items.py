"""A branch as items: list, find, refer, delete.

A conversation's current branch as items, a page at a time.

Items that requests name by their ids instead of sending them.

Deleting an item: a message leaves its tree, or loses the part that the item shows.

What remains is as if the item had never been there. What a message is recognised by names all that was said
before it (``conversations.matching``), so it is made anew for all that follow: a client that sends the history
without the deleted item continues this branch, and one that still sends it starts another, as with any history
that is not the stored one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, Integer, Select, Uuid, bindparam, delete, func, select, text, update
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import branch_messages, branch_upwards, lock_conversation
from mistral_api.conversations.item_renderer import ItemId, call_numbers, message_to_items, parse_item_id
from mistral_api.conversations.message_matching import extend_chain, message_digest
from mistral_api.conversations.search import TEXT_SEARCH_CONFIGURATION, searchable_text
from mistral_api.database.tables.base import recordset, rows_as_json
from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.database.tables.stored import StoredResponse
from mistral_api.errors import NotFound
from mistral_api.wire.items import item_type
from mistral_api.wire.payload_types import Item


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message in chat form, under the id of its row."""

    id: UUID
    message: dict[str, Any]
    status: str = "completed"

    @property
    def items(self) -> list[Item]:
        """Its items."""
        return message_to_items(self.id, self.message, self.status)


@dataclass(frozen=True, slots=True)
class ItemPageQuery:
    """A page asked for: at most ``limit`` items, newest or oldest first, those after the item ``after``."""

    limit: int
    newest_first: bool = True
    after: str | None = None


def _oldest(walk: CTE) -> Select[Message]:
    """The part of a walk that is nearest to the root, oldest first: of all the rest only ids are read."""
    depth = walk.c.depth.desc()
    first = select(walk.c.id, walk.c.depth).order_by(depth).limit(bindparam("number", type_=Integer)).subquery()
    return select(Message).join(first, Message.id == first.c.id).order_by(first.c.depth.desc())


_START = bindparam("start", type_=Uuid)
_NEWEST = branch_messages(branch_upwards(_START, limit=bindparam("number", type_=Integer)))
_FIRST = _oldest(branch_upwards(_START))
_NEXT = _oldest(branch_upwards(_START, stop_before=bindparam("after", type_=Uuid)))


def row_to_chat_message(message: Message) -> dict[str, Any]:
    """A stored message as it was said: role, content, tool calls, and what else came with it."""
    said = {"role": message.role, "content": message.content, "tool_calls": message.tool_calls}
    return (message.extra or {}) | said


def to_stored_message(message: Message) -> StoredMessage:
    """A row as a message with its items' status: an answer that was cut off is ``incomplete``."""
    cut_off = message.role == "assistant" and message.status != "complete"
    return StoredMessage(message.id, row_to_chat_message(message), "incomplete" if cut_off else "completed")


def list_items(session: Session, conversation: Conversation, query: ItemPageQuery) -> tuple[list[Item], bool]:
    """A page of the current branch, and whether there are more. Raises InvalidRequest, NotFound for ``after``."""
    if conversation.head_id is None and query.after is None:
        return [], False
    rows = (
        _newest_first(session, conversation, query) if query.newest_first else _in_order(session, conversation, query)
    )
    items = [item for row in rows for item in _ordered(to_stored_message(row).items, query)]
    if query.after is not None:
        ids = [item["id"] for item in items]
        if query.after not in ids:
            raise _not_found(query.after, "after")
        items = items[ids.index(query.after) + 1 :]
    return items[: query.limit], len(items) > query.limit


def find_item(session: Session, conversation: Conversation, item_id: str) -> Item:
    """One item of any branch. Raises InvalidRequest for an ill-formed id, and NotFound."""
    items = to_stored_message(find_item_message(session, conversation, item_id)).items
    found = next((item for item in items if item["id"] == item_id), None)
    if found is None:
        raise _not_found(item_id, "item_id")
    return found


def find_item_message(session: Session, conversation: Conversation, item_id: str, param: str = "item_id") -> Message:
    """The message that an item is a view of. Raises InvalidRequest for an ill-formed id, and NotFound."""
    message = session.get(Message, parse_item_id(item_id, param).message_id)
    if message is None or message.conversation_id != conversation.id:
        raise _not_found(item_id, param)
    return message


def _newest_first(session: Session, conversation: Conversation, query: ItemPageQuery) -> Sequence[Message]:
    # Every message has an item at least; the one that holds ``after`` may have none left.
    if query.after is None:
        start, number = conversation.head_id, query.limit + 1
    else:
        start, number = find_item_message(session, conversation, query.after, "after").id, query.limit + 2
    return list(session.scalars(_NEWEST, {"start": start, "number": number}))[::-1]


def _in_order(session: Session, conversation: Conversation, query: ItemPageQuery) -> Sequence[Message]:
    start, number = conversation.head_id, query.limit + 1
    if query.after is None:
        return list(session.scalars(_FIRST, {"start": start, "number": number}))
    last = find_item_message(session, conversation, query.after, "after")
    rows = list(session.scalars(_NEXT, {"start": start, "number": number, "after": last.id}))
    if (rows[0].parent_id if rows else start) != last.id:
        # The conversation has gone on from elsewhere since.
        raise _not_found(query.after, "after")
    return [last, *rows]


def _ordered(items: list[Item], query: ItemPageQuery) -> list[Item]:
    return items[::-1] if query.newest_first else items


def _not_found(item_id: str, param: str) -> NotFound:
    return NotFound(f"Item with id '{item_id}' not found.", param=param)


def resolve_references(session: Session, owner: str, items: list[Item], field: str) -> list[Item]:
    """The items, with those in the place of each ``item_reference`` that an owner's conversations hold.

    Raises InvalidRequest for an ill-formed id, and NotFound; both name it as ``field[0].id``.
    """
    references = {index: item["id"] for index, item in enumerate(items) if item_type(item) == "item_reference"}
    if not references:
        return items
    parsed = {index: parse_item_id(item_id, f"{field}[{index}].id") for index, item_id in references.items()}
    rows = session.scalars(
        select(Message)
        .join(Conversation, Conversation.id == Message.conversation_id)
        .where(Conversation.owner == owner, Message.id.in_({each.message_id for each in parsed.values()}))
    )
    known = {item["id"]: item for row in rows for item in to_stored_message(row).items}
    for index, item_id in references.items():
        if item_id not in known:
            raise NotFound(f"Item with id '{item_id}' not found.", param=f"{field}[{index}].id")
    return [known[references[index]] if index in references else item for index, item in enumerate(items)]


_FETCHED_TOGETHER = 500
_SAID = ("content", "refusal", "reasoning_content", "tool_calls", "function_call")
_OWN_COLUMNS = ("role", "content", "tool_calls")
_RECHAIN = text(
    f"UPDATE messages SET chain = new_rows.chain FROM {recordset(Message, ['id', 'chain'])} WHERE messages.id = new_rows.id"
)


def delete_item(session: Session, owner: str, session_id: str, item_id: str) -> Conversation:
    """Delete an item. Raises InvalidRequest for an ill-formed id, and NotFound."""
    conversation = lock_conversation(session, owner, session_id)
    find_item(session, conversation, item_id)
    message = find_item_message(session, conversation, item_id)
    left = _without(row_to_chat_message(message), parse_item_id(item_id))
    above = _chain(session, message.parent_id)
    if left is None:
        chains = _chains_below(session, message, above)
        _remove(session, conversation, message)
    else:
        _rewrite(message, left)
        own = extend_chain(above, message_digest(left))
        chains = {message.id: own} | _chains_below(session, message, own)
    session.flush()
    rows = [{"id": each, "chain": chain} for each, chain in chains.items()]
    session.execute(_RECHAIN, {"rows": rows_as_json(rows)})
    session.commit()
    return conversation


def _without(message: dict[str, Any], item: ItemId) -> dict[str, Any] | None:
    """What is left of a message, or None where that was all."""
    left = {name: value for name, value in message.items() if value is not None}
    if item.type == "function_call":
        left.pop("function_call", None)
        left["tool_calls"] = _other_calls(message.get("tool_calls") or [], item.call_number)
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
    message.search = None if words is None else func.to_tsvector(TEXT_SEARCH_CONFIGURATION, words)


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
            found[row.id] = extend_chain(found[row.parent_id], message_digest((row.extra or {}) | said))
    del found[message.id]
    return found
