"""One memory of answers for all API processes of a ``bin/serve``: the first one has it, and the others ask.

An answer crosses as base64. What one process keeps, all others find once its client has seen the end; what is deleted
is gone in all before that is answered.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Sequence

from mistral_api.generation.answer_storage import AnswerStorage, Version
from mistral_api.ipc.peer import Peer, PeerGone
from mistral_api.ipc.siblings import Siblings
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

FIND, KEEP, FORGET, CLEAR = "answers.find", "answers.keep", "answers.forget", "answers.clear"


def shared_storage(storage: AnswerStorage, siblings: Siblings, catch_up: Callable[[], None]) -> AnswerStorage:
    """Return the storage of this process, whose own memory (``storage``) is that of all where it is the first one.

    ``catch_up``: does what the other processes have told until now.
    """
    if siblings.first is not None:
        return SharedAnswers(siblings.first)
    if siblings.hub is None:
        return storage
    siblings.hub.offer(lambda peer: offer_answers(storage, peer, catch_up))
    return FirstAnswers(storage, catch_up)


class FirstAnswers(AnswerStorage):
    """The memory of the first process, for its own requests."""

    def __init__(self, storage: AnswerStorage, catch_up: Callable[[], None]) -> None:
        self._storage = storage
        self._catch_up = catch_up

    def find(self, owner: str, key: str) -> tuple[bytes | None, Version | None]:
        """Return what is there now, also what another process has just kept."""
        self._catch_up()
        return self._storage.find(owner, key)

    def keep(self, owner: str, key: str, answer: bytes, version: Version | None) -> None:
        """Keep an answer for all processes."""
        self._storage.keep(owner, key, answer, version)

    def forget(self, owner: str) -> None:
        """Drop all answers of an owner."""
        self._storage.forget(owner)

    def clear(self) -> None:
        """Drop all answers."""
        self._storage.clear()

    def close(self) -> None:
        """Drop everything."""
        self._storage.close()


class SharedAnswers(AnswerStorage):
    """The way of another process to that memory. While the first process does not answer, every answer is generated."""

    def __init__(self, first: Peer) -> None:
        self._first = first
        self._warn = ThrottledWarning(log)

    def find(self, owner: str, key: str) -> tuple[bytes | None, Version | None]:
        """Return what is there now."""
        try:
            answer, version = self._first.call(FIND, owner, key)
        except PeerGone as error:
            self._note_failure(error)
            return None, None
        return None if answer is None else base64.b64decode(answer), tuple(version)

    def keep(self, owner: str, key: str, answer: bytes, version: Version | None) -> None:
        """Keep an answer: the first process has been told when this returns."""
        if version is None:
            return
        self._first.tell(KEEP, owner, key, base64.b64encode(answer).decode(), version)
        try:
            self._first.flush()
        except PeerGone as error:
            self._note_failure(error)

    def forget(self, owner: str) -> None:
        """Drop all answers of an owner."""
        self._call(FORGET, owner)

    def clear(self) -> None:
        """Drop all answers."""
        self._call(CLEAR)

    def _call(self, method: str, *arguments: object) -> None:
        try:
            self._first.call(method, *arguments)
        except PeerGone as error:
            self._note_failure(error)

    def _note_failure(self, error: PeerGone) -> None:
        self._warn("answers are not cached: %s", error)

    def close(self) -> None:
        """The memory belongs to the first process."""


def offer_answers(storage: AnswerStorage, peer: Peer, catch_up: Callable[[], None]) -> None:
    """Do on the memory of the first process what another one asks."""

    def find(owner: str, key: str) -> tuple[str | None, Version | None]:
        catch_up()
        answer, version = storage.find(owner, key)
        return None if answer is None else base64.b64encode(answer).decode(), version

    def keep(owner: str, key: str, answer: str, version: Sequence[object]) -> None:
        storage.keep(owner, key, base64.b64decode(answer), tuple(version))

    peer.handle(FIND, find, waits=True)
    peer.handle(KEEP, keep)
    peer.handle(FORGET, storage.forget)
    peer.handle(CLEAR, storage.clear)
