"""Making and changing conversations."""

from __future__ import annotations

from typing import Any

from marshmallow import EXCLUDE, Schema

from mistral_api.errors import InvalidRequest
from mistral_api.schemas.fields import Text
from mistral_api.schemas.issues import shown
from mistral_api.schemas.items import MOST_ITEMS_ADDED, Items
from mistral_api.schemas.loading import load
from mistral_api.schemas.sampling import Metadata

LONGEST_TITLE = 256


class ConversationChanges(Schema):
    """``PATCH /v1/conversations/{session_id}``: what of a conversation can be changed; both are optional."""

    title = Text(1, LONGEST_TITLE)
    metadata = Metadata()


class ConversationCreation(Schema):
    """``POST /v1/conversations``."""

    class Meta:
        unknown = EXCLUDE

    items = Items(0, MOST_ITEMS_ADDED)
    metadata = Metadata()


class ConversationUpdate(Schema):
    """``POST /v1/conversations/{id}``, OpenAI's way to replace the metadata."""

    class Meta:
        unknown = EXCLUDE

    metadata = Metadata()


class ItemsCreation(Schema):
    """``POST /v1/conversations/{id}/items``."""

    class Meta:
        unknown = EXCLUDE

    items = Items(0, MOST_ITEMS_ADDED, required=True)


_CHANGES, _CREATION, _UPDATE = ConversationChanges(), ConversationCreation(), ConversationUpdate()


def load_changes(body: object) -> dict[str, Any]:
    """The changes asked for; ``"title": null`` takes the title away, ``"metadata": null`` all pairs.

    Raises InvalidRequest, also where nothing is to change.
    """
    if isinstance(body, dict):
        unknown = next((name for name in body if name not in _CHANGES.fields), None)
        if unknown is not None:
            text = f"Unknown parameter: '{shown(unknown)}'. Only 'title' and 'metadata' can be changed."
            raise InvalidRequest(text, code="unknown_parameter", param=shown(unknown))
        if not body:
            raise InvalidRequest(
                "Nothing to change: give 'title', 'metadata' or both.", code="missing_required_parameter"
            )
    changes = load(_CHANGES, body)
    for name, value in changes.items():
        refuse_nul(name, value)
    given: dict[str, Any] = body if isinstance(body, dict) else {}
    if "title" in given and given["title"] is None:
        changes["title"] = None
    if "metadata" in given and given["metadata"] is None:
        changes["metadata"] = {}
    return changes


def load_creation(body: object) -> dict[str, Any]:
    """``items`` and ``metadata`` of a new conversation, both there. Raises InvalidRequest."""
    creation = {"items": [], "metadata": {}} | load(_CREATION, body)
    refuse_nul("metadata", creation["metadata"])
    return creation


def load_metadata(body: object) -> dict[str, str]:
    """The metadata that replace those before; null is none. Raises InvalidRequest, also where they are missing."""
    metadata: dict[str, str] = load(_UPDATE, body).get("metadata", {})
    if isinstance(body, dict) and "metadata" not in body:
        raise InvalidRequest(
            "Missing required parameter: 'metadata'.", code="missing_required_parameter", param="metadata"
        )
    refuse_nul("metadata", metadata)
    return metadata


def refuse_nul(name: str, value: object) -> None:
    """PostgreSQL keeps no NUL character."""
    texts = [value] if isinstance(value, str) else []
    if isinstance(value, dict):
        texts = [*value.keys(), *value.values()]
    if any("\0" in text for text in texts):
        raise InvalidRequest(f"Invalid '{name}': it has a NUL character.", code="invalid_value", param=name)
