"""``/v1/conversations/{id}/items``: OpenAI's view of a conversation."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request

from mistral_api.blueprints.access import caller, guard
from mistral_api.blueprints.additions import parse_new_messages
from mistral_api.blueprints.bodies import json_body
from mistral_api.blueprints.reads import database_session, require_recorded
from mistral_api.conversations.creating import add_messages
from mistral_api.conversations.item_deleting import delete_item
from mistral_api.conversations.items import ItemQuery, find_item, list_items
from mistral_api.conversations.presenting import head_body
from mistral_api.conversations.reading import find_conversation
from mistral_api.items.outgoing import item_list
from mistral_api.schemas import ItemListQuery, ItemsCreation, load
from mistral_api.services import services

items_blueprint = guard(Blueprint("conversation_items", __name__, url_prefix="/v1/conversations/<session_id>/items"))
_CREATION, _ITEM_LIST_QUERY = ItemsCreation(), ItemListQuery()


@items_blueprint.post("", endpoint="create")
def create_items(session_id: str) -> dict[str, Any]:
    """Put items at the end of a conversation; answers them."""
    creation = load(_CREATION, json_body())
    require_recorded(caller().owner, session_id)
    with database_session() as session:
        stored = add_messages(session, session_id, parse_new_messages(session, creation["items"]))
    return item_list([item for each in stored for item in each.items], has_more=False)


@items_blueprint.get("", endpoint="list_all")
def list_conversation_items(session_id: str) -> dict[str, Any]:
    """A page of a conversation's items."""
    query = load(_ITEM_LIST_QUERY, request.args.to_dict())
    wanted = ItemQuery(query["limit"], query["order"] == "desc", query.get("after"))
    require_recorded(caller().owner, session_id)
    with database_session() as session:
        return item_list(*list_items(session, find_conversation(session, caller().owner, session_id), wanted))


@items_blueprint.get("/<item_id>", endpoint="retrieve")
def retrieve_item(session_id: str, item_id: str) -> dict[str, Any]:
    """One item."""
    require_recorded(caller().owner, session_id)
    with database_session() as session:
        return find_item(session, find_conversation(session, caller().owner, session_id), item_id)


@items_blueprint.delete("/<item_id>", endpoint="remove")
def remove_item(session_id: str, item_id: str) -> dict[str, Any]:
    """Delete one item; answers the conversation."""
    require_recorded(caller().owner, session_id)
    with database_session() as session:
        body = head_body(delete_item(session, caller().owner, session_id, item_id))
    # It holds the words that were deleted.
    services().forget_session(caller().owner, session_id)
    return body
