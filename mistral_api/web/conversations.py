"""``/v1/conversations`` and ``/v1/conversations/{id}/items``: an owner's sessions, and OpenAI's view of them as items.

The docstring of a view is its summary in ``/openapi.json``.
"""

from __future__ import annotations

from flask import Blueprint, request

from mistral_api.conversations.conversation import (
    ConversationBody,
    ConversationSummary,
    conversation_body,
    conversation_summary,
    find_conversation,
)
from mistral_api.conversations.editing import (
    NewMessages,
    add_messages,
    change_conversation,
    create_conversation,
    delete_conversation,
)
from mistral_api.conversations.item_parser import items_to_messages
from mistral_api.conversations.item_renderer import item_list
from mistral_api.conversations.items import ItemPageQuery, delete_item, list_items, read_item, resolve_references
from mistral_api.conversations.search import ListedConversation, conversation_list_body
from mistral_api.conversations.session_aliases import session_ids_of
from mistral_api.errors import InvalidRequest
from mistral_api.payload_types.responses import Item
from mistral_api.web.database_session import database_session
from mistral_api.web.request import caller, services, shown_request_id
from mistral_api.web.request_body import json_body
from mistral_api.wire import (
    ConversationListQuery,
    ConversationQuery,
    ItemListQuery,
    ItemsCreation,
    load,
    load_changes,
    load_creation,
    load_metadata,
)
from mistral_api.wire.conversations import ConversationEdit
from mistral_api.wire.pagination import Deletion, Page

blueprint = Blueprint("conversations", __name__, url_prefix="/v1/conversations")
items_blueprint = Blueprint("conversation_items", __name__, url_prefix="/v1/conversations/<session_id>/items")
_PAGE_QUERY, _LIST_QUERY = ConversationQuery(), ConversationListQuery()
_ITEMS_CREATION, _ITEM_LIST_QUERY = ItemsCreation(), ItemListQuery()


@blueprint.get("")
def list_all() -> Page[ListedConversation]:
    """The caller's conversations, the last used first."""
    query = load(_LIST_QUERY, request.args.to_dict())
    return conversation_list_body(*services().conversation_lister.list_page(caller().owner, query))


@blueprint.post("")
def create() -> ConversationSummary:
    """Make a conversation, with items or without; the body may be left out."""
    creation = load_creation(json_body(optional=True))
    new = parse_new_messages(creation["items"])
    with database_session() as session:
        return conversation_summary(create_conversation(session, new, creation["metadata"]))


def parse_new_messages(items: list[Item]) -> NewMessages:
    """Return valid items as messages to add. Raises InvalidRequest where this server stores no text, and NotFound."""
    settings, owner = services().settings, caller().owner
    if items and not settings.store_content:
        text = "This server keeps no text (STORE_CONTENT=false), so a conversation cannot hold items."
        raise InvalidRequest(text, code="not_supported", param="items")
    resolved = resolve_references(services().conversation_reader, owner, items, "items")
    return NewMessages(owner, shown_request_id(), items_to_messages(resolved), settings.store_attachment_bytes)


@blueprint.get("/<session_id>")
def retrieve(session_id: str) -> ConversationBody:
    """A page of a conversation's current branch."""
    query = load(_PAGE_QUERY, request.args.to_dict())
    reader = services().conversation_reader
    return conversation_body(
        *reader.read_page(caller().owner, session_id, query["limit"], query.get("before"), query.get("after"))
    )


@blueprint.patch("/<session_id>")
def change(session_id: str) -> ConversationSummary:
    """Change the title and the metadata of a conversation; answers it without its messages."""
    return _change(session_id, load_changes(json_body()))


@blueprint.post("/<session_id>")
def update(session_id: str) -> ConversationSummary:
    """Replace the metadata of a conversation (OpenAI's way)."""
    return _change(session_id, {"metadata": load_metadata(json_body())})


def _change(session_id: str, changes: ConversationEdit) -> ConversationSummary:
    services().recorder.require_delivered(caller().owner, session_id)
    with database_session() as session:
        return conversation_summary(change_conversation(session, caller().owner, session_id, changes))


def _session_ids(session_id: str) -> list[str]:
    """Return every session id that leads to a conversation of the caller. Raises NotFound."""
    services().recorder.require_delivered(caller().owner, session_id)
    with database_session() as session:
        return session_ids_of(session, find_conversation(session, caller().owner, session_id).id)


@blueprint.delete("/<session_id>")
def remove(session_id: str) -> Deletion:
    """Delete a conversation with its messages."""
    owner = caller().owner
    for each in _session_ids(session_id):
        services().recorder.require_delivered(owner, each)
    with database_session() as session:
        session_ids = delete_conversation(session, owner, session_id)
    for each in session_ids:
        services().forget_session(owner, each)
    return {"id": session_id, "object": "conversation.deleted", "deleted": True}


@items_blueprint.post("", endpoint="create")
def create_items(session_id: str) -> Page[Item]:
    """Put items at the end of a conversation; answers them."""
    creation = load(_ITEMS_CREATION, json_body())
    services().recorder.require_delivered(caller().owner, session_id)
    new = parse_new_messages(creation["items"])
    with database_session() as session:
        stored = add_messages(session, session_id, new)
    return item_list([item for message in stored for item in message.items], has_more=False)


@items_blueprint.get("", endpoint="list_all")
def list_conversation_items(session_id: str) -> Page[Item]:
    """A page of a conversation's items."""
    query = load(_ITEM_LIST_QUERY, request.args.to_dict())
    page = ItemPageQuery(query["limit"], query["order"] == "desc", query.get("after"))
    return item_list(*list_items(services().conversation_reader, caller().owner, session_id, page))


@items_blueprint.get("/<item_id>", endpoint="retrieve")
def retrieve_item(session_id: str, item_id: str) -> Item:
    """One item."""
    return read_item(services().conversation_reader, caller().owner, session_id, item_id)


@items_blueprint.delete("/<item_id>", endpoint="remove")
def remove_item(session_id: str, item_id: str) -> ConversationSummary:
    """Delete one item; answers the conversation."""
    session_ids = _session_ids(session_id)
    with database_session() as session:
        body = conversation_summary(delete_item(session, caller().owner, session_id, item_id))
    # What memory and the supervisor hold of the session has the deleted words.
    for each in session_ids:
        services().forget_session(caller().owner, each)
    return body
