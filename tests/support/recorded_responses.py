"""Record the HTTP responses of a client and check each body against OpenAI's published type."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import orjson
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionDeleted, ChatCompletionStoreMessage
from openai.types.responses import InputTokenCountResponse, Response, ResponseItemList, ResponseStreamEvent
from pydantic import BaseModel

from tests.support.error_shape import assert_error_shape
from tests.support.openai_schemas import valid


class Deleted(BaseModel):
    """The body of a deleted response, for which the package has no type."""

    id: str
    object: str
    deleted: bool


class StoreMessage(ChatCompletionStoreMessage):
    """A stored message of any role; the package's own type allows only the assistant."""

    role: str  # type: ignore[assignment]


# By method and path: the type of a whole body, and the type of list entries and stream events.
_KINDS: list[tuple[str, Any, Any]] = [
    (r"GET /models", None, Model),
    (r"GET /models/[^/]+", Model, None),
    (r"POST /completions", Completion, Completion),
    (r"POST /chat/completions", ChatCompletion, ChatCompletionChunk),
    (r"GET /chat/completions", None, ChatCompletion),
    (r"(GET|POST) /chat/completions/[^/]+", ChatCompletion, None),
    (r"DELETE /chat/completions/[^/]+", ChatCompletionDeleted, None),
    (r"GET /chat/completions/[^/]+/messages", None, StoreMessage),
    (r"POST /responses", Response, ResponseStreamEvent),
    (r"POST /responses/input_tokens", InputTokenCountResponse, None),
    (r"GET /responses/[^/]+/input_items", ResponseItemList, None),
    (r"POST /responses/[^/]+/cancel", Response, None),
    (r"GET /responses/[^/]+", Response, ResponseStreamEvent),
    (r"DELETE /responses/[^/]+", Deleted, None),
]


@dataclass
class Wire:
    """Records every response of a client."""

    kept: list[tuple[str, Any, bytes]] = field(default_factory=list)

    async def keep(self, response: Any) -> None:
        """Record a response; to be used as a response hook of httpx. Streams are read to their end."""
        path = response.request.url.path.removeprefix("/v1")
        self.kept.append((f"{response.request.method} {path}", response, await response.aread()))

    def check(self) -> None:
        """Check every recorded body against its published type."""
        assert self.kept
        for each in self.kept:
            _check(*each)


def _check(asked: str, response: Any, content: bytes) -> None:
    whole, part = next(row[1:] for row in _KINDS if re.fullmatch(row[0], asked))
    if response.is_error:
        assert_error_shape(orjson.loads(content))
    elif response.headers["content-type"].startswith("text/event-stream"):
        for event in _events(content):
            valid(part, event)
    elif whole is None:
        body = orjson.loads(content)
        assert body["object"] == "list"
        for each in body["data"]:
            valid(part, each)
    else:
        valid(whole, content)


def _events(content: bytes) -> list[Any]:
    data = [line.removeprefix(b"data: ") for line in content.splitlines() if line.startswith(b"data: ")]
    events = [orjson.loads(each) for each in data if each != b"[DONE]"]
    assert events
    return events
