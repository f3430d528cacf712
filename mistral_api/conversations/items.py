"""The current branch of a conversation as items: list them, find one, resolve references to them, delete one.

A stored message is one item or several (``item_renderer``). Deleting an item deletes its message, or the part of the
message that the item shows. Afterwards the branch is as if the item had never been there. A client that sends the
history without the item continues this branch. A client that still sends it starts another one, as with any history
that is not stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import lock_conversation
from mistral_api.conversations.conversation_reader import BranchRead, ConversationReader
from mistral_api.conversations.item_renderer import ItemId, call_numbers, parse_item_id
from mistral_api.conversations.search import set_search_columns
from mistral_api.conversations.search_text import searchable_text
from mistral_api.conversations.stored_conversation import BranchQuery
from mistral_api.conversations.stored_message import (
    MessageRecord,
    StoredMessage,
    chat_message_to_columns,
    row_to_chat_message,
)
from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.database.tables.stored import StoredResponse
from mistral_api.errors import NotFound
from mistral_api.payload_types import without_nulls
from mistral_api.payload_types.chat import ChatMessage, ToolCall
from mistral_api.payload_types.responses import Item
from mistral_api.wire.items import item_type

# A message without any of these shows no item.
_ITEM_FIELDS = ("content", "refusal", "reasoning_content", "tool_calls", "function_call")
_FORGET_DIGESTS = text(
    "UPDATE messages SET digest = NULL, depth = NULL, framing = NULL WHERE conversation_id = :conversation"
)


@dataclass(frozen=True, slots=True)
class ItemPageQuery:
    """Which page: at most ``limit`` items, newest or oldest first, those after the item ``after``."""

    limit: int
    newest_first: bool = True
    after: str | None = None


def list_items(
    reader: ConversationReader, owner: str, session_id: str, query: ItemPageQuery
) -> tuple[list[Item], bool]:
    """Return a page of the current branch, and whether more follow.

    Raises InvalidRequest for an ill-formed ``after``, NotFound for it and for the conversation, and Unavailable.
    """
    last = None if query.after is None else parse_item_id(query.after, "after").message_id
    read = reader.read(owner, session_id, _branch_query(query, last))
    if query.after is not None and not _follows(read, query, last):
        read.raise_not_found(_not_found(query.after, "after"))
    messages = read.messages[::-1] if query.newest_first else [*_wanted(read, last), *read.messages]
    items = [item for message in messages for item in _ordered_items(message, query)]
    if query.after is not None:
        ids = [item["id"] for item in items]
        if query.after not in ids:
            raise _not_found(query.after, "after")
        items = items[ids.index(query.after) + 1 :]
    # Without PostgreSQL nobody knows what stands before the journal's messages.
    unknown = query.newest_first and not read.current.is_whole
    return items[: query.limit], len(items) > query.limit or unknown


def _branch_query(query: ItemPageQuery, last: UUID | None) -> BranchQuery:
    # Every message has at least one item. The message of ``after`` may have none behind that item.
    wanted = () if last is None else (last,)
    if query.newest_first:
        return BranchQuery(newest=query.limit + (1 if last is None else 2), start=last, wanted=wanted)
    return BranchQuery(oldest=query.limit + 1, stop_before=last, wanted=wanted)


def _follows(read: BranchRead, query: ItemPageQuery, last: UUID | None) -> bool:
    """Return whether the page begins at the message ``last``. It may be on the current branch no more."""
    if last not in read.wanted or query.newest_first:
        return last in read.wanted
    return (read.messages[0].parent_id if read.messages else read.conversation.head_id) == last


def _wanted(read: BranchRead, last: UUID | None) -> list[MessageRecord]:
    return [] if last is None else [read.wanted[last]]


def _ordered_items(message: MessageRecord, query: ItemPageQuery) -> list[Item]:
    items = StoredMessage.from_row(message).items
    return items[::-1] if query.newest_first else items


def read_item(reader: ConversationReader, owner: str, session_id: str, item_id: str) -> Item:
    """Return one item of any branch. Raises InvalidRequest for an ill-formed id, NotFound and Unavailable."""
    message_id = parse_item_id(item_id).message_id
    read = reader.read(owner, session_id, BranchQuery(newest=1, wanted=(message_id,)))
    message = read.wanted.get(message_id)
    if message is None:
        read.raise_not_found(_not_found(item_id, "item_id"))
    return _item_of(message, item_id)


def _item_of(message: Message | MessageRecord, item_id: str) -> Item:
    item = next((item for item in StoredMessage.from_row(message).items if item["id"] == item_id), None)
    if item is None:
        raise _not_found(item_id, "item_id")
    return item


def _not_found(item_id: str, param: str) -> NotFound:
    return NotFound(f"Item with id '{item_id}' not found.", param=param)


def resolve_references(reader: ConversationReader, owner: str, items: list[Item], field: str) -> list[Item]:
    """Return the items, with each ``item_reference`` replaced by the item that an owner's conversations hold.

    Raises InvalidRequest for an ill-formed id, and NotFound; both name the id as ``field[0].id``. Raises Unavailable.
    """
    references = {index: item["id"] for index, item in enumerate(items) if item_type(item) == "item_reference"}
    if not references:
        return items
    parsed = {index: parse_item_id(item_id, f"{field}[{index}].id") for index, item_id in references.items()}
    messages = reader.read_messages(owner, {each.message_id for each in parsed.values()})
    stored = {item["id"]: item for message in messages for item in StoredMessage.from_row(message).items}
    for index, item_id in references.items():
        if item_id not in stored:
            raise _not_found(item_id, f"{field}[{index}].id")
    return [stored[references[index]] if index in references else item for index, item in enumerate(items)]


def delete_item(session: Session, owner: str, session_id: str, item_id: str) -> Conversation:
    """Delete an item and return its conversation. Raises InvalidRequest for an ill-formed id, and NotFound."""
    conversation = lock_conversation(session, owner, session_id)
    message = _find_message(session, conversation, item_id)
    remainder = _without_item(row_to_chat_message(message), parse_item_id(item_id))
    if remainder is None:
        _delete_message(session, conversation, message)
    else:
        _rewrite_message(message, remainder)
    session.flush()
    # They are made again when the conversation is written to.
    session.execute(_FORGET_DIGESTS, {"conversation": conversation.id})
    session.commit()
    return conversation


def _find_message(session: Session, conversation: Conversation, item_id: str) -> Message:
    # A message of another conversation is not read at all: its size would show in the time.
    wanted = Message.id == parse_item_id(item_id).message_id, Message.conversation_id == conversation.id
    message = session.scalars(select(Message).where(*wanted)).one_or_none()
    if message is None:
        raise _not_found(item_id, "item_id")
    _item_of(message, item_id)
    return message


def _without_item(message: ChatMessage, item: ItemId) -> ChatMessage | None:
    """Return what remains of a message, or None where it shows no other item."""
    remainder = without_nulls(message)
    if item.is_call:
        remainder.pop("function_call", None)
        remainder["tool_calls"] = _without_call(message.get("tool_calls") or [], item.call_number)
    elif item.type == "reasoning":
        remainder.pop("reasoning_content", None)
    else:
        remainder.pop("content", None)
        remainder.pop("refusal", None)
    return remainder if any(remainder.get(name) for name in _ITEM_FIELDS) else None


def _without_call(calls: list[ToolCall], number: int) -> list[ToolCall] | None:
    """Return the calls but one. ``index`` keeps the numbers from which the ids of their items are made."""
    others = [call | {"index": own} for own, call in zip(call_numbers(calls), calls, strict=True) if own != number]
    return others or None


def _rewrite_message(message: Message, remainder: ChatMessage) -> None:
    columns = chat_message_to_columns(remainder)
    message.content, message.tool_calls, message.extra = columns["content"], columns["tool_calls"], columns["extra"]
    set_search_columns(message, searchable_text(message.content))


def _delete_message(session: Session, conversation: Conversation, message: Message) -> None:
    """Delete a message; its children become those of its parent."""
    # A response that continues the deleted answer follows the message before it.
    answers = StoredResponse.conversation_id == conversation.id, StoredResponse.answer_id == message.id
    session.execute(update(StoredResponse).where(*answers).values(answer_id=message.parent_id))
    children = Message.conversation_id == conversation.id, Message.parent_id == message.id
    session.execute(update(Message).where(*children).values(parent_id=message.parent_id))
    session.execute(delete(Message).where(Message.id == message.id))
    if conversation.head_id == message.id:
        conversation.head_id = message.parent_id
    conversation.message_count -= 1
