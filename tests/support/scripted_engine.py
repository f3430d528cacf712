"""A model server that says what a test wants, over a real socket in llama.cpp's protocol.

A *script* is a function from the request of the API to the deltas of the answer. So a client's own program can be
made to call a tool, which no small model does on demand. Endpoints and fields: ggml-org/llama.cpp,
tools/server/README.md.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mistral_api.payload_types.completions import Delta
from tests.support.http_stub import StubHandler, http_stub
from tests.support.processes import Server, running_server, temporary_data_dir

MODEL = "scripted"
CONTEXT_SIZE = 200_000
Script = Callable[[dict[str, Any]], list[Delta]]

_HEAD = {"id": "chatcmpl-scripted", "created": 1795572458, "model": MODEL, "object": "chat.completion.chunk"}
_LISTED = {"id": MODEL, "object": "model", "created": 1, "owned_by": "llamacpp", "meta": {"n_ctx": CONTEXT_SIZE}}
_PROPS = {
    "default_generation_settings": {"n_ctx": CONTEXT_SIZE},
    "total_slots": 4,
    "model_path": MODEL,
    "chat_template": "",
}
_PROMPT_TOKENS = 8
_ANSWERS = {
    "/health": {"status": "ok"},
    "/v1/models": {"object": "list", "data": [_LISTED]},
    "/props": _PROPS,
    "/apply-template": {"prompt": "x"},
    "/tokenize": {"tokens": [1] * _PROMPT_TOKENS},
    "/v1/chat/completions/input_tokens": {"input_tokens": _PROMPT_TOKENS},
}


@dataclass
class ScriptedEngine:
    """The running server, as a test sees it: its URL, and the bodies of the chat requests that it was sent."""

    script: Script
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)


def call_tool(name: str, arguments: dict[str, Any], call_id: str = "call_1") -> list[Delta]:
    """Return the deltas of a tool call, in two pieces as llama.cpp streams them."""
    text = json.dumps(arguments)
    return [
        {"tool_calls": [{"index": 0, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": text[:5]}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": text[5:]}}]},
    ]


def say(text: str) -> list[Delta]:
    """Return the deltas of a text, a word each."""
    return [{"content": word + " "} for word in text.split()]


def tool_results(body: dict[str, Any]) -> list[str]:
    """Return the texts of the tool messages of a request."""
    return [_text(message["content"]) for message in body["messages"] if message["role"] == "tool"]


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


@contextlib.contextmanager
def scripted_engine(script: Script) -> Iterator[ScriptedEngine]:
    """Run the engine in threads of this process until the end of the block."""
    engine = ScriptedEngine(script)
    with http_stub(_Handler, engine=engine) as engine.url:
        yield engine


@contextlib.contextmanager
def scripted_stack(script: Script, **settings: str) -> Iterator[tuple[Server, ScriptedEngine]]:
    """Run ``bin/serve`` in front of the engine. The script can be exchanged: ``engine.script``."""
    with (
        scripted_engine(script) as engine,
        temporary_data_dir() as data_dir,
        running_server(data_dir, MODEL_SERVER_URL=engine.url, **settings) as server,
    ):
        yield server, engine


class _Handler(StubHandler):
    engine: ScriptedEngine

    def get(self) -> None:
        """Serve health, models and properties."""
        self._whole(_ANSWERS.get(self.path.partition("?")[0]))

    def post(self, body: Any) -> None:
        """Generate what the script says, or count tokens."""
        if self.path != "/v1/chat/completions":
            self._whole(_ANSWERS.get(self.path))
            return
        self.engine.bodies.append(body)
        deltas = self.engine.script(body)
        if body.get("stream"):
            self._stream(_chunks(deltas))
        else:
            self._whole(_completion(deltas))

    def _whole(self, body: object) -> None:
        content = json.dumps(body or {"error": {"code": 404, "message": "File Not Found"}}).encode()
        self.send_whole(200 if body else 404, content, {"Content-Type": "application/json"})

    def _stream(self, chunks: list[dict[str, Any]]) -> None:
        self.begin_stream()
        for event in [*(json.dumps(chunk) for chunk in chunks), "[DONE]"]:
            self.send_piece(f"data: {event}\n\n".encode())
        self.send_piece(b"")


def _usage(deltas: list[Delta]) -> dict[str, Any]:
    count = len(deltas)
    return {"prompt_tokens": _PROMPT_TOKENS, "completion_tokens": count, "total_tokens": _PROMPT_TOKENS + count}


def _finish_reason(deltas: list[Delta]) -> str:
    return "tool_calls" if any("tool_calls" in delta for delta in deltas) else "stop"


def _chunks(deltas: list[Delta]) -> list[dict[str, Any]]:
    opening: Delta = {"role": "assistant", "content": None}
    choices: list[tuple[Delta, str | None]] = [
        (opening, None),
        *((delta, None) for delta in deltas),
        ({}, _finish_reason(deltas)),
    ]
    return [
        *(_HEAD | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]} for delta, reason in choices),
        _HEAD | {"choices": [], "usage": _usage(deltas)},
    ]


def _completion(deltas: list[Delta]) -> dict[str, Any]:
    """Return the whole answer. Scripts call one tool at most."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(delta.get("content") or "" for delta in deltas)}
    pieces = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    if pieces:
        arguments = "".join(piece["function"]["arguments"] for piece in pieces)
        message["tool_calls"] = [pieces[0] | {"function": pieces[0]["function"] | {"arguments": arguments}}]
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(deltas)}
    return _HEAD | {"object": "chat.completion", "choices": [choice], "usage": _usage(deltas)}
