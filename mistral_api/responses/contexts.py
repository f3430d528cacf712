"""What responses go on from, and how much of it the model gets."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Engine

from mistral_api.conversations.history import History
from mistral_api.conversations.reading import find_conversation
from mistral_api.conversations.references import resolve_references
from mistral_api.database_sessions import reading
from mistral_api.generation.fitting import fit, room_for_prompt
from mistral_api.generation.token_counter import TokenCounter
from mistral_api.identifiers import new_session_id
from mistral_api.inference.cancellation import Call
from mistral_api.responses.preparing import Message, Prepared
from mistral_api.schemas.items import item_type
from mistral_api.stored.response_store import ResponseStore
from mistral_api.stored.responses import Context


class Contexts:
    """Finds what requests name. Safe to use from many threads."""

    def __init__(self, engine: Engine, store: ResponseStore, history: History, counter: TokenCounter) -> None:
        self._engine = engine
        self._store = store
        self._history = history
        self._counter = counter

    def of(self, request: dict[str, Any], owner: str) -> Context:
        """What a request goes on from: a response, a conversation, or nothing.

        Raises InvalidRequest (``previous_response_not_found``), NotFound for a conversation, Unavailable.
        """
        if "previous_response_id" in request:
            return self._store.context(owner, request["previous_response_id"])
        if "conversation" in request:
            return self._conversation(owner, request["conversation"])
        if "session_id" in request:
            return self._session(owner, request["session_id"])
        return Context(new_session_id())

    def _conversation(self, owner: str, conversation_id: str) -> Context:
        context = self._session(owner, conversation_id)
        if not context.messages:
            with reading(self._engine) as session:
                find_conversation(session, owner, conversation_id, "conversation")
        return context

    def _session(self, owner: str, session_id: str) -> Context:
        """A session with all that was said in it; it need not be there yet."""
        branch = self._history.branch(owner, session_id)
        return Context(session_id, branch.head_id, branch.messages)

    def items(self, items: list[dict[str, Any]], owner: str) -> list[dict[str, Any]]:
        """Input items, with those that are only named. Raises InvalidRequest, NotFound and Unavailable."""
        if not any(item_type(item) == "item_reference" for item in items):
            return items
        with reading(self._engine) as session:
            return resolve_references(session, owner, items, "input")

    def fitted(self, ready: Prepared, call: Call) -> list[Message]:
        """What the model gets; with ``truncation: auto`` the oldest turns are left out that do not fit.

        Raises InvalidRequest where the model server does not count tokens, and our exceptions.
        """
        messages = ready.messages
        if ready.request.get("truncation") != "auto":
            return messages
        leading = [message for message in messages if message["role"] in ("system", "developer")]
        others = [message for message in messages if message["role"] not in ("system", "developer")]
        options = _options(ready)
        room = room_for_prompt(self._counter.context(call), options)
        count = partial(self._counter.count_tokens, options=options, call=call)
        most = partial(self._counter.most_tokens, options=options, call=call)
        return fit(leading, others, room=room, count=count, most=most)

    def count(self, ready: Prepared, call: Call) -> int:
        """The tokens that the model would have to read. Raises our exceptions."""
        return self._counter.count_tokens(ready.messages, options=_options(ready), call=call)


def _options(ready: Prepared) -> dict[str, Any]:
    """What of the request changes its prompt."""
    apart = ("messages", "stream", "stream_options")
    return {name: value for name, value in ready.payload([]).items() if name not in apart}
