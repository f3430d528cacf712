"""A cache of the newest responses: chains go on without waiting for a PostgreSQL that is far away, or down."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import orjson

from mistral_api.conversations.stored_message import assistant_message, prompt_message
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.completions import GeneratedMessage
from mistral_api.payload_types.responses import Response
from mistral_api.recording.exchange import Exchange, replace_nul
from mistral_api.recording.stored_object import stored_response
from mistral_api.responses.stored_responses import StoredContext

# The size of the cached responses as JSON, in bytes. They are kept as JSON but for what chains need of them: as objects
# they took four times as much.
MAX_CACHED_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class EncodedResponse:
    """A Response object as JSON, in a quarter of its memory, with what is needed of it without decoding it."""

    id: str
    created_at: float
    status: str
    previous_response_id: str | None
    json: bytes

    @classmethod
    def of(cls, response: Response) -> EncodedResponse:
        """Encode a Response object; for NUL characters it has what PostgreSQL would have."""
        encoded = orjson.dumps(response)
        if rb"\u0000" in encoded:
            encoded = orjson.dumps(replace_nul(response))
        return cls(
            response["id"],
            response["created_at"],
            response["status"],
            response.get("previous_response_id"),
            encoded,
        )

    def decode(self) -> Response:
        """Return the Response object, each time another one."""
        response: Response = orjson.loads(self.json)
        return response


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """A finished response, with its input and its answer as they were recorded, in chat form.

    ``in_chain`` says that it continues its previous response alone, or nothing; it does not belong to a conversation
    that others add to. ``resends_history`` says that its input repeats messages that were stored before, under ids that
    only the store knows.
    """

    owner: str
    session_id: str
    body: EncodedResponse
    input_ids: list[UUID]
    input: Sequence[ChatMessage]
    answer_id: UUID | None
    answer: GeneratedMessage | None
    in_chain: bool
    resends_history: bool = False

    @property
    def id(self) -> str:
        """The id of the response."""
        return self.body.id

    @property
    def prompt_messages(self) -> list[ChatMessage]:
        """Input and answer as the model gets them again, as PostgreSQL would return them."""
        answer = [] if self.answer is None else [assistant_message(self.answer)]
        return [prompt_message(message) for message in [*self.input, *answer]]


@dataclass(frozen=True, slots=True)
class CachedChain:
    """The cached end of a chain. ``previous_response_id`` is the response before it, which is not cached, if any."""

    context: StoredContext
    previous_response_id: str | None


def chain_of(last: CachedResponse, find: Callable[[str], CachedResponse | None]) -> CachedChain | None:
    """Return the chain that ends with a response, as far back as ``find`` finds it; None where it is in no chain."""
    if not last.in_chain:
        return None
    chain, previous_id = [last], last.body.previous_response_id
    while previous_id and (previous := find(previous_id)) is not None and previous.in_chain:
        chain.append(previous)
        previous_id = previous.body.previous_response_id
    messages = [message for response in reversed(chain) for message in response.prompt_messages]
    context = StoredContext(last.session_id, last.answer_id, messages, last.body.status)
    return CachedChain(context, previous_id)


def pending_response(exchange: Exchange) -> CachedResponse | None:
    """Return the response that an exchange in the journal is stored as, None where it is stored as none."""
    body = stored_response(exchange)
    if body is None:
        return None
    answer = exchange.answers[0] if exchange.answers else None
    return CachedResponse(
        exchange.owner,
        exchange.session_id or "",
        EncodedResponse.of(body),
        exchange.message_ids or [],
        exchange.messages or [],
        exchange.answer_id if answer is not None else None,
        answer,
        in_chain=body.get("conversation") is None,
        resends_history=exchange.resends_history,
    )


class ResponseCache:
    """The newest responses by id, as many as fit. Safe to use from many threads."""

    def __init__(self, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[CachedResponse, int]] = OrderedDict()
        self._bytes = 0

    def add(self, response: CachedResponse) -> None:
        """Add a response. The oldest ones are removed where there is no room for all."""
        encoded = orjson.dumps([response.input, response.answer])
        size = len(response.body.json) + len(encoded)
        if rb"\u0000" in encoded:
            response = replace(response, input=replace_nul(response.input), answer=replace_nul(response.answer))
        with self._lock:
            self._entries[response.id] = response, size
            self._bytes += size
            while self._bytes > self._max_bytes:
                _, (_, freed) = self._entries.popitem(last=False)
                self._bytes -= freed

    def get(self, owner: str, response_id: str) -> CachedResponse | None:
        """Return an owner's response, or None where it is not cached."""
        response, _ = self._entries.get(response_id, (None, 0))
        return response if response is not None and response.owner == owner else None

    def remove(self, response_id: str) -> None:
        """Remove a response."""
        with self._lock:
            _, freed = self._entries.pop(response_id, (None, 0))
            self._bytes -= freed

    def remove_session(self, owner: str, session_id: str) -> None:
        """Remove the responses of a session: its conversation was deleted or changed."""
        self._remove_where(lambda response: (response.owner, response.session_id) == (owner, session_id))

    def remove_before(self, moment: float) -> None:
        """Remove the responses created before a moment (Unix seconds): PostgreSQL may have deleted them."""
        self._remove_where(lambda response: response.body.created_at < moment)

    def _remove_where(self, condition: Callable[[CachedResponse], bool]) -> None:
        with self._lock:
            ids = [response_id for response_id, (response, _) in self._entries.items() if condition(response)]
        for response_id in ids:
            self.remove(response_id)
