"""Items that requests name by their ids instead of sending them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from mistral_api.conversations.items import to_stored_message
from mistral_api.errors import NotFound
from mistral_api.items.ids import parse_item_id
from mistral_api.schemas.items import item_type
from mistral_api.schemas.payload_types import Item
from mistral_api.tables.conversation import Conversation, Message


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
