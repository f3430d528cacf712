"""A stream of chat completion chunks as Anthropic's events.

``message_start``, then for each block ``content_block_start``, its deltas and ``content_block_stop``, then
``message_delta`` with the reason and the figures, and ``message_stop``; a failure is an event ``error``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from mistral_api.anthropic.answers import message_id, stop_of, usage_of
from mistral_api.anthropic.errors import anthropic_error
from mistral_api.inference.events import DONE, event_data, split_events
from mistral_api.inference.stream import ChunkStream

_PROGRESS = b'"prompt_progress"'


class MessageStream(ChunkStream):
    """The chunks, the first of them after the last report of progress: it knows the tokens of the prompt."""

    _last_report = b""

    def _visible(self, event: bytes) -> Iterator[bytes]:
        if _PROGRESS in event:
            self._last_report = event
        else:
            yield from self._opened(event)

    def _opened(self, events: bytes) -> Iterator[bytes]:
        report, self._last_report = self._last_report, b""
        if report:
            yield report
        yield events


class MessageEvents:
    """The events of one message. Iterate once; closing it closes the stream it reads."""

    def __init__(self, relay: Iterable[bytes], model: str | None) -> None:
        """``relay``: runs of chat completion chunks; ``model``: what the client asked for."""
        self._relay = relay
        self._model = model
        self._started = False
        self._usage: dict[str, Any] = {}
        self._finish: str | None = None
        self._verbose: Any = None
        self._called = False
        # The block that is open: its number, and what it is (a tool's block is told by the index of its call).
        self._index = -1
        self._open: object = None

    def __iter__(self) -> Iterator[bytes]:
        for run in self._relay:
            events = b"".join(each for event in split_events(run) for each in self._translate(event))
            if events:
                yield events

    def close(self) -> None:
        """Called by the WSGI server, whatever happened."""
        close = getattr(self._relay, "close", None)
        if close is not None:
            close()

    def _translate(self, event: bytes) -> Iterator[bytes]:
        if event.startswith(DONE):
            yield from self._ended()
            return
        data = event_data(event)
        if not isinstance(data, dict):
            return
        if isinstance(data.get("error"), dict):
            yield _event(anthropic_error(data))
        else:
            yield from self._chunk(data)

    def _chunk(self, chunk: dict[str, Any]) -> Iterator[bytes]:
        if not self._started:
            self._started = True
            yield self._start(chunk)
        self._usage = chunk.get("usage") or self._usage
        self._verbose = chunk.get("__verbose") or self._verbose
        for choice in chunk.get("choices") or []:
            self._finish = choice.get("finish_reason") or self._finish
            yield from self._delta(choice.get("delta") or {})

    def _start(self, chunk: dict[str, Any]) -> bytes:
        progress = chunk.get("prompt_progress") or {}
        counted = {
            "prompt_tokens": progress.get("total"),
            "prompt_tokens_details": {"cached_tokens": progress.get("cache")},
        }
        message: dict[str, Any] = {
            "id": message_id(chunk.get("id")),
            "type": "message",
            "role": "assistant",
            "model": self._model or chunk.get("model") or "",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_of(counted),
        }
        return _event({"type": "message_start", "message": message})

    def _delta(self, delta: dict[str, Any]) -> Iterator[bytes]:
        if delta.get("reasoning_content"):
            yield from self._block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._piece({"type": "thinking_delta", "thinking": delta["reasoning_content"]})
        if delta.get("content"):
            yield from self._block("text", {"type": "text", "text": ""})
            yield self._piece({"type": "text_delta", "text": delta["content"]})
        for call in delta.get("tool_calls") or []:
            yield from self._tool_call(call)

    def _tool_call(self, call: dict[str, Any]) -> Iterator[bytes]:
        self._called = True
        function = call.get("function") or {}
        block: dict[str, Any] = {
            "type": "tool_use",
            "id": call.get("id") or "",
            "name": function.get("name") or "",
            "input": {},
        }
        yield from self._block(call.get("index") or 0, block)
        if function.get("arguments"):
            yield self._piece({"type": "input_json_delta", "partial_json": function["arguments"]})

    def _block(self, what: object, block: dict[str, Any]) -> Iterator[bytes]:
        """Open a block, unless it is the one that is open."""
        if self._open == what:
            return
        yield from self._close_block()
        self._open = what
        self._index += 1
        yield _event({"type": "content_block_start", "index": self._index, "content_block": block})

    def _close_block(self) -> Iterator[bytes]:
        if self._open is not None:
            yield _event({"type": "content_block_stop", "index": self._index})
        self._open = None

    def _piece(self, delta: dict[str, Any]) -> bytes:
        return _event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _ended(self) -> Iterator[bytes]:
        if not self._started:
            yield self._start({})
        yield from self._close_block()
        stop = stop_of(self._finish, self._verbose, called=self._called)
        yield _event({"type": "message_delta", "delta": stop, "usage": usage_of(self._usage)})
        yield _event({"type": "message_stop"})


def _event(data: dict[str, Any]) -> bytes:
    """One server-sent event, named by its type."""
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), orjson.dumps(data))
