"""Answers that are given again to identical requests (``CACHE_SECONDS``).

A request can be answered from the cache if its answer is the same each time: its temperature is 0, or it has a seed.
Identical are two requests of one owner for which the model server would get the same: the whole prompt with its
history, and every option. So a conversation that has grown, or a prompt that was cut, is another request, and it makes
no difference whether the answer is streamed. What is kept are the events of the model server. They go through the same
stages and renderers, so that every dialect, tool calls and log probabilities come out as they did the first time, under
a new id. Only complete answers are kept.

Such a request is recorded like any other, with its turn in the conversation. Its row in ``api_usage`` has
``cached_tokens`` equal to ``prompt_tokens``, which nothing else has (llama.cpp always reads one token at least), and
neither a time to the first token nor tokens a second: nothing was generated.
"""

from __future__ import annotations

import hashlib
import re
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import orjson

from mistral_api.generation.answer_storage import AnswerStorage, Version, open_answer_storage
from mistral_api.generation.plan import GenerationPlan
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.generation.shared_answers import shared_storage
from mistral_api.ipc.siblings import Siblings
from mistral_api.payload_types import JsonObject, omit
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.payload_types.completions import Chunk
from mistral_api.settings import Settings
from mistral_api.system.identifiers import new_id
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.sse import EventBatch, SSEStream

# The most bytes of events of an answer that is kept, before they are compressed.
MOST_ANSWER_BYTES = 8 << 20
# JSON writes a byte as six characters at most.
_MOST_UNPACKED_BYTES = 8 * MOST_ANSWER_BYTES
# Events that arrived one by one are sent together, up to so many bytes.
RUN_BYTES = 16 << 10
# Quotation marks within JSON strings have backslashes, so neither can stand in a text.
_ID = re.compile(rb'("id":\s*"(?:chatcmpl|cmpl)-)([^"\\]*)"')
_CREATED = re.compile(rb'("created":\s*)\d+')

# What a stream brings: parts of the answer, reports on the prompt that are shown, and figures that are not.
_ANSWER, _PROMPT, _FIGURES = "answer", "prompt", "figures"
Events = list[tuple[bytes, str]]
OpenStream = Callable[[ChatPayload], SSEStream]


class PlannedRequest(Protocol):
    """What is about to be generated: the path of the model server, the plan, and how its stream is shown."""

    @property
    def path(self) -> str: ...
    @property
    def plan(self) -> GenerationPlan: ...
    @property
    def show_progress(self) -> bool: ...


class AnswerCache:
    """The cache. One for the application; safe to use from many threads."""

    def __init__(self, storage: AnswerStorage, identify_model: Callable[[UpstreamCall], str]) -> None:
        """``identify_model`` returns what tells the loaded model from any other. ``storage`` is ours to close."""
        self._storage = storage
        self._identify_model = identify_model

    def look_up(self, planned: PlannedRequest, exchange: RunningExchange, call: UpstreamCall) -> CacheLookup | None:
        """Return what the cache has for a request; None where it is to have nothing. Marks the exchange.

        A client that asks us to keep no text of a request (``store: false``) is not served from here either.
        """
        plan, record = planned.plan, exchange.record
        if not plan.repeatable or (record.exchange.messages is None and record.stores_text):
            return None
        owner, key = record.exchange.owner, self._key(planned, record.exchange.owner, call)
        answer, version = self._storage.find(owner, key)
        entry = _CacheEntry(self._storage, owner, key, version)
        lookup = CacheLookup(entry, len(plan.requests), _unpack(answer, len(plan.requests)))
        exchange.note_cache(hit=lookup.hit)
        return lookup

    def _key(self, planned: PlannedRequest, owner: str, call: UpstreamCall) -> str:
        plan = planned.plan
        # A seed of ours tells slots apart, and no answers: the temperature is 0 then.
        dropped = () if plan.own_seed is None else ("seed",)
        # The order of fields says nothing, except within a schema.
        requests = [sorted(omit(each, dropped).items()) for each in plan.requests]
        parts = [owner, self._identify_model(call), planned.path, planned.show_progress, requests]
        return hashlib.sha256(orjson.dumps(parts)).hexdigest()

    def forget(self, owner: str) -> None:
        """Drop all answers of an owner, who has deleted something."""
        self._storage.forget(owner)

    def clear(self) -> None:
        """Drop all answers: the model server has been changed without a restart."""
        self._storage.clear()

    def close(self) -> None:
        """Close the storage."""
        self._storage.close()


def open_answer_cache(
    settings: Settings,
    identify_model: Callable[[UpstreamCall], str],
    siblings: Siblings,
    catch_up: Callable[[], None],
) -> AnswerCache | None:
    """Return the cache that the settings ask for, None where every answer is generated. Raises SettingError.

    ``catch_up``: does what the other API processes have told until now.
    """
    storage = open_answer_storage(settings)
    if storage is None:
        return None
    if settings.cache_storage_url is None:
        storage = shared_storage(storage, siblings, catch_up)
    return AnswerCache(storage, identify_model)


