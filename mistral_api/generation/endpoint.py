"""`RequestContext`, `Endpoint`, `Dialect`: what tells the endpoints apart.

What tells the generation endpoints apart: their schema, and what of a request is a message.

A request for a generation as it came in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from marshmallow import Schema

from mistral_api.security.access import Caller
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.sse import ChunkStream
from mistral_api.upstream.transcript import Transcript, assemble_body
from mistral_api.wire import ChatCompletionRequest, CompletionRequest

# Fields of ours: the model server never sees them. ``response_fields`` is llama.cpp's; llama_cpp.answers does its work.
OWN_FIELDS = ("session_id", "use_history", "truncation", "store", "metadata", "response_fields")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the model server's answers are read: as events, into a transcript, and from there as one body.

    ``llama_cpp``: nobody but llama.cpp speaks it.
    """

    stream: type[ChunkStream] = ChunkStream
    transcript: type[Transcript] = Transcript
    whole: Callable[..., dict[str, Any]] = assemble_body
    llama_cpp: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One generation endpoint; ``messages`` reads the client's messages out of a valid payload.

    ``upstream``: the model server's path, where it is another one.
    """

    path: str
    chat: bool
    schema: Schema
    messages: Callable[[dict[str, Any]], list[dict[str, Any]]]
    upstream: str | None = None
    dialect: Dialect = Dialect()


def _chat_messages(payload: dict[str, Any]) -> list[dict[str, Any]]:
    return list(payload["messages"])


def _prompt_message(payload: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": payload["prompt"]}]


CHAT = Endpoint("/v1/chat/completions", True, ChatCompletionRequest(), _chat_messages)
COMPLETION = Endpoint("/v1/completions", False, CompletionRequest(), _prompt_message)


def upstream_payload(payload: dict[str, Any], *, ours: bool, seed: int | None = None) -> dict[str, Any]:
    """The request as the model server gets it: without our fields, and streams always with usage.

    ``ours``: the model server is llama.cpp. It is asked for a stream whatever the client asked for, with
    reports of progress: see ``inference.assembly`` and ``inference.stream`` for the reasons. ``seed``: for a
    request that brings none.
    """
    sent = {name: value for name, value in payload.items() if name not in OWN_FIELDS}
    if ours:
        sent |= {"stream": True, "return_progress": True}
    if seed is not None:
        sent["seed"] = seed
    if sent.get("stream"):
        sent["stream_options"] = {**(sent.get("stream_options") or {}), "include_usage": True}
    return sent


def wants_usage(payload: dict[str, Any]) -> bool:
    """Whether the client asked for the usage chunk at the end of a stream."""
    return bool((payload.get("stream_options") or {}).get("include_usage"))


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who asks, the decoded body, and the client's line."""

    caller: Caller
    request_id: UUID
    client_request_id: str | None
    body: object
    call: UpstreamCall = field(default_factory=UpstreamCall)
