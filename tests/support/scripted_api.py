"""A server with this API's protocol that answers each chat as the test says, for what no model can be made to say.

An answer is a list of steps: a chunk's delta, an event as it is (bytes), or one of the constants below. A refusal is a
status with an error in OpenAI's shape.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from tests.support.http_stub import StubHandler, http_stub

# The connection breaks; nothing comes until the client leaves.
CUT: Literal["cut"] = "cut"
WAIT: Literal["wait"] = "wait"
Step: TypeAlias = Mapping[str, Any] | bytes | Literal["cut", "wait"]


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error. ``headers`` go with it; ``body`` stands for the error where it is given."""

    status: int
    message: str = ""
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def content(self) -> bytes:
        """Return the body."""
        error = {"message": self.message, "type": "invalid_request_error", "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode() if self.body is None else self.body


@dataclass
class ScriptedApi:
    """The server: ``answers`` are given in their order; ``chats`` and ``headers`` are what it was sent.

    ``reading`` is what it says to whoever asks for conversations.
    """

    url: str = ""
    answers: list[Sequence[Step] | Refusal] = field(default_factory=list)
    chats: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    client_left: threading.Event = field(default_factory=threading.Event)
    keeps_sessions: bool = True
    reading: Refusal = Refusal(404, "Not found.", "not_found")

    def say(self, *steps: Step) -> None:
        """Give this answer next."""
        self.answers.append(steps)

    def refuse(self, status: int, message: str = "", **fields: Any) -> None:
        """Refuse the next chat."""
        self.answers.append(Refusal(status, message, **fields))


class _Handler(StubHandler):
    api: ScriptedApi

    def get(self) -> None:
        """List one model; keep nothing."""
        if self.path == "/v1/models":
            model = {"id": "scripted", "object": "model", "created": 1, "owned_by": "test", "state": "ready"}
            self.send_whole(200, json.dumps({"object": "list", "data": [model]}).encode())
        else:
            self._refuse(self.api.reading)

    def post(self, body: Any) -> None:
        """Answer a chat."""
        self.api.chats.append(body)
        self.api.headers.append({name.lower(): value for name, value in self.headers.items()})
        answer = self.api.answers.pop(0)
        if isinstance(answer, Refusal):
            self._refuse(answer)
            return
        self.begin_stream({"X-Session-Id": self.api.chats[-1]["session_id"]} if self.api.keeps_sessions else None)
        with contextlib.suppress(ConnectionError):  # the client left
            self._stream(answer)

    def _stream(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if step == CUT:
                self.close_connection = True
                return
            if step == WAIT:
                self._wait()
                return
            self.send_piece(step if isinstance(step, bytes) else _event(step))
        self.send_piece(b"data: [DONE]\n\n")
        self.send_piece(b"")

    def _wait(self) -> None:
        self.close_connection = True
        self.connection.settimeout(20)
        if not self.connection.recv(1):
            self.api.client_left.set()

    def _refuse(self, refusal: Refusal) -> None:
        self.send_whole(refusal.status, refusal.content(), refusal.headers)


def _event(delta: Mapping[str, Any]) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return b"data: " + json.dumps({"id": "x", "model": "scripted", "choices": [choice]}).encode() + b"\n\n"


@contextlib.contextmanager
def scripted_api() -> Iterator[ScriptedApi]:
    """Run it."""
    api = ScriptedApi()
    with http_stub(_Handler, api=api) as api.url:
        yield api
