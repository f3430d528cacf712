"""The object that an exchange is stored as besides its messages: a chat completion (``store: true``) or a response."""

from __future__ import annotations

from typing import cast

from mistral_api.payload_types.completions import Completion
from mistral_api.payload_types.responses import Response, ResponseError
from mistral_api.recording.exchange import COMPLETION_OBJECT, INTERRUPTED, RESPONSE_OBJECT, Exchange

# The error of a response whose process died.
_INTERRUPTED_RESPONSE: ResponseError = {
    "code": "server_error",
    "message": "The server ended before the response was complete.",
}


def stored_completion(exchange: Exchange) -> Completion | None:
    """Return the chat completion that an exchange is stored as, with the fields of its request that are shown."""
    storing = exchange.storing or {}
    if exchange.stored is None or storing.get("object") != COMPLETION_OBJECT:
        return None
    return cast("Completion", {**storing.get("request", {}), **exchange.stored})


def stored_response(exchange: Exchange) -> Response | None:
    """Return the response that an exchange is stored as. If its process died, that is the response as it was begun."""
    storing = exchange.storing or {}
    if storing.get("object") != RESPONSE_OBJECT:
        return None
    if exchange.stored is None and exchange.error_code == INTERRUPTED:
        return storing["body"] | {"status": "failed", "error": _INTERRUPTED_RESPONSE}
    return cast("Response | None", exchange.stored)


def object_key(kind: str, owner: str, object_id: str) -> str:
    """Return the value that stands for an owner's stored object in the journal."""
    return f"{kind}\n{owner}\n{object_id}"


def object_key_of(exchange: Exchange) -> str | None:
    """Return the key of the object that an exchange is stored as, or None where it is stored as none."""
    stored = stored_completion(exchange) or stored_response(exchange)
    if stored is None or exchange.storing is None:
        return None
    return object_key(exchange.storing["object"], exchange.owner, str(stored.get("id")))
