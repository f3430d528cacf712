"""llama.cpp's own event streams: they have no ``[DONE]``, and end when every index has had its last event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from mistral_api.errors import ModelServerFailed
from mistral_api.inference.events import DONE, EventSplitter, event_data, split_events
from mistral_api.inference.stream import ChunkStream, raise_error
from mistral_api.llama_cpp.answers import selected


class NativeStream(ChunkStream):
    """Runs of one event each, and a ``[DONE]`` of our own when all is complete: the record waits for it."""

    def _read(self) -> Iterator[bytes]:
        splitter, unfinished, finished = EventSplitter(), set[int](), set[int]()
        for piece in self._answer.chunks():
            for event in split_events(splitter.feed(piece)):
                raise_error(event)
                data = event_data(event)
                if not isinstance(data, dict) or ("prompt_progress" in data and not self._show_progress):
                    continue
                (finished if data.get("stop") is True else unfinished).add(int(data.get("index") or 0))
                yield event + b"\n\n"
        if not finished or unfinished - finished:
            raise ModelServerFailed("The model server broke off its answer.", summary="an answer without an end")
        yield DONE + b"\n\n"


class NativeEvents:
    """What the client sees of such a stream: the last events only when all is recorded, and no ``[DONE]``."""

    def __init__(self, relay: Iterable[bytes], fields: list[str] | None) -> None:
        """``fields``: those the client wants of the last event, if not all."""
        self._relay = relay
        self._fields = fields

    def __iter__(self) -> Iterator[bytes]:
        held = b""
        for events in self._relay:
            if events.startswith(DONE):
                yield held
            elif b"true" in events and (last := _last(events)) is not None:
                held += b"data: " + orjson.dumps(selected(last, self._fields)) + b"\n\n"
            else:
                yield events

    def close(self) -> None:
        """Called by the WSGI server, whatever happened."""
        close = getattr(self._relay, "close", None)
        if close is not None:
            close()


def _last(event: bytes) -> dict[str, Any] | None:
    """The data of an event that is the last of its index."""
    data = event_data(event)
    return data if isinstance(data, dict) and data.get("stop") is True else None
