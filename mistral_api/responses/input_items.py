"""What a response was asked with, as items (``GET /v1/responses/{id}/input_items``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from mistral_api.items.outgoing import items_of
from mistral_api.schemas.payload_types import Item


def input_items(messages: Sequence[dict[str, Any]], message_ids: Sequence[UUID]) -> list[Item]:
    """The items of chat messages in their order; ``message_ids`` are those of the messages, one for each."""
    return [
        item
        for message_id, message in zip(message_ids, messages, strict=True)
        for item in items_of(message_id, message)
    ]
