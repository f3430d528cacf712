"""Server-sent events: split, decoded, read as a stream.

Server-sent events as bytes: cut into whole events, recognised without decoding where that does.

The format is WHATWG's (HTML standard, section 9.2); OpenAI and llama.cpp send ``data: JSON`` events
and close with ``data: [DONE]``.

The model server's events, run by run: without its reports of progress, and with its errors raised.

Our model server is asked to report its progress through a prompt (``return_progress``): only because it
then writes something with every batch does it notice a client that has left before the first token.
Clients that did not ask for these reports do not get them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain
from typing import Any

import orjson

from mistral_api.errors import ModelServerFailed
from mistral_api.upstream.client import UpstreamResponse
from mistral_api.upstream.errors import error_from

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


_PROGRESS, _ROLE = b'"prompt_progress"', b'"role"'


class SSEStream(ABC):
    """Runs of whole events. Iterate once; raises our exceptions, also where they end too early."""

    def __init__(self) -> None:
        self._runs = self._read()

    def wait_for_first(self) -> None:
        """Wait for the first events; a failure before them ends the request."""
        try:
            self._runs = chain([next(self._runs)], self._runs)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._runs)

    @abstractmethod
    def _read(self) -> Iterator[bytes]:
        """The runs as they come."""

    @abstractmethod
    def close(self) -> None:
        """End the request, whether or not all of it has been read."""


class ChunkStream(SSEStream):
    """Those of one answer of the model server."""

    def __init__(self, answer: UpstreamResponse, *, show_progress: bool) -> None:
        self._answer = answer
        self._show_progress = show_progress
        self._opening: bytes | None = None
        super().__init__()

    def _read(self) -> Iterator[bytes]:
        """A run has one event only where that event is the closing ``[DONE]``, or follows progress.

        Read on after ``[DONE]``: a connection whose answer has been read to its end is used again.
        """
        splitter, done = EventSplitter(), False
        for piece in self._answer.chunks():
            events = splitter.feed(piece)
            if not events:
                continue
            if _PROGRESS in events or DONE in events or b"error" in events:
                for event in split_events(events):
                    raise_error(event)
                    done = done or event.startswith(DONE)
                    yield from self._visible(event + b"\n\n")
            else:
                yield from self._opened(events)
        if not done:
            raise ModelServerFailed("The model server broke off its answer.", summary="an answer without an end")

    def _visible(self, event: bytes) -> Iterator[bytes]:
        if _PROGRESS not in event:
            yield from self._opened(event)
        elif self._show_progress:
            yield event
        elif self._opening is None:
            self._opening = _without_progress(event)

    def _opened(self, events: bytes) -> Iterator[bytes]:
        """A chat's stream opens with a chunk that names the role. llama.cpp leaves it out where its first token
        was held back (half a character), but its reports of progress name the role too."""
        opening, self._opening = self._opening, b""
        if opening and _ROLE not in events:
            yield opening
        yield events

    def close(self) -> None:
        """End the request, whether or not all of it has been read."""
        self._answer.close()


def _without_progress(event: bytes) -> bytes:
    """The chunk a report of progress rides on, if that chunk says anything without it."""
    chunk = event_data(event)
    if not isinstance(chunk, dict) or _ROLE not in event:
        return b""
    chunk.pop("prompt_progress", None)
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def raise_error(event: bytes) -> None:
    """Raise one of our exceptions for an event that reports a failure."""
    error = event_error(event)
    if error is not None:
        code = error.get("code")
        raise error_from(code if isinstance(code, int) and 400 <= code < 600 else 500, error)
