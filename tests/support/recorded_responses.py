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
from tests.support.openai_schemas import validate


class DeletedResponse(BaseModel):
    """The body of a deleted response, for which the package has no type."""

    id: str
    object: str
    deleted: bool


class StoredMessage(ChatCompletionStoreMessage):
    """A stored message of any role; the package's own type allows only the assistant."""

    role: str  # type: ignore[assignment]


# By method and path: the type of a whole body, and the type of list entries and stream events.
_PUBLISHED_TYPES: list[tuple[str, Any, Any]] = [
    (r"GET /models", None, Model),
    (r"GET /models/[^/]+", Model, None),
    (r"POST /completions", Completion, Completion),
    (r"POST /chat/completions", ChatCompletion, ChatCompletionChunk),
    (r"GET /chat/completions", None, ChatCompletion),
    (r"(GET|POST) /chat/completions/[^/]+", ChatCompletion, None),
    (r"DELETE /chat/completions/[^/]+", ChatCompletionDeleted, None),
    (r"GET /chat/completions/[^/]+/messages", None, StoredMessage),
    (r"POST /responses", Response, ResponseStreamEvent),
    (r"POST /responses/input_tokens", InputTokenCountResponse, None),
    (r"GET /responses/[^/]+/input_items", ResponseItemList, None),
    (r"POST /responses/[^/]+/cancel", Response, None),
    (r"GET /responses/[^/]+", Response, ResponseStreamEvent),
    (r"DELETE /responses/[^/]+", DeletedResponse, None),
]


@dataclass
class ResponseRecorder:
    """Records every response of a client."""

    responses: list[tuple[str, Any, bytes]] = field(default_factory=list)

    async def record(self, response: Any) -> None:
        """Record a response; to be used as a response hook of httpx. Streams are read to their end."""
        path = response.request.url.path.removeprefix("/v1")
        self.responses.append((f"{response.request.method} {path}", response, await response.aread()))

    def check(self) -> None:
        """Check every recorded body against its published type."""
        assert self.responses
        for each in self.responses:
            _check_body(*each)


def _check_body(request_line: str, response: Any, content: bytes) -> None:
    whole, part = next(row[1:] for row in _PUBLISHED_TYPES if re.fullmatch(row[0], request_line))
    if response.is_error:
        assert_error_shape(orjson.loads(content))
    elif response.headers["content-type"].startswith("text/event-stream"):
        for event in _events(content):
            validate(part, event)
    elif whole is None:
        body = orjson.loads(content)
        assert body["object"] == "list"
        for each in body["data"]:
            validate(part, each)
    else:
        validate(whole, content)


def _events(content: bytes) -> list[Any]:
    data = [line.removeprefix(b"data: ") for line in content.splitlines() if line.startswith(b"data: ")]
    events = [orjson.loads(each) for each in data if each != b"[DONE]"]
    assert events
    return events
