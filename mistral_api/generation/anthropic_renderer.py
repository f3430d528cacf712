"""Chat responses, their chunks and our errors as Anthropic's.

A stream is ``message_start``, then for each block ``content_block_start``, its deltas and ``content_block_stop``, then
``message_delta`` with the reason and the figures, and ``message_stop``. A failure is an event ``error``.

Errors are ``{"type": "error", "error": {"type", "message"}}``. Anthropic's clients choose the exception by the HTTP
status, and tell by ``error.type`` what happened to a stream. The four keys of OpenAI's error object stay, with
Anthropic's word as the ``type``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal, NotRequired, TypedDict

import orjson

from mistral_api.errors import ApiError, ErrorObject
from mistral_api.generation.renderer import Renderer
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.anthropic import (
    AnthropicEvent,
    AnthropicMessage,
    AnthropicUsage,
    BlockDelta,
    ResponseBlock,
    StopFields,
    ToolUseBlock,
)
from mistral_api.payload_types.chat import ChatPayload, ToolCall
from mistral_api.payload_types.completions import Chunk, Completion, Delta, GeneratedMessage, ToolCallDelta, Usage
from mistral_api.upstream.sse import StreamEvent
from mistral_api.upstream.token_tally import TokenCounts, read_usage
from mistral_api.upstream.transcript import Transcript, assemble_body

_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


_PING = b'event: ping\ndata: {"type": "ping"}\n\n'


class AnthropicRenderer(Renderer):
    """The events of one message, or the whole message."""

    def __init__(self, transcript: Transcript, payload: ChatPayload, session_id: str) -> None:
        super().__init__(transcript, payload, session_id)
        self._model = payload.get("model")
        self._started = False
        self._finish_reason: str | None = None
        self._tool_called = False
        # The open block: its number, and its key (a tool's block is told from others by the index of its call).
        self._index = -1
        self._block_key: object = None

    def comment(self, text: str) -> bytes:
        """Anthropic's streams have an event for it, which says nothing; the comment is for people."""
        return super().comment(text) + _PING

    def event(self, event: StreamEvent) -> bytes:
        return b"" if event.data is None else b"".join(self._chunk(event.data))

    def closing(self) -> bytes:
        return b"".join(self._closing())

    def failure(self, error: ApiError) -> bytes:
        return _event(anthropic_error(error))

    def body(self) -> AnthropicMessage:
        return self._body

    @cached_property
    def _body(self) -> AnthropicMessage:
        return self.convert(assemble_body(self.transcript, chat=True))

    def convert(self, body: Completion) -> AnthropicMessage:
        message = anthropic_message(body, self._model, stop_sequence=self._stop_sequence)
        return message | {"session_id": self.session_id}

    @property
    def _stop_sequence(self) -> str | None:
        """The stop sequence that the model server met: llama.cpp says it in its verbose form."""
        return self.transcript.verbose.get("stopping_word")

    def _chunk(self, chunk: Chunk) -> Iterator[bytes]:
        if not self._started:
            self._started = True
            yield self._message_start(chunk)
        for choice in chunk.get("choices") or []:
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            yield from self._delta(choice.get("delta") or {})

    def _message_start(self, chunk: Chunk) -> bytes:
        """The event counts the tokens of the prompt: llama.cpp's last report on it has them."""
        progress = self.transcript.progress or {}
        usage: Usage = {
            "prompt_tokens": progress.get("total"),
            "prompt_tokens_details": {"cached_tokens": progress.get("cache")},
        }
        message: AnthropicMessage = {
            "id": message_id(chunk.get("id")),
            "type": "message",
            "role": "assistant",
            "model": self._model or chunk.get("model") or "",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": anthropic_usage(read_usage(usage)),
        }
        return _event({"type": "message_start", "message": message})

    def _delta(self, delta: Delta) -> Iterator[bytes]:
        reasoning, content = delta.get("reasoning_content"), delta.get("content")
        if reasoning:
            yield from self._open_block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._block_delta({"type": "thinking_delta", "thinking": reasoning})
        if content:
            yield from self._open_block("text", {"type": "text", "text": ""})
            yield self._block_delta({"type": "text_delta", "text": content})
        for call in delta.get("tool_calls") or []:
            yield from self._tool_call(call)

    def _tool_call(self, call: ToolCallDelta) -> Iterator[bytes]:
        self._tool_called = True
        function = call.get("function") or {}
        block: ToolUseBlock = {
            "type": "tool_use",
            "id": call.get("id") or "",
            "name": function.get("name") or "",
            "input": {},
        }
        yield from self._open_block(call.get("index") or 0, block)
        if function.get("arguments"):
            yield self._block_delta({"type": "input_json_delta", "partial_json": function["arguments"]})

    def _open_block(self, key: object, block: ResponseBlock) -> Iterator[bytes]:
        """Open a block, unless it is the one that is open."""
        if self._block_key == key:
            return
        yield from self._close_block()
        self._block_key = key
        self._index += 1
        yield _event({"type": "content_block_start", "index": self._index, "content_block": block})

    def _close_block(self) -> Iterator[bytes]:
        if self._block_key is not None:
            yield _event({"type": "content_block_stop", "index": self._index})
        self._block_key = None

    def _block_delta(self, delta: BlockDelta) -> bytes:
        return _event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _closing(self) -> Iterator[bytes]:
        if not self._started:
            yield self._message_start({})
        yield from self._close_block()
        stop = stop_fields(self._finish_reason, self._stop_sequence, tool_called=self._tool_called)
        yield _event({"type": "message_delta", "delta": stop, "usage": anthropic_usage(self.transcript.count_tokens())})
        yield _event({"type": "message_stop"})


