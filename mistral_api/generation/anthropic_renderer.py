"""Chat response, chunks and errors as Anthropic's.

A chat completion as Anthropic's ``Message``.

Our errors as Anthropic's: ``{"type": "error", "error": {"type", "message"}}``.

Its clients choose the exception by the HTTP status, and tell by ``error.type`` what happened to a stream. The four keys
of OpenAI's error object stay, with Anthropic's word as the ``type``.

A stream of chat completion chunks as Anthropic's events.

``message_start``, then for each block ``content_block_start``, its deltas and ``content_block_stop``, then
``message_delta`` with the reason and the figures, and ``message_stop``; a failure is an event ``error``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from mistral_api.upstream.sse import DONE, ChunkStream, event_data, split_events
from mistral_api.upstream.transcript import Transcript, assemble_body

_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_VERBOSE = "__verbose"


class MessageTranscript(Transcript):
    """A transcript that remembers what llama.cpp says beside OpenAI's fields: the stop sequence it met."""

    def __init__(self, choices_per_prompt: int = 1) -> None:
        super().__init__(choices_per_prompt)
        self.verbose: dict[str, Any] = {}

    def add_chunk(self, chunk: dict[str, Any]) -> None:
        """Take one chunk of a stream."""
        if isinstance(chunk.get(_VERBOSE), dict):
            self.verbose = chunk[_VERBOSE]
        super().add_chunk(chunk)


def complete_message(transcript: MessageTranscript, *, chat: bool) -> dict[str, Any]:
    """The chat completion of a complete transcript, with the verbose part that :func:`message_of` reads."""
    return assemble_body(transcript, chat=chat) | {_VERBOSE: transcript.verbose}


def stop_of(finish_reason: str | None, verbose: Any, *, called: bool) -> dict[str, Any]:
    """``stop_reason`` and ``stop_sequence``. ``called``: tools were; for a named one OpenAI's reason is ``stop``."""
    if called and finish_reason == "stop":
        return {"stop_reason": "tool_use", "stop_sequence": None}
    met = verbose.get("stopping_word") if isinstance(verbose, dict) else None
    if met and finish_reason == "stop":
        return {"stop_reason": "stop_sequence", "stop_sequence": met}
    return {"stop_reason": _STOP_REASONS.get(finish_reason or "", "end_turn"), "stop_sequence": None}


def usage_of(usage: dict[str, Any]) -> dict[str, Any]:
    """Anthropic counts the tokens that were read from the cache apart."""
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": max(0, (usage.get("prompt_tokens") or 0) - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.get("completion_tokens") or 0,
    }


def message_id(completion_id: object) -> str:
    """Anthropic's ids begin with ``msg_``."""
    return "msg_" + str(completion_id or "").removeprefix("chatcmpl-")


def anthropic_message(body: dict[str, Any], model: str | None) -> dict[str, Any]:
    """The ``Message`` of a ``chat.completion`` object; ``model`` is what the client asked for."""
    choice = (body.get("choices") or [{}])[0]
    said = choice.get("message") or {}
    return {
        "id": message_id(body.get("id")),
        "type": "message",
        "role": "assistant",
        "model": model or body.get("model") or "",
        "content": _blocks(said),
        **stop_of(choice.get("finish_reason"), body.get(_VERBOSE), called=bool(said.get("tool_calls"))),
        "usage": usage_of(body.get("usage") or {}),
    }


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if message.get("reasoning_content"):
        blocks.append({"type": "thinking", "thinking": message["reasoning_content"], "signature": ""})
    if message.get("content"):
        blocks.append({"type": "text", "text": message["content"]})
    return blocks + [_tool_use(call) for call in message.get("tool_calls") or []]


def _tool_use(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": _input(function["arguments"])}


def _input(arguments: str) -> dict[str, Any]:
    """An answer that was cut off may end inside its arguments: Anthropic's ``input`` is an object all the same."""
    try:
        decoded = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


_BY_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# A stream's status is 200 whatever happens later: there the code has to tell.
_BY_CODE = {
    "model_loading": "overloaded_error",
    "model_unavailable": "overloaded_error",
    "overloaded": "overloaded_error",
    "model_timeout": "timeout_error",
    "rate_limit_exceeded": "rate_limit_error",
}


def anthropic_error(body: dict[str, Any], status: int | None = None) -> dict[str, Any]:
    """The error body for one of ours; ``status`` is None in a stream."""
    error = body["error"]
    kind = _BY_STATUS.get(status or 0) or _BY_CODE.get(error.get("code") or "")
    if kind is None:
        kind = "api_error" if error.get("type") == "server_error" else "invalid_request_error"
    return {"type": "error", "error": error | {"type": kind}}


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
