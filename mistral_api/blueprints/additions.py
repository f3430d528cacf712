"""Items of a request on their way to a conversation, without a generation."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from mistral_api.blueprints.access import caller
from mistral_api.blueprints.reads import found_once_recorded
from mistral_api.conversations.creating import NewMessages
from mistral_api.conversations.references import resolve_references
from mistral_api.errors import InvalidRequest
from mistral_api.items.incoming import items_to_messages
from mistral_api.request_ids import client_request_id, request_id
from mistral_api.services import services


def parse_new_messages(session: Session, items: list[dict[str, Any]]) -> NewMessages:
    """Valid items as messages to add. Raises InvalidRequest where no text is to be kept, and NotFound."""
    settings = services().settings
    if items and not settings.store_content:
        text = "This server keeps no text (STORE_CONTENT=false), so a conversation cannot hold items."
        raise InvalidRequest(text, code="not_supported", param="items")
    named = found_once_recorded(lambda: resolve_references(session, caller().owner, items, "items"))
    shown_request_id = client_request_id() or str(request_id())
    return NewMessages(caller().owner, shown_request_id, items_to_messages(named), settings.store_attachment_bytes)