def _event(data: AnthropicEvent | AnthropicErrorBody) -> bytes:
    """Return one server-sent event, named by its type."""
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), orjson.dumps(data))


def anthropic_message(body: Completion, model: str | None, *, stop_sequence: str | None = None) -> AnthropicMessage:
    """Return the ``Message`` of a ``chat.completion`` object.

    ``model``: the one that the client named; ``stop_sequence``: the one that the model server met.
    """
    choice = (body.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    stop = stop_fields(choice.get("finish_reason"), stop_sequence, tool_called=bool(message.get("tool_calls")))
    return {
        "id": message_id(body.get("id")),
        "type": "message",
        "role": "assistant",
        "model": model or body.get("model") or "",
        "content": _blocks(message),
        "stop_reason": stop["stop_reason"],
        "stop_sequence": stop["stop_sequence"],
        "usage": anthropic_usage(read_usage(body.get("usage"))),
    }


def message_id(completion_id: object) -> str:
    """Return the id of a completion as Anthropic's: it begins with ``msg_``."""
    return "msg_" + str(completion_id or "").removeprefix("chatcmpl-")


def stop_fields(finish_reason: str | None, stop_sequence: str | None, *, tool_called: bool) -> StopFields:
    """Return ``stop_reason`` and ``stop_sequence``.

    ``tool_called``: a tool was called. OpenAI's reason is ``stop`` for a tool that the client named.
    """
    if tool_called and finish_reason == "stop":
        return {"stop_reason": "tool_use", "stop_sequence": None}
    if stop_sequence and finish_reason == "stop":
        return {"stop_reason": "stop_sequence", "stop_sequence": stop_sequence}
    return {"stop_reason": _STOP_REASONS.get(finish_reason or "", "end_turn"), "stop_sequence": None}


def anthropic_usage(tokens: TokenCounts) -> AnthropicUsage:
    """Return token counts as Anthropic's usage, which counts tokens read from the cache apart."""
    cached = tokens.cached or 0
    return {
        "input_tokens": max(0, (tokens.prompt or 0) - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": tokens.completion or 0,
    }


def _blocks(message: GeneratedMessage) -> list[ResponseBlock]:
    reasoning, content = message.get("reasoning_content"), message.get("content")
    blocks: list[ResponseBlock] = []
    if reasoning:
        blocks.append({"type": "thinking", "thinking": reasoning, "signature": ""})
    if content:
        blocks.append({"type": "text", "text": content})
    return blocks + [_tool_use(call) for call in message.get("tool_calls") or []]


def _tool_use(call: ToolCall) -> ToolUseBlock:
    function = call["function"]
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": _input(function["arguments"])}


def _input(arguments: str) -> JsonObject:
    """Return the arguments as an object, as Anthropic has them. An answer cut short may end inside its arguments."""
    try:
        decoded: Any = orjson.loads(arguments or "{}")
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
# In a stream the HTTP status is 200, whatever happens later: there the code tells.
_BY_CODE = {
    "model_loading": "overloaded_error",
    "model_unavailable": "overloaded_error",
    "overloaded": "overloaded_error",
    "model_timeout": "timeout_error",
    "rate_limit_exceeded": "rate_limit_error",
}


class AnthropicErrorBody(TypedDict):
    """An error, as a body or as an event; a body has the id of its request."""

    type: Literal["error"]
    error: ErrorObject
    request_id: NotRequired[str]


def anthropic_error(error: ApiError, status: int | None = None) -> AnthropicErrorBody:
    """Return the error body for one of our errors; ``status``: the HTTP status, None in a stream."""
    kind = _BY_STATUS.get(status or 0) or _BY_CODE.get(error.code or "")
    if kind is None:
        kind = "api_error" if error.type == "server_error" else "invalid_request_error"
    return {"type": "error", "error": error.body()["error"] | {"type": kind, "message": _located_message(error, kind)}}


def _located_message(error: ApiError, kind: str) -> str:
    """Return the message of an error: where a part of the request is at fault, Anthropic begins it with the path.

    It writes ``messages.48.content.1: unexpected …`` (seen in anthropics/claude-code, issue 13460). It has
    no field for the path.
    """
    if not error.param or kind != "invalid_request_error":
        return error.message
    path = re.sub(r"\[(\d+)\]", r".\1", error.param)
    return f"{path}: {error.message.replace(error.param, path)}"
