"""What is kept of a chat completion made with ``store: true``, so that it can be retrieved."""

from __future__ import annotations

from typing import Any

from mistral_api.generation.outcome import ExchangeOutcome, ExchangeRecord
from mistral_api.inference.assembly import assemble_body
from mistral_api.stored.storing import COMPLETION

# What OpenAI's list of stored completions tells of the request, under the names it has there.
_TOLD = {
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


def store_completion(exchange: ExchangeRecord, payload: dict[str, Any], session_id: str) -> None:
    """Have a chat completion kept, to be retrieved by the id it is answered with."""

    def finish(ending: ExchangeOutcome) -> dict[str, Any] | None:
        if ending.status != "complete":
            return None
        return assemble_body(ending.transcript, chat=True) | {"session_id": session_id}

    storing = {
        "object": COMPLETION,
        "metadata": payload.get("metadata") or {},
        "request": {"request_id": exchange.record.shown_request_id}
        | {shown: payload[name] for name, shown in _TOLD.items() if name in payload},
    }
    exchange.store_as(storing, finish)