@dataclass(frozen=True, slots=True)
class _CacheEntry:
    """Where an answer is kept."""

    storage: AnswerStorage
    owner: str
    key: str
    version: Version | None

    def keep(self, answer: list[Events]) -> None:
        self.storage.keep(self.owner, self.key, _pack(answer), self.version)


class CacheLookup:
    """One request: its answer from the cache, or the recorder of the answer that is generated now. For one thread."""

    def __init__(self, entry: _CacheEntry, requests: int, found: list[Events] | None) -> None:
        """``requests``: how many requests the model server would get; ``found``: the events of each answer."""
        self._entry = entry
        self._requests = requests
        self._found = found
        self._replayed = iter(found or ())
        self._recorded: list[Events] = []

    @property
    def hit(self) -> bool:
        """Whether the cache has the answer."""
        return self._found is not None

    def opener(self, open_stream: OpenStream) -> OpenStream:
        """Return what opens the streams of the answer, in the order of the requests."""
        if self.hit:
            return lambda _request: ReplayedStream(next(self._replayed))
        return lambda request: RecordedStream(open_stream(request), self._add)

    def body(self, get_body: Callable[[], JsonObject]) -> JsonObject:
        """Return the answer of an engine that is not asked for a stream."""
        if self._found is not None:
            raw, _ = next(_renewed(self._found[0]))
            known: JsonObject = orjson.loads(raw)
            return known
        body = get_body()
        self._add([(orjson.dumps(body), _ANSWER)])
        return body

    def _add(self, events: Events) -> None:
        """Take the events of one request; with the last one the answer is complete."""
        self._recorded.append(events)
        if len(self._recorded) == self._requests:
            self._entry.keep(self._recorded)


class RecordedStream(SSEStream):
    """A stream whose events are handed over when it is complete, if they are not too many."""

    def __init__(self, stream: SSEStream, on_end: Callable[[Events], None]) -> None:
        self._stream = stream
        self._on_end = on_end
        self._events: Events = []
        self._size = 0
        super().__init__()
        stream.report_figures(self._report)

    def _report(self, figures: Chunk) -> None:
        self._note(orjson.dumps(figures), _FIGURES)
        self._on_figures(figures)

    def _note(self, raw: bytes, kind: str) -> None:
        self._size += len(raw)
        if self._size <= MOST_ANSWER_BYTES:
            self._events.append((raw, kind))

    def _read(self) -> Iterator[EventBatch]:
        for batch in self._stream:
            self._note(batch.raw, _ANSWER if batch.generated else _PROMPT)
            yield batch
        if self._size <= MOST_ANSWER_BYTES:
            self._on_end(_joined(self._events))

    def drain(self) -> None:
        self._stream.drain()

    def close(self) -> None:
        self._stream.close()


class ReplayedStream(SSEStream):
    """The events of an earlier answer."""

    def __init__(self, events: Events) -> None:
        self._events = events
        super().__init__()

    def _read(self) -> Iterator[EventBatch]:
        for raw, kind in _renewed(self._events):
            if kind == _FIGURES:
                self._on_figures(orjson.loads(raw))
            else:
                yield EventBatch(raw, generated=kind == _ANSWER)

    def drain(self) -> None:
        """Nothing follows."""

    def close(self) -> None:
        """No request is open."""


def _joined(events: Events) -> Events:
    """Return the same events in longer runs."""
    runs: Events = []
    for raw, kind in events:
        if kind == _ANSWER and runs and runs[-1][1] == kind and len(runs[-1][0]) + len(raw) <= RUN_BYTES:
            runs[-1] = (runs[-1][0] + raw, kind)
        else:
            runs.append((raw, kind))
    return runs


def _renewed(events: Events) -> Iterator[tuple[bytes, str]]:
    """Yield events with an id and a time of their own: nobody may take one answer for the other."""
    found = next((match for raw, _ in events if (match := _ID.search(raw))), None)
    old, new = found[2] if found else None, new_id().hex.encode()
    created = b"\\g<1>%d" % int(time.time())
    for raw, kind in events:
        own = _ID.sub(lambda match: match[1] + new + b'"' if match[2] == old else match[0], raw)
        yield _CREATED.sub(created, own), kind


def _pack(answer: list[Events]) -> bytes:
    """Return events as bytes. Latin-1 gives every byte a character."""
    texts = [[(raw.decode("latin-1"), kind) for raw, kind in events] for events in answer]
    return zlib.compress(orjson.dumps(texts), 1)


def _unpack(answer: bytes | None, requests: int) -> list[Events] | None:
    """Return the events of so many requests that :func:`_pack` made; None where there are none, or damaged ones."""
    if answer is None:
        return None
    try:
        texts = orjson.loads(zlib.decompressobj().decompress(answer, _MOST_UNPACKED_BYTES))
        found = [[(text.encode("latin-1"), str(kind)) for text, kind in events] for events in texts]
    except (zlib.error, ValueError, TypeError, AttributeError):
        return None
    return found if len(found) == requests else None
