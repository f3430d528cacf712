"""Llama.cpp's own form of response and stream.

llama.cpp's own form of an answer: read for the record, put together from a stream, cut to the fields asked for.

An event is ``{"index", "content", "tokens", "stop": false, …}``; the last one of an index has ``"stop": true``
and the figures. An answer that does not stream is that last object with the whole content, or an array of them where
more than one was asked for (several prompts, or ``n``).

llama.cpp's own event streams: they have no ``[DONE]``, and end when every index has had its last event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from mistral_api.errors import ModelServerFailed
from mistral_api.upstream.sse import DONE, ChunkStream, EventSplitter, event_data, raise_error, split_events
from mistral_api.upstream.transcript import Transcript

_FINISH = {"eos": "stop", "word": "stop", "limit": "length"}
# Fields that arrive piece by piece.
_GATHERED = ("tokens", "completion_probabilities")


class NativeTranscript(Transcript):
    """The growing record of one answer, or of one an index."""

    def __init__(self, choices_per_prompt: int = 1) -> None:
        super().__init__(choices_per_prompt)
        self.lasts: dict[int, dict[str, Any]] = {}
        self._gathered: dict[int, dict[str, list[Any]]] = {}

    def add_chunk(self, chunk: dict[str, Any]) -> None:
        """Take one event."""
        index, last = int(chunk.get("index") or 0), chunk.get("stop") is True
        gathered = self._gathered.setdefault(index, {})
        for name in _GATHERED:
            if chunk.get(name) and "prompt_progress" not in chunk:
                gathered[name] = gathered.get(name, []) + chunk[name]
        said = {"index": index, "text": chunk.get("content") or None}
        if last:
            self.lasts[index] = chunk
            said["finish_reason"] = _FINISH.get(str(chunk.get("stop_type")), "stop")
        super().add_chunk({"choices": [said], **_counts(chunk, last)})

    def answers(self) -> list[dict[str, Any]]:
        """The whole answers, in order of their index."""
        return [self._answer(index) for index in sorted(self.lasts)]

    def _answer(self, index: int) -> dict[str, Any]:
        content = self.choices[index].message.get("content") or ""
        return self.lasts[index] | {"content": content, "tokens": []} | self._gathered.get(index, {})


def _counts(chunk: dict[str, Any], last: bool) -> dict[str, Any]:
    """The figures of an event under OpenAI's names."""
    counts: dict[str, Any] = {name: chunk[name] for name in ("model", "timings") if name in chunk}
    if last and "tokens_evaluated" in chunk:
        cached = (chunk.get("timings") or {}).get("cache_n")
        counts["usage"] = {
            "prompt_tokens": chunk["tokens_evaluated"],
            "completion_tokens": chunk.get("tokens_predicted"),
            "prompt_tokens_details": {"cached_tokens": cached},
        }
    return counts


def assemble_native_body(transcript: NativeTranscript, **_options: Any) -> dict[str, Any]:
    """The answers of a complete transcript, under one name: they go out alone where there is but one."""
    return {"answers": transcript.answers()}


def selected(answer: dict[str, Any], fields: list[str] | None) -> dict[str, Any]:
    """``response_fields``: only these, each by its path (``generation_settings/n_predict``), as far as they are there.

    Done here, for the record needs the others.
    """
    if not fields:
        return answer
    found: dict[str, Any] = {}
    for path in fields:
        value: Any = answer
        for name in path.split("/"):
            value = value.get(name, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is not _ABSENT:
            found[path] = value
    return found


_ABSENT = object()


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
