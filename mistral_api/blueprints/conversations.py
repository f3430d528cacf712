"""``/v1/conversations``: what was said, per session."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request

from mistral_api.blueprints.access import caller, guard
from mistral_api.blueprints.additions import parse_new_messages
from mistral_api.blueprints.bodies import json_body
from mistral_api.blueprints.reads import database_session, require_recorded
from mistral_api.conversations.changing import change_conversation, delete_conversation
from mistral_api.conversations.creating import create_conversation
from mistral_api.conversations.listing import list_conversations
from mistral_api.conversations.presenting import conversation_body, conversation_list_body, head_body
from mistral_api.conversations.reading import find_conversation, read_page
from mistral_api.schemas import (
    ConversationListQuery,
    ConversationQuery,
    load,
    load_changes,
    load_creation,
    load_metadata,
)
from mistral_api.services import services

blueprint = guard(Blueprint("conversations", __name__, url_prefix="/v1/conversations"))
_PAGE_QUERY, _LIST_QUERY = ConversationQuery(), ConversationListQuery()


@blueprint.get("")
def list_all() -> dict[str, Any]:
    """The caller's conversations, the last used first."""
    query = load(_LIST_QUERY, request.args.to_dict())
    with database_session() as session:
        return conversation_list_body(*list_conversations(session, caller().owner, query))


@blueprint.post("")
def create() -> dict[str, Any]:
    """Make a conversation, with items or without; the body may be left out."""
    creation = load_creation(json_body() if request.get_data() else {})
    with database_session() as session:
        addition = parse_new_messages(session, creation["items"])
        return head_body(create_conversation(session, addition, creation["metadata"]))


@blueprint.get("/<session_id>")
def retrieve(session_id: str) -> dict[str, Any]:
    """A page of a conversation's current branch."""
    query = load(_PAGE_QUERY, request.args.to_dict())
    require_recorded(caller().owner, session_id)
    with database_session() as session:
        conversation = find_conversation(session, caller().owner, session_id)
        page = read_page(session, conversation, query["limit"], query.get("before"), query.get("after"))
        return conversation_body(conversation, page)


@blueprint.patch("/<session_id>")
def change(session_id: str) -> dict[str, Any]:
    """Change the title and the metadata of a conversation; answers it without its messages."""
    changes = load_changes(json_body())
    require_recorded(caller().owner, session_id)
    with database_session() as session:
        return head_body(change_conversation(session, caller().owner, session_id, changes))


@blueprint.post("/<session_id>")
def update(session_id: str) -> dict[str, Any]:
    """Replace the metadata of a conversation (OpenAI's way)."""
    metadata = load_metadata(json_body())
    require_recorded(caller().owner, session_id)
    with database_session() as session:
        return head_body(change_conversation(session, caller().owner, session_id, {"metadata": metadata}))


@blueprint.delete("/<session_id>")
def remove(session_id: str) -> dict[str, Any]:
    """Delete a conversation with its messages."""
    require_recorded(caller().owner, session_id)
    with database_session() as session:
        delete_conversation(session, caller().owner, session_id)
    services().forget_session(caller().owner, session_id)
    return {"id": session_id, "object": "conversation.deleted", "deleted": True}
