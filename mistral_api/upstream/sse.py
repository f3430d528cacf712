"""Server-sent events of the model server: cut into whole events, each decoded at most once.

The format is WHATWG's (HTML standard, section 9.2). OpenAI and llama.cpp send ``data: JSON`` events and close with
``data: [DONE]``.

Our model server is asked to report its progress through a prompt (``return_progress``). It writes these reports with
every batch of the prompt, and only a write shows it that a client has left before the first token. Clients that did
not ask for the reports do not get them. What they say of the prompt goes to whoever counts its tokens at once
(:meth:`SSEStream.report_figures`): a prompt that is cut off has no other batch to bring it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, cast

import orjson

from mistral_api.errors import ModelServerFailed
from mistral_api.payload_types import JsonObject, omit
from mistral_api.payload_types.completions import Chunk
from mistral_api.upstream.client import UpstreamResponse
from mistral_api.upstream.errors import error_from

DONE = b"data: [DONE]"
# No event is longer, not even one that repeats the largest prompt.
EVENT_BYTES = 64 << 20
_PROGRESS, _ROLE = b'"prompt_progress"', b'"role"'
# Within a JSON string its quotation marks would have backslashes.
_FINGERPRINT = re.compile(rb'"system_fingerprint":\s*"[^"\\]*"')


class EventSplitter:
    """Cuts a byte stream into runs of whole events. An unfinished event waits for more bytes."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take the bytes that have arrived. Return all events that are complete now, as they came.

        Raises ModelServerFailed for an event that does not end within EVENT_BYTES.
        """
        rest = self._rest
        if not rest:
            if data.endswith(b"\n\n"):  # nearly always: a model server writes whole events
                return data
        else:
            ends = b"\n\n" in data or (data.startswith(b"\n") and rest.endswith(b"\n"))
            rest += data
            if not ends:
                return self._waiting()
            data = bytes(rest)
            rest.clear()
        last = data.rfind(b"\n\n")
        end = last + 2 if last >= 0 else 0
        if end == len(data):
            return data
        rest += data[end:]
        return data[:end]

    def _waiting(self) -> bytes:
        if len(self._rest) > EVENT_BYTES:
            raise ModelServerFailed("The model server sent an event without an end.", summary="an event without an end")
        return b""


def split_events(run: bytes) -> list[bytes]:
    """Return the single events of a run of whole events, without their closing empty lines."""
    return [event for event in run.split(b"\n\n") if event]


def event_data(event: bytes) -> Any:
    """Decode the JSON of one ``data:`` event. Return None for comments, ``[DONE]`` and what is not JSON."""
    if not event.startswith(b"data:") or event.startswith(DONE):
        return None
    try:
        return orjson.loads(event[5:])
    except orjson.JSONDecodeError:
        return None


def encode_event(data: object) -> bytes:
    """Return a ``data:`` event with its closing empty line."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


class StreamEvent:
    """One event: its bytes with the closing empty line, and its JSON object, decoded when it is first needed."""

    __slots__ = ("_data", "_decoded", "raw")

    def __init__(self, raw: bytes, data: Chunk | None = None) -> None:
        """``data``: the decoded object, where it is known already."""
        self.raw = raw
        self._data = data
        self._decoded = data is not None

    @property
    def data(self) -> Chunk | None:
        """The decoded object; None for comments, ``[DONE]`` and any other data."""
        if not self._decoded:
            data = event_data(self.raw)
            self._data, self._decoded = (cast(Chunk, data) if isinstance(data, dict) else None), True
        return self._data

    @property
    def done(self) -> bool:
        """Whether this is the closing ``[DONE]``."""
        return self.raw.startswith(DONE)

    def raise_error(self) -> None:
        """Raise one of our exceptions if the event reports a failure: ``data: {"error": …}`` or ``error: {…}``."""
        error = event_error(self)
        if error is not None:
            code = error.get("code")
            raise error_from(code if isinstance(code, int) and 400 <= code < 600 else 500, error)


def event_error(event: StreamEvent) -> JsonObject | None:
    """Return the error object of an event that reports a failure, None for any other event."""
    error: Any
    if event.raw.startswith(b"error:"):
        error = event_data(b"data:" + event.raw[6:])
    elif b'"error"' in event.raw:
        error = (event.data or {}).get("error")
    else:
        return None
    if isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    return error if isinstance(error, dict) else None


class EventBatch:
    """Whole events that arrived together.

    ``raw``: their bytes, to be sent on untouched. ``events``: one by one. ``generated``: whether they are part of an
    answer; a report on the prompt comes before it.
    """

    __slots__ = ("_events", "generated", "raw")

    def __init__(self, raw: bytes, events: list[StreamEvent] | None = None, *, generated: bool = True) -> None:
        self.raw = raw
        self.generated = generated
        self._events = events

    @property
    def events(self) -> list[StreamEvent]:
        """The events, split when they are first needed."""
        if self._events is None:
            self._events = [StreamEvent(event + b"\n\n") for event in split_events(self.raw)]
        return self._events

    def chunks(self) -> list[Chunk]:
        """Return the decoded objects of the events that have one."""
        if self._events is None:
            decoded: list[object] = [event_data(event) for event in split_events(self.raw)]
            return cast("list[Chunk]", [data for data in decoded if isinstance(data, dict)])
        return [data for event in self._events if (data := event.data) is not None]


