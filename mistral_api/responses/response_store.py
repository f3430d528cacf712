"""The store of finished responses: the newest are in memory or still in the journal, all others in PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.conversations.history import HistoryReader
from mistral_api.database.errors import translate_database_errors
from mistral_api.database.reads import DatabaseReads
from mistral_api.errors import InvalidRequest, NotFound
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.responses import Response
from mistral_api.recording.exchange import RESPONSE_OBJECT
from mistral_api.recording.recorder import Recorder
from mistral_api.responses.response_cache import CachedChain, CachedResponse, ResponseCache, chain_of, pending_response
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

# A response with another status has no answer that can be continued.
_CONTINUABLE = ("completed", "incomplete")

InputMessages = list[tuple[UUID, ChatMessage]]


class ResponseStore:
    """Responses by id, for their owners. Safe to use from many threads."""

    def __init__(self, engine: Engine, reads: DatabaseReads, history: HistoryReader, recorder: Recorder) -> None:
        self._engine = engine
        self._reads = reads
        self._history = history
        self._recorder = recorder
        self.cache = ResponseCache()

    def context(self, owner: str, response_id: str) -> StoredContext:
        """Return what a response that continues this one follows.

        Raises InvalidRequest (``previous_response_not_found``), and Unavailable where PostgreSQL must be asked.
        """
        try:
            context = self._context(owner, response_id)
        except NotFound as error:
            raise InvalidRequest(
                f"Previous response with id '{response_id[:100]}' not found.",
                code="previous_response_not_found",
                param="previous_response_id",
            ) from error
        _require_answer(context, response_id)
        return context

    def _context(self, owner: str, response_id: str) -> StoredContext:
        find = partial(self._recent, owner)
        recent = find(response_id)
        chain = None if recent is None else chain_of(recent, find)
        if chain is not None:
            return self._complete(owner, chain)
        pending = self._pending(owner, response_id)
        if pending is None or pending.answer_id is None:
            return read_context(self._reads, owner, response_id)
        branch = self._history.branch_up_to(owner, pending.session_id, pending.answer_id)
        return StoredContext(pending.session_id, pending.answer_id, branch.prompt_messages, pending.body.status)

    def _recent(self, owner: str, response_id: str) -> CachedResponse | None:
        """Return a response that is in memory or in the journal."""
        return self.cache.get(owner, response_id) or self._pending(owner, response_id)

    def _pending(self, owner: str, response_id: str) -> CachedResponse | None:
        exchange = self._recorder.pending.stored_object(RESPONSE_OBJECT, owner, response_id)
        return None if exchange is None else pending_response(exchange)

    def _complete(self, owner: str, chain: CachedChain) -> StoredContext:
        """Return the context of a chain of which only the end is in memory or in the journal."""
        if chain.previous_response_id is None:
            return chain.context
        try:
            earlier = read_context(self._reads, owner, chain.previous_response_id, deleted=True)
        except NotFound:  # its conversation was deleted while the chain continued
            return chain.context
        return replace(chain.context, messages=[*earlier.messages, *chain.context.messages])

    def find(self, owner: str, response_id: str) -> Response:
        """Return the Response object. Raises NotFound and Unavailable."""
        recent = self._recent(owner, response_id)
        if recent is not None:
            return recent.body.decode()
        _require_form(response_id)
        return find_response(self._reads, owner, response_id)

    def input_messages(self, owner: str, response_id: str) -> InputMessages:
        """Return the input of a response with the ids of its messages. Raises NotFound and Unavailable."""
        recent = self._recent(owner, response_id)
        if recent is not None and not recent.resends_history:
            return list(zip(recent.input_ids, recent.input, strict=True))
        exchange = self._recorder.pending.stored_object(RESPONSE_OBJECT, owner, response_id)
        if exchange is not None and (sent := self._history.sent_messages(exchange)) is not None:
            return sent
        _require_form(response_id)
        return [(each.id, each.message) for each in read_input(self._reads, owner, response_id)]

    def delete(self, owner: str, response_id: str) -> list[str]:
        """Delete a response. Return the ids of its session where that was deleted too.

        Raises NotFound and Unavailable.
        """
        # A response that continues this one may still be in the journal: it must find what it builds on.
        self._recorder.require_all_delivered()
        _require_form(response_id)
        with translate_database_errors(), Session(self._engine) as session:
            session_ids = delete_response(session, owner, response_id, GENERATED_SESSION_PREFIX)
        self.cache.remove(response_id)
        return session_ids


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
