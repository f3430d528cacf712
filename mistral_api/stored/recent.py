"""The responses of late, in memory: a chain goes on without waiting for a PostgreSQL that is far away, or down."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import orjson

from mistral_api.conversations.history import prompt_messages
from mistral_api.exchange import without_nul
from mistral_api.stored.responses import StoredContext

# So many bytes of JSON are kept; the objects they are read from take a few times as much.
MOST_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """A response that has ended, with what was recorded of its input and its answer, in chat form.

    ``chained``: what it builds on is its previous response alone, not a conversation that others add to.
    """

    owner: str
    session_id: str
    body: dict[str, Any]
    input_ids: list[UUID]
    input: list[dict[str, Any]]
    answer_id: UUID | None
    answer: dict[str, Any] | None
    chained: bool

    @property
    def id(self) -> str:
        """The id of the response."""
        return str(self.body["id"])


@dataclass(frozen=True, slots=True)
class CachedChain:
    """The end of a chain that is in memory; ``before`` is the response that the rest of it ends with, if any."""

    context: StoredContext
    before: str | None


class ResponseCache:
    """The last responses by id, as many as fit. Safe to use from many threads."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[CachedResponse, int]] = OrderedDict()
        self._bytes = 0

    def add(self, kept: CachedResponse) -> None:
        """Keep a response; the oldest go where there is no room for all."""
        written = orjson.dumps([kept.body, kept.input, kept.answer])
        size = len(written)
        if rb"\u0000" in written:
            body, asked, answer = without_nul([kept.body, kept.input, kept.answer])
            kept = replace(kept, body=body, input=asked, answer=answer)
        with self._lock:
            self._kept[kept.id] = kept, size
            self._bytes += size
            while self._bytes > self._most_bytes:
                _, (_, freed) = self._kept.popitem(last=False)
                self._bytes -= freed

    def get(self, owner: str, response_id: str) -> CachedResponse | None:
        """An owner's response, if it is here."""
        kept, _ = self._kept.get(response_id, (None, 0))
        return kept if kept is not None and kept.owner == owner else None

    def context(self, owner: str, response_id: str) -> CachedChain | None:
        """What was said up to a response, as far back as it is here; None where the response is not."""
        last = self.get(owner, response_id)
        if last is None or not last.chained:
            return None
        turns, before = [last], last.body.get("previous_response_id")
        while before and (earlier := self.get(owner, before)) is not None and earlier.chained:
            turns.append(earlier)
            before = earlier.body.get("previous_response_id")
        messages = [message for turn in reversed(turns) for message in _said(turn)]
        return CachedChain(StoredContext(last.session_id, last.answer_id, messages, last.body["status"]), before)

    def forget(self, response_id: str) -> None:
        """A response was deleted."""
        with self._lock:
            _, freed = self._kept.pop(response_id, (None, 0))
            self._bytes -= freed

    def forget_session(self, owner: str, session_id: str) -> None:
        """A conversation was deleted, or changed: what is here of it may not be true any more."""
        self._forget(lambda kept: (kept.owner, kept.session_id) == (owner, session_id))

    def forget_before(self, moment: float) -> None:
        """Forget what was made before, in Unix seconds: PostgreSQL may have forgotten it too."""
        self._forget(lambda kept: kept.body["created_at"] < moment)

    def _forget(self, concerned: Callable[[CachedResponse], bool]) -> None:
        with self._lock:
            gone = [name for name, (kept, _) in self._kept.items() if concerned(kept)]
        for response_id in gone:
            self.forget(response_id)


def _said(turn: CachedResponse) -> list[dict[str, Any]]:
    """A turn as PostgreSQL has it, to the byte: the model server has read the beginning of the prompt already."""
    answer = [] if turn.answer is None else [{"role": "assistant"} | turn.answer]
    return [prompt_messages(message) for message in [*turn.input, *answer]]
