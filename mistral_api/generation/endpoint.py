"""What tells the generation endpoints apart: schema, messages, dialect; and a request as it came in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from mistral_api.conversations.client_sessions import Headers
from mistral_api.conversations.session_resolver import Sender
from mistral_api.errors import Forbidden
from mistral_api.generation.renderer import ChatRenderer, CompletionRenderer, Renderer
from mistral_api.observability.open_request import OpenRequest
from mistral_api.payload_types.chat import ChatMessage, ChatPayload, Prompts
from mistral_api.security.access import Caller
from mistral_api.security.api_key import ADMIN
from mistral_api.security.rate_limits import Permit
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.sse import ChunkStream
from mistral_api.upstream.transcript import Transcript
from mistral_api.wire import ChatCompletionRequest, CompletionRequest
from mistral_api.wire.request_schema import RequestSchema

# Fields of ours, which the model server never gets. ``response_fields`` is llama.cpp's: its renderer does the work.
# ``shown_model`` is the name that a client of Ollama's API has for the model.
OWN_FIELDS = ("session_id", "use_history", "truncation", "store", "metadata", "response_fields", "shown_model")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request as it came in: who asks, the decoded body, headers, and the call by which it can be cancelled.

    ``permit`` counts what it uses, where the caller has limits. ``observed`` is what its observers are told of it.
    """

    caller: Caller
    request_id: UUID
    client_request_id: str | None
    body: object
    call: UpstreamCall = field(default_factory=UpstreamCall)
    headers: Headers = field(default_factory=dict)
    permit: Permit | None = None
    observed: OpenRequest | None = None

    @property
    def sender(self) -> Sender:
        """Who sent it, as far as it decides which conversation it belongs to."""
        return Sender(self.caller.owner, self.headers, self.body, self.request_id)

    def require_slot_choice(self, payload: Mapping[str, Any]) -> None:
        """Raise Forbidden where a request chooses its slot and its caller may not: it may hold another's cache."""
        if payload.get("id_slot", -1) >= 0 and ADMIN not in self.caller.scopes:
            raise Forbidden(f"'id_slot' needs the scope '{ADMIN}': leave it out, or send -1.", param="id_slot")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the model server's stream is read, and how the response to the client is rendered.

    ``llama_cpp``: the dialect is llama.cpp's own; no other engine speaks it. ``shows_progress``: whether its streams
    may contain llama.cpp's reports of its progress through the prompt (``return_progress``).
    """

    renderer: type[Renderer]
    stream: type[ChunkStream] = ChunkStream
    transcript: type[Transcript] = Transcript
    llama_cpp: bool = False
    shows_progress: bool = True


def nothing_ignored(_body: Any) -> tuple[str, ...]:
    """The tools that endpoints leave out that know functions alone: none."""
    return ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One generation endpoint. ``path`` is how it is recorded, ``upstream_path`` the model server's, where it differs.

    ``messages`` reads the client's messages out of a valid payload. ``chat``: the payload is that of a chat.
    ``ignored_tools`` returns the types of the tools that a valid body is answered without.
    """

    path: str
    chat: bool
    schema: RequestSchema[ChatPayload]
    messages: Callable[[ChatPayload], list[ChatMessage]]
    dialect: Dialect
    upstream_path: str = ""
    ignored_tools: Callable[[Any], tuple[str, ...]] = nothing_ignored

    def __post_init__(self) -> None:
        object.__setattr__(self, "upstream_path", self.upstream_path or self.path)


def _chat_messages(payload: ChatPayload) -> list[ChatMessage]:
    return list(payload["messages"])


def _prompt_message(payload: ChatPayload) -> list[ChatMessage]:
    # Only llama.cpp's own endpoint takes media in a prompt.
    return [{"role": "user", "content": cast("str | Prompts", payload["prompt"])}]


CHAT = Endpoint("/v1/chat/completions", True, ChatCompletionRequest(), _chat_messages, Dialect(ChatRenderer))
COMPLETION = Endpoint("/v1/completions", False, CompletionRequest(), _prompt_message, Dialect(CompletionRenderer))
