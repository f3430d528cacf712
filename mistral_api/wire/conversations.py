"""Requests that create and change conversations."""

from __future__ import annotations

import re
from typing import ClassVar, TypedDict

from marshmallow import EXCLUDE

from mistral_api.errors import InvalidRequest
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.responses import Item
from mistral_api.wire.container_shapes import Map
from mistral_api.wire.field_errors import quote_value, refuse
from mistral_api.wire.items import ADDED_ITEMS
from mistral_api.wire.request_schema import Field, RequestSchema, load
from mistral_api.wire.sampling import METADATA
from mistral_api.wire.shapes import JsonSchema, Text

LONGEST_TITLE = 256
# PostgreSQL stores no NUL character.
WITHOUT_NUL = re.compile(r"[^\0]*", re.DOTALL)


def _refuse_nul(*texts: str) -> None:
    if any("\0" in text for text in texts):
        refuse("invalid_value", "Invalid '{param}': it has a NUL character.")


def _check_metadata(metadata: dict[str, str]) -> None:
    _refuse_nul(*metadata.keys(), *metadata.values())


_TITLE = Text(1, LONGEST_TITLE).refined(_refuse_nul).with_schema(Text(1, LONGEST_TITLE, WITHOUT_NUL))
# Metadata that are stored as they are.
STORED_METADATA = METADATA.refined(_check_metadata).with_schema(
    Map(Text(1, 64, WITHOUT_NUL), Text(0, 512, WITHOUT_NUL), most=16)
)


class ConversationEdit(TypedDict, total=False):
    """What changes of a conversation. A title of None takes the title away."""

    title: str | None
    metadata: dict[str, str]


class NewConversation(TypedDict, total=False):
    """What a conversation begins with."""

    items: list[Item]
    metadata: dict[str, str]


class NewItems(TypedDict):
    """Items that are added to a conversation."""

    items: list[Item]


class ConversationChanges(RequestSchema[ConversationEdit]):
    """``PATCH /v1/conversations/{session_id}``: what of a conversation can be changed; both are optional."""

    EXAMPLE: ClassVar[ConversationEdit] = {"title": "First steps"}
    RULES: ClassVar[JsonSchema] = {"minProperties": 1}

    title = Field(_TITLE)
    metadata = Field(STORED_METADATA)


class ConversationCreation(RequestSchema[NewConversation]):
    """``POST /v1/conversations``."""

    EXAMPLE: ClassVar[NewConversation] = {"metadata": {"topic": "pandas"}}

    class Meta:
        unknown = EXCLUDE

    items = Field(ADDED_ITEMS)
    metadata = Field(STORED_METADATA)


class ConversationUpdate(RequestSchema[ConversationEdit]):
    """``POST /v1/conversations/{id}``, OpenAI's way to replace the metadata."""

    EXAMPLE: ClassVar[ConversationEdit] = {"metadata": {"topic": "pandas"}}
    RULES: ClassVar[JsonSchema] = {"required": ["metadata"]}

    class Meta:
        unknown = EXCLUDE

    metadata = Field(STORED_METADATA)


class ItemsCreation(RequestSchema[NewItems]):
    """``POST /v1/conversations/{id}/items``."""

    EXAMPLE: ClassVar[NewItems] = {"items": [{"role": "user", "content": "Hello, how are you?"}]}

    class Meta:
        unknown = EXCLUDE

    items = Field(ADDED_ITEMS, required=True)


_CHANGES, _CREATION, _UPDATE = ConversationChanges(), ConversationCreation(), ConversationUpdate()


def load_changes(body: object) -> ConversationEdit:
    """Load the changes of a conversation. ``"title": null`` removes the title, ``"metadata": null`` all pairs.

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
    sent: JsonObject = body if isinstance(body, dict) else {}
    if "title" in sent and sent["title"] is None:
        changes["title"] = None
    if "metadata" in sent and sent["metadata"] is None:
        changes["metadata"] = {}
    return changes


def load_creation(body: object) -> NewConversation:
    """Load ``items`` and ``metadata`` of a new conversation, both empty by default. Raises InvalidRequest."""
    return {"items": [], "metadata": {}} | load(_CREATION, body)


def load_metadata(body: object) -> dict[str, str]:
    """Load metadata that replace the present ones; null is none. Raises InvalidRequest, also where they are missing."""
    metadata: dict[str, str] = load(_UPDATE, body).get("metadata", {})
    if isinstance(body, dict) and "metadata" not in body:
        raise InvalidRequest(
            "Missing required parameter: 'metadata'.", code="missing_required_parameter", param="metadata"
        )
    return metadata
