"""Server-sent events as bytes: cut into whole events, recognised without decoding where that does.

The format is WHATWG's (HTML standard, section 9.2); OpenAI and llama.cpp send ``data: JSON`` events
and close with ``data: [DONE]``.
"""

from __future__ import annotations

from typing import Any

import orjson

DONE = b"data: [DONE]"


class EventSplitter:
    """Cuts a byte stream into runs of whole events; the unfinished rest waits for more bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take what has arrived; answer all the whole events that are complete now, as they came."""
        if self._rest:
            data = self._rest + data
        last = data.rfind(b"\n\n")
        end = last + 2 if last >= 0 else 0
        self._rest = data[end:]
        return data if end == len(data) else data[:end]


def split_events(whole: bytes) -> list[bytes]:
    """The single events of a run of whole events, without their closing empty line."""
    return [event for event in whole.split(b"\n\n") if event]


def event_data(event: bytes) -> Any:
    """The decoded JSON of one ``data:`` event; None for comments, ``[DONE]`` and what is not JSON."""
    if not event.startswith(b"data:") or event.startswith(DONE):
        return None
    try:
        return orjson.loads(event[5:])
    except orjson.JSONDecodeError:
        return None


def event_error(event: bytes) -> dict[str, Any] | None:
    """The error object of an event that reports a failure: ``data: {"error": …}``, or ``error: {…}``."""
    if event.startswith(b"error:"):
        decoded: Any = {"error": event_data(b"data:" + event[6:])}
    elif b'"error"' in event:
        decoded = event_data(event)
    else:
        return None
    error = decoded.get("error") if isinstance(decoded, dict) else None
    if isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    return error if isinstance(error, dict) else None