class SSEStream(ABC):
    """The batches of one response, up to its end and without its ``[DONE]``.

    Iterate once. Iterating raises our exceptions, also where the response ends too early.
    """

    def __init__(self) -> None:
        self._batches = self._read()
        self._on_figures: Callable[[Chunk], None] = _ignore

    def report_figures(self, on_figures: Callable[[Chunk], None]) -> None:
        """Have token counts that reach no reader of the batches, or reach them late, given to ``on_figures``.

        It is called while the batches are read, on the thread that reads them, with chunks that have a
        ``prompt_progress``, a ``usage`` or ``timings``, and of their choices the index. It must not change them.
        """
        self._on_figures = on_figures

    def wait_for_first(self) -> None:
        """Wait for the first batch. A failure before it closes the stream."""
        try:
            self._batches = chain([next(self._batches)], self._batches)
        except StopIteration:  # a complete response without an event
            return
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[EventBatch]:
        return iter(self._batches)

    @abstractmethod
    def _read(self) -> Iterator[EventBatch]:
        """Yield the batches as they arrive."""

    @abstractmethod
    def drain(self) -> None:
        """Read what follows the end, so that the connection can be used again. Never raises."""

    @abstractmethod
    def close(self) -> None:
        """End the request, whether or not the response has been read."""


def _ignore(_figures: Chunk) -> None:
    """Nobody counts the tokens of this stream."""


class ChunkStream(SSEStream):
    """The chunks of one response of the model server: without its reports of progress, its errors raised."""

    def __init__(self, response: UpstreamResponse, *, show_progress: bool, fingerprint: str | None = None) -> None:
        """``fingerprint`` takes the place of the ``system_fingerprint`` that the engine writes."""
        self._response = response
        self._pieces = response.iter_bytes()
        self._fingerprint = None if fingerprint is None else b'"system_fingerprint":"%s"' % fingerprint.encode()
        # What stands in its place in this stream, once that is known.
        self._replaced: bytes | None = None
        self._show_progress = show_progress
        # The chunk that names the role, while it is held back; nothing once there is nothing to hold back any more.
        self._opening: bytes | None = None
        self._ended = False
        super().__init__()

    def _read(self) -> Iterator[EventBatch]:
        """A batch has one event only where that event reports progress, follows such a report, or mentions an error."""
        feed, fingerprint = EventSplitter().feed, self._fingerprint
        for piece in self._pieces:
            raw = feed(piece)
            if fingerprint is not None and raw:
                replaced = self._replaced
                raw = self._identified(raw, fingerprint) if replaced is None else raw.replace(replaced, fingerprint)
            if _PROGRESS in raw or DONE in raw or b"error" in raw:
                yield from self._one_by_one(EventBatch(raw))
                if self._ended:
                    return
            elif raw and self._opening == b"":
                yield EventBatch(raw)
            elif raw:
                yield from self._opened(EventBatch(raw))
        raise ModelServerFailed("The model server broke off its answer.", summary="an answer without an end")

    def _one_by_one(self, batch: EventBatch) -> Iterator[EventBatch]:
        """Yield what a client sees of events of which one may be an error, a report of progress, or the end."""
        for event in batch.events:
            event.raise_error()
            if event.done:
                self._ended = True
                yield from self._held_back()
                return
            yield from self._visible(event)

    def _identified(self, raw: bytes, fingerprint: bytes) -> bytes:
        """Return events that say what has generated them. llama.cpp says the same in all events of a stream, and
        nothing of the model; the bundled one does not know its version (``b0-unknown``)."""
        if self._replaced is None:
            found = _FINGERPRINT.search(raw)
            if found is None:
                return raw
            self._replaced = found[0]
        return raw.replace(self._replaced, fingerprint)

    def _visible(self, event: StreamEvent) -> Iterator[EventBatch]:
        if _PROGRESS not in event.raw:
            yield from self._opened(EventBatch(event.raw, [event]))
            return
        self._on_figures(event.data or {})
        if self._show_progress:
            yield EventBatch(event.raw, [event], generated=False)
        elif self._opening is None:
            self._opening = _without_progress(event)

    def _opened(self, batch: EventBatch) -> Iterator[EventBatch]:
        """A chat's stream opens with a chunk that names the role. llama.cpp leaves it out where its first token was
        held back (half a character), but its reports of progress name the role too."""
        if _ROLE not in batch.raw:
            yield from self._held_back()
        self._opening = b""
        yield batch

    def _held_back(self) -> Iterator[EventBatch]:
        """Yield the chunk that names the role, where it was held back."""
        opening, self._opening = self._opening, b""
        if opening:
            yield EventBatch(opening)

    def drain(self) -> None:
        """Read what follows ``[DONE]``, so that the connection can be used again. Never raises."""
        self._response.drain()

    def close(self) -> None:
        """End the request, whether or not the response has been read."""
        self._response.close()


def _without_progress(event: StreamEvent) -> bytes:
    """Return the chunk that carries a report of progress, without the report; nothing where little else is in it."""
    if event.data is None or _ROLE not in event.raw:
        return b""
    return encode_event(omit(event.data, ("prompt_progress",)))
