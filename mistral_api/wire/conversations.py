"""Making and changing conversations."""

from __future__ import annotations

from typing import Any

from marshmallow import EXCLUDE, Schema

from mistral_api.errors import InvalidRequest
from mistral_api.wire.field_errors import quote_value, refuse
from mistral_api.wire.fields import Text
from mistral_api.wire.items import MOST_ITEMS_ADDED, Items
from mistral_api.wire.loading import load
from mistral_api.wire.sampling import Metadata

LONGEST_TITLE = 256


def _refuse_nul(*texts: str) -> None:
    """PostgreSQL keeps no NUL character."""
    if any("\0" in text for text in texts):
        refuse("invalid_value", "Invalid '{param}': it has a NUL character.")


class Title(Text):
    """The title of a conversation."""

    def __init__(self, **options: Any) -> None:
        super().__init__(1, LONGEST_TITLE, **options)

    def check(self, value: Any) -> None:
        """Refuse what cannot be kept."""
        super().check(value)
        _refuse_nul(value)


class StoredMetadata(Metadata):
    """Metadata that are kept as they are."""

    def check(self, value: Any) -> None:
        """Refuse what cannot be kept."""
        super().check(value)
        _refuse_nul(*value.keys(), *value.values())


class ConversationChanges(Schema):
    """``PATCH /v1/conversations/{session_id}``: what of a conversation can be changed; both are optional."""

    title = Title()
    metadata = StoredMetadata()


class ConversationCreation(Schema):
    """``POST /v1/conversations``."""

    class Meta:
        unknown = EXCLUDE

    items = Items(0, MOST_ITEMS_ADDED)
    metadata = StoredMetadata()


class ConversationUpdate(Schema):
    """``POST /v1/conversations/{id}``, OpenAI's way to replace the metadata."""

    class Meta:
        unknown = EXCLUDE

    metadata = StoredMetadata()


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
            text = f"Unknown parameter: '{quote_value(unknown)}'. Only 'title' and 'metadata' can be changed."
            raise InvalidRequest(text, code="unknown_parameter", param=quote_value(unknown))
        if not body:
            raise InvalidRequest(
                "Nothing to change: give 'title', 'metadata' or both.", code="missing_required_parameter"
            )
    changes = load(_CHANGES, body)
    given: dict[str, Any] = body if isinstance(body, dict) else {}
    if "title" in given and given["title"] is None:
        changes["title"] = None
    if "metadata" in given and given["metadata"] is None:
        changes["metadata"] = {}
    return changes


def load_creation(body: object) -> dict[str, Any]:
    """``items`` and ``metadata`` of a new conversation, both there. Raises InvalidRequest."""
    return {"items": [], "metadata": {}} | load(_CREATION, body)


def load_metadata(body: object) -> dict[str, str]:
    """The metadata that replace those before; null is none. Raises InvalidRequest, also where they are missing."""
    metadata: dict[str, str] = load(_UPDATE, body).get("metadata", {})
    if isinstance(body, dict) and "metadata" not in body:
        raise InvalidRequest(
            "Missing required parameter: 'metadata'.", code="missing_required_parameter", param="metadata"
        )
    return metadata
