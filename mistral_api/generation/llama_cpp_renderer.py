"""llama.cpp's own form of a response: read from a stream, put together, cut to the fields asked for.

An event is ``{"index", "content", "tokens", "stop": false, …}``. The last one of an index has ``"stop": true`` and the
figures. A response that does not stream is that last object with the whole content, or an array of them where more than
one was asked for (several prompts, or ``n``). Streams have no ``[DONE]``: they end when every index has had its last
event (tools/server/README.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from mistral_api.errors import ApiError, ModelServerFailed, error_event
from mistral_api.generation.renderer import Renderer, ResponseBody
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.payload_types.completions import Chunk, ChunkChoice, LlamaCppEvent
from mistral_api.upstream.sse import ChunkStream, EventBatch, EventSplitter, StreamEvent, encode_event, split_events
from mistral_api.upstream.transcript import Transcript

_FINISH_REASONS = {"eos": "stop", "word": "stop", "limit": "length"}
_ABSENT = object()


class LlamaCppStream(ChunkStream):
    """Batches of one event each, until every index has had its last one."""

    def _read(self) -> Iterator[EventBatch]:
        splitter, unfinished, finished = EventSplitter(), set[int](), set[int]()
        for piece in self._pieces:
            for raw in split_events(splitter.feed(piece)):
                event = StreamEvent(raw + b"\n\n")
                event.raise_error()
                data = event.data
                if data is None:
                    continue
                progress = "prompt_progress" in data
                if progress:
                    self._on_figures(data)
                if progress and not self._show_progress:
                    continue
                (finished if _is_last(data) else unfinished).add(int(_as_event(data).get("index") or 0))
                yield EventBatch(event.raw, [event], generated=not progress)
        if not finished or unfinished - finished:
            raise ModelServerFailed("The model server broke off its answer.", summary="an answer without an end")


class LlamaCppTranscript(Transcript):
    """The growing transcript of one response, or of one for each index."""

    def __init__(self, choices_per_prompt: int = 1) -> None:
        super().__init__(choices_per_prompt)
        self._last_events: dict[int, LlamaCppEvent] = {}
        self._gathered: dict[int, LlamaCppEvent] = {}

    def add_chunks(self, chunks: Iterable[Chunk]) -> None:
        """Take events, in their order."""
        for chunk in chunks:
            self.add_chunk(chunk)

    def add_chunk(self, chunk: Chunk) -> None:
        """Take one event."""
        event = _as_event(chunk)
        index, last = int(event.get("index") or 0), _is_last(event)
        if "prompt_progress" not in event:
            _gather(self._gathered.setdefault(index, {}), event)
        choice: ChunkChoice = {"index": index, "text": event.get("content") or None}
        if last:
            self._last_events[index] = event
            choice["finish_reason"] = _FINISH_REASONS.get(str(event.get("stop_type")), "stop")
        super().add_chunk(_figures(event) | {"choices": [choice]})

    def add_figures(self, chunk: Chunk) -> None:
        """Take the token counts of an event as it came, or as :meth:`add_chunk` passes it on."""
        super().add_figures(chunk if "choices" in chunk else _figures(_as_event(chunk)))

    def bodies(self) -> list[LlamaCppEvent]:
        """Return the whole responses, in the order of their indexes."""
        return [self._body(index) for index in sorted(self._last_events)]

    def _body(self, index: int) -> LlamaCppEvent:
        content = self.choices[index].message.get("content") or ""
        return self._last_events[index] | {"content": content, "tokens": []} | self._gathered.get(index, {})


def _gather(gathered: LlamaCppEvent, event: LlamaCppEvent) -> None:
    """Add the fields that arrive piece by piece."""
    if event.get("tokens"):
        gathered.setdefault("tokens", []).extend(event["tokens"])
    if event.get("completion_probabilities"):
        gathered.setdefault("completion_probabilities", []).extend(event["completion_probabilities"])


def _as_event(data: Chunk) -> LlamaCppEvent:
    """Return the data of an event of this dialect; streams and transcripts are typed for OpenAI's chunks."""
    return cast("LlamaCppEvent", data)


def _figures(event: LlamaCppEvent) -> Chunk:
    """Return the figures of an event under OpenAI's names.

    Each event has the length of the prompt and the tokens generated so far. While the prompt is read, its report of
    progress says how much of it has been.
    """
    figures: Chunk = {"choices": [{"index": int(event.get("index") or 0)}]}
    for name in ("model", "timings", "prompt_progress"):
        if name in event:
            figures[name] = event[name]
    if "tokens_evaluated" in event and "prompt_progress" not in event:
        timings: object = event.get("timings")
        cached = timings.get("cache_n") if isinstance(timings, dict) else None
        figures["usage"] = {
            "prompt_tokens": event["tokens_evaluated"],
            "completion_tokens": event.get("tokens_predicted"),
            "prompt_tokens_details": {"cached_tokens": cached},
        }
    return figures


class LlamaCppRenderer(Renderer):
    """The events as they come, but the last of each index only once the exchange is recorded."""

    transcript: LlamaCppTranscript

    def __init__(self, transcript: LlamaCppTranscript, payload: ChatPayload, session_id: str) -> None:
        super().__init__(transcript, payload, session_id)
        # The fields that the client wants of a last event; None: all of them.
        self._fields = payload.get("response_fields")
        self._last_events = b""

    def relay(self, batch: EventBatch) -> bytes | None:
        return None if any(_is_last(event.data or {}) for event in batch.events) else batch.raw

    def event(self, event: StreamEvent) -> bytes:
        if event.data is None or not _is_last(event.data):
            return event.raw
        self._last_events += encode_event(select_fields(_as_event(event.data), self._fields))
        return b""

    def closing(self) -> bytes:
        return self._last_events

    def failure(self, error: ApiError) -> bytes:
        return error_event(error)

    def body(self) -> ResponseBody:
        bodies = [select_fields(body, self._fields) for body in self.transcript.bodies()]
        return bodies[0] if len(bodies) == 1 else bodies


def _is_last(event: Mapping[str, object]) -> bool:
    """Whether an event is the last one of its index."""
    return event.get("stop") is True


def select_fields(body: LlamaCppEvent, paths: list[str] | None) -> LlamaCppEvent | JsonObject:
    """Return the fields that ``response_fields`` names, each by its path (``generation_settings/n_predict``).

    A path that leads nowhere is left out. Without paths, all fields are returned. We select them, and not llama.cpp:
    the record needs the others.
    """
    if not paths:
        return body
    selected: JsonObject = {}
    for path in paths:
        value: Any = body
        for name in path.split("/"):
            value = value.get(name, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is not _ABSENT:
            selected[path] = value
    return selected
