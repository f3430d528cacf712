"""A conversation's current branch as items, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, Integer, Select, Uuid, bindparam, select
from sqlalchemy.orm import Session

from mistral_api.conversations.branch import branch_messages, branch_upwards
from mistral_api.errors import NotFound
from mistral_api.items.ids import parse_item_id
from mistral_api.items.outgoing import items_of
from mistral_api.schemas.payload_types import Item
from mistral_api.tables.conversation import Conversation, Message


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message in chat form, under the id of its row."""

    id: UUID
    message: dict[str, Any]
    status: str = "completed"

    @property
    def items(self) -> list[Item]:
        """Its items."""
        return items_of(self.id, self.message, self.status)


@dataclass(frozen=True, slots=True)
class ItemQuery:
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


def list_items(session: Session, conversation: Conversation, query: ItemQuery) -> tuple[list[Item], bool]:
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
    items = to_stored_message(message_of_item(session, conversation, item_id)).items
    found = next((item for item in items if item["id"] == item_id), None)
    if found is None:
        raise _not_found(item_id, "item_id")
    return found


def message_of_item(session: Session, conversation: Conversation, item_id: str, param: str = "item_id") -> Message:
    """The message that an item is a view of. Raises InvalidRequest for an ill-formed id, and NotFound."""
    message = session.get(Message, parse_item_id(item_id, param).message_id)
    if message is None or message.conversation_id != conversation.id:
        raise _not_found(item_id, param)
    return message


def _newest_first(session: Session, conversation: Conversation, query: ItemQuery) -> Sequence[Message]:
    # Every message has an item at least; the one that holds ``after`` may have none left.
    if query.after is None:
        start, number = conversation.head_id, query.limit + 1
    else:
        start, number = message_of_item(session, conversation, query.after, "after").id, query.limit + 2
    return list(session.scalars(_NEWEST, {"start": start, "number": number}))[::-1]


def _in_order(session: Session, conversation: Conversation, query: ItemQuery) -> Sequence[Message]:
    start, number = conversation.head_id, query.limit + 1
    if query.after is None:
        return list(session.scalars(_FIRST, {"start": start, "number": number}))
    last = message_of_item(session, conversation, query.after, "after")
    rows = list(session.scalars(_NEXT, {"start": start, "number": number, "after": last.id}))
    if (rows[0].parent_id if rows else start) != last.id:
        # The conversation has gone on from elsewhere since.
        raise _not_found(query.after, "after")
    return [last, *rows]


def _ordered(items: list[Item], query: ItemQuery) -> list[Item]:
    return items[::-1] if query.newest_first else items


def _not_found(item_id: str, param: str) -> NotFound:
    return NotFound(f"Item with id '{item_id}' not found.", param=param)
