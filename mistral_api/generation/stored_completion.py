"""Storing a chat completion (``store: true``); ``conversations.stored_completions`` reads and changes stored ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from mistral_api.generation.exchange_record import COMPLETE, ExchangeOutcome, ExchangeRecord
from mistral_api.generation.renderer import ResponseBody
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.payload_types.completions import Completion
from mistral_api.recording.exchange import COMPLETION_OBJECT, StorageRequest

# What OpenAI's list of stored completions tells of the request, under the names it has there.
_LISTED_REQUEST_FIELDS = {
    "tools": "tools",
    "tool_choice": "tool_choice",
    "response_format": "response_format",
    "seed": "seed",
    "temperature": "temperature",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "user": "input_user",
}


def store_completion(record: ExchangeRecord, payload: ChatPayload, body: Callable[[], ResponseBody]) -> None:
    """Have a chat completion stored as the client gets it, to be retrieved by its id.

    ``body`` makes the complete response. Call this before the record begins.
    """

    def make(outcome: ExchangeOutcome) -> Completion | None:
        return cast("Completion", body()) if outcome.status == COMPLETE else None

    fields: Mapping[str, object] = payload
    storing: StorageRequest = {
        "object": COMPLETION_OBJECT,
        "metadata": payload.get("metadata") or {},
        "request": {
            "request_id": record.exchange.public_request_id,
            **{stored: fields[name] for name, stored in _LISTED_REQUEST_FIELDS.items() if name in fields},
        },
    }
    record.store_as(storing, make)
