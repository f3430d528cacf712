"""The store of finished responses: the newest are in memory, all of them in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.database.errors import translate_database_errors
from mistral_api.errors import InvalidRequest, NotFound
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.responses import Response
from mistral_api.recording.recorder import Recorder, require_all_recorded, retry_until_recorded
from mistral_api.responses.response_cache import CachedChain, ResponseCache
from mistral_api.responses.stored_responses import (
    StoredContext,
    delete_response,
    find_response,
    read_context,
    read_input,
    response_not_found,
)
from mistral_api.system.identifiers import GENERATED_SESSION_PREFIX
from mistral_api.wire.responses import RESPONSE_ID

T = TypeVar("T")

# A response with another status has no answer that can be continued.
_CONTINUABLE = ("completed", "incomplete")

InputMessages = list[tuple[UUID, ChatMessage]]


class ResponseStore:
    """Responses by id, for their owners. Safe to use from many threads."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        self._engine = engine
        self._recorder = recorder
        self.cache = ResponseCache()

    def context(self, owner: str, response_id: str) -> StoredContext:
        """Return what a response that continues this one follows.

        Raises InvalidRequest (``previous_response_not_found``), and Unavailable where PostgreSQL must be asked.
        """
        chain = self.cache.chain(owner, response_id)
        try:
            context = self._read_context(owner, response_id) if chain is None else self._complete(owner, chain)
        except NotFound as error:
            raise InvalidRequest(
                f"Previous response with id '{response_id[:100]}' not found.",
                code="previous_response_not_found",
                param="previous_response_id",
            ) from error
        _require_answer(context, response_id)
        return context

    def _read_context(self, owner: str, response_id: str, *, deleted: bool = False) -> StoredContext:
        return self._find(lambda session: read_context(session, owner, response_id, deleted=deleted))

    def _complete(self, owner: str, chain: CachedChain) -> StoredContext:
        """Return the context of a chain of which only the end is cached."""
        if chain.previous_response_id is None:
            return chain.context
        try:
            earlier = self._read_context(owner, chain.previous_response_id, deleted=True)
        except NotFound:  # its conversation was deleted while the chain continued
            return chain.context
        return replace(chain.context, messages=[*earlier.messages, *chain.context.messages])

    def find(self, owner: str, response_id: str) -> Response:
        """Return the Response object. Raises NotFound and Unavailable."""
        cached = self.cache.get(owner, response_id)
        if cached is not None:
            return cached.body
        _require_form(response_id)
        body = self._find(lambda session: find_response(session, owner, response_id).body)
        if body is None:
            raise response_not_found(response_id)
        return body

    def input_messages(self, owner: str, response_id: str) -> InputMessages:
        """Return the input of a response with the ids of its messages. Raises NotFound and Unavailable."""
        cached = self.cache.get(owner, response_id)
        if cached is not None and not cached.resends_history:
            return list(zip(cached.input_ids, cached.input, strict=True))
        _require_form(response_id)
        stored = self._find(lambda session: read_input(session, find_response(session, owner, response_id)))
        return [(each.id, each.message) for each in stored]

    def delete(self, owner: str, response_id: str) -> list[str]:
        """Delete a response. Return the ids of its session where that was deleted too.

        Raises NotFound and Unavailable.
        """
        # A response that continues this one may still be in the journal: it must find what it builds on.
        require_all_recorded(self._recorder)
        _require_form(response_id)
        session_ids = self._read(lambda session: delete_response(session, owner, response_id, GENERATED_SESSION_PREFIX))
        self.cache.remove(response_id)
        return session_ids

    def _find(self, find: Callable[[Session], T]) -> T:
        """Return what ``find`` finds: at once, or after every finished exchange has been delivered.

        ``find`` raises NotFound for what is not there.
        """
        return retry_until_recorded(self._recorder, lambda: self._read(find))

    def _read(self, read: Callable[[Session], T]) -> T:
        with translate_database_errors(), Session(self._engine) as session:
            return read(session)


def _require_form(response_id: str) -> None:
    """Raise NotFound for a text that cannot be the id of a response."""
    if not RESPONSE_ID.fullmatch(response_id):
        raise response_not_found(response_id)


def _require_answer(context: StoredContext, response_id: str) -> None:
    if context.status not in _CONTINUABLE or context.continues is None:
        raise InvalidRequest(
            f"Previous response with id '{response_id[:100]}' is {context.status}: it has no answer to go on from.",
            code="invalid_value",
            param="previous_response_id",
        )
