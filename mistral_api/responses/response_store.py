"""The one place to ask for responses that have ended: in memory those of late, in PostgreSQL all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.conversations.items import row_to_chat_message
from mistral_api.database.errors import translate_database_errors
from mistral_api.errors import InvalidRequest, NotFound
from mistral_api.recording.recorder import Recorder, require_all_recorded
from mistral_api.responses.stored_responses import (
    ResponseCache,
    StoredContext,
    delete_response,
    find_response,
    read_context,
    read_input,
)
from mistral_api.system.identifiers import GENERATED_SESSION_PREFIX
from mistral_api.wire.response_fields import RESPONSE_ID

T = TypeVar("T")

# A response that ended otherwise has no answer to go on from.
_CONTINUABLE = ("completed", "incomplete")

Asked = list[tuple[UUID, dict[str, Any]]]


class ResponseStore:
    """Responses by id, for their owners. Safe to use from many threads."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        self._engine = engine
        self._recorder = recorder
        self.recent = ResponseCache()

    def context(self, owner: str, response_id: str) -> StoredContext:
        """What a response that continues this one goes on from.

        Raises InvalidRequest (``previous_response_not_found``), and Unavailable where the database must be asked.
        """
        found = self.recent.context(owner, response_id)
        context: StoredContext | None
        if found is None:
            context = self._once_recorded(lambda session: read_context(session, owner, response_id))
        elif found.before is None:
            context = found.context
        else:
            context = self._lengthened(owner, found.context, found.before)
        return _continuable(context, response_id)

    def _lengthened(self, owner: str, context: StoredContext, before: str) -> StoredContext:
        """The context with what came before; its conversation may have been deleted while it went on."""
        earlier = self._once_recorded(lambda session: read_context(session, owner, before, deleted=True))
        return context if earlier is None else replace(context, messages=[*earlier.messages, *context.messages])

    def find(self, owner: str, response_id: str) -> dict[str, Any]:
        """The Response object. Raises NotFound and Unavailable."""
        kept = self.recent.get(owner, response_id)
        if kept is not None:
            return kept.body
        found = self._once_recorded(lambda session: find_response(session, owner, _named(response_id)))
        if found is None or found.body is None:
            raise _not_found(response_id)
        return found.body

    def asked(self, owner: str, response_id: str) -> Asked:
        """The messages a response was asked with, and their ids. Raises NotFound and Unavailable."""
        kept = self.recent.get(owner, response_id)
        if kept is not None:
            return list(zip(kept.input_ids, kept.input, strict=True))
        found = self._once_recorded(lambda session: _read_asked(session, owner, _named(response_id)))
        if found is None:
            raise _not_found(response_id)
        return found

    def delete(self, owner: str, response_id: str) -> str | None:
        """Delete a response; answers the session that went with it, if one did. Raises NotFound and Unavailable."""
        # What continues the response may be on its way: it must not lose what it builds on.
        require_all_recorded(self._recorder)
        gone = self._read(lambda session: _delete(session, owner, _named(response_id)))
        if gone is None:
            raise _not_found(response_id)
        self.recent.forget(response_id)
        return gone[0]

    def _once_recorded(self, find: Callable[[Session], T | None]) -> T | None:
        """What is found at once, or when everything that has ended can be read."""
        found = self._read(find)
        if found is not None:
            return found
        require_all_recorded(self._recorder)
        return self._read(find)

    def _read(self, find: Callable[[Session], T]) -> T:
        with translate_database_errors(), Session(self._engine) as session:
            return find(session)


def _read_asked(session: Session, owner: str, response_id: str) -> Asked | None:
    found = find_response(session, owner, response_id)
    if found is None:
        return None
    return [(message.id, row_to_chat_message(message)) for message in read_input(session, found)]


def _delete(session: Session, owner: str, response_id: str) -> tuple[str | None] | None:
    there, gone = delete_response(session, owner, response_id, GENERATED_SESSION_PREFIX)
    return (gone,) if there else None


def _named(response_id: str) -> str:
    """The id, if it can be one. Raises NotFound."""
    if not RESPONSE_ID.fullmatch(response_id):
        raise _not_found(response_id)
    return response_id


def _not_found(response_id: str) -> NotFound:
    return NotFound(f"Response with id '{response_id[:100]}' not found.", param="response_id")


def _continuable(context: StoredContext | None, response_id: str) -> StoredContext:
    if context is None:
        raise InvalidRequest(
            f"Previous response with id '{response_id[:100]}' not found.",
            code="previous_response_not_found",
            param="previous_response_id",
        )
    if context.status not in _CONTINUABLE or context.continues is None:
        raise InvalidRequest(
            f"Previous response with id '{response_id[:100]}' is {context.status}: it has no answer to go on from.",
            code="invalid_value",
            param="previous_response_id",
        )
    return context
