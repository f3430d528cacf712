"""Which owner's prompt is in which slot, so that nobody's prompt is read from another's cache.

llama.cpp gives a request the slot with the most similar prompt, and says how many tokens it took from there
(``cached_tokens``). So whoever sends the beginning of a text learns whether somebody else has sent it. Where several
owners may call, each request is therefore sent to a slot of our choice (``id_slot``): one whose last prompt is of the
same owner, or else one that is used without its cache (``cache_prompt: false``).

llama.cpp has a second cache of prompts, in main memory, which knows no slots: where a slot has too little of a prompt,
what that cache has is put into it (``get_available_slot`` in tools/server/server-context.cpp). So with a model server
that has one no cache is used at all; the supervisor starts it without where owners are kept apart.

What is in the slots is known as far as this process has put it there, or the supervisor after a restart of the model
server (:class:`RestoredSlots`): not while another API process uses it too. What is not known is not used. A request
that the model server refuses, or that ends while it waits, leaves in its slot what was there: a slot is its owner's
only once the model server has begun to answer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from mistral_api.control.saved_caches import conversation_key
from mistral_api.payload_types import omit
from mistral_api.payload_types.chat import ChatMessage, ChatPayload
from mistral_api.upstream.large_requests import work_on

log = logging.getLogger(__name__)

# Below this part of a prompt it is not worth replacing another prompt of the same owner, as llama.cpp has it
# (``--slot-prompt-similarity``).
LEAST_SIMILARITY = 0.1
# A prompt is compared by pieces: parts of its messages, or of itself, of so many characters or tokens.
PIECE_LENGTH = 512

_NO_CACHE = "prompts are read anew with every request: callers of several owners share "
_RESTART_WARNING = _NO_CACHE + (
    "a model server that was started with one cache of prompts for all of them (LLAMA_ARG_CACHE_RAM). Restart it, and "
    "each owner has their own cache again"
)
_EXTERNAL_WARNING = _NO_CACHE + "the model server of MODEL_SERVER_URL, whose caches cannot be kept apart"

Release = Callable[[], None]


@dataclass(frozen=True, slots=True)
class PromptSource:
    """Whose prompt a request brings, and in which session."""

    owner: str
    session_id: str

    @property
    def conversation(self) -> str:
        """The key of its conversation, as the saved caches have it."""
        return conversation_key(self.owner, self.session_id)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a prompt: a hash of it, and its length."""

    digest: int
    length: int


@dataclass(slots=True)
class _Slot:
    """``owner`` is None where nobody knows what is in the slot. ``used``: the number of the last request it got.

    ``restored``: the key of the conversation whose saved cache it has.
    """

    number: int
    owner: str | None = None
    prompt: tuple[Piece, ...] = ()
    used: int = 0
    taken: bool = False
    restored: str | None = None

    def forget(self) -> None:
        self.owner, self.prompt, self.restored = None, (), None

    def fill(self, owner: str, prompt: tuple[Piece, ...]) -> None:
        self.owner, self.prompt, self.restored = owner, prompt, None

    @property
    def worth(self) -> tuple[bool, bool, int]:
        """How much is lost where another prompt replaces what is in it; the least is replaced first."""
        return self.owner is not None, self.restored is not None, self.used

    def similarity(self, prompt: tuple[Piece, ...]) -> float:
        """Return which part of a prompt stands in this slot from its beginning, from 0 to 1."""
        common = 0
        for ours, theirs in zip(self.prompt, prompt, strict=False):
            if ours != theirs:
                break
            common += theirs.length
        return common / max(1, sum(piece.length for piece in prompt))


def _note_nothing() -> None:
    """Note nothing: nobody knows where the request runs."""


@dataclass(frozen=True, slots=True)
class PlacedRequest:
    """A request for the model server.

    ``note_answer`` is to be called when the model server begins to answer it, which it does once the prompt is in the
    slot, and ``end`` at its end, in any case.
    """

    request: ChatPayload
    end: Release
    note_answer: Callable[[], None] = _note_nothing


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who shares a model server now: whether callers of several owners, and whether several API processes."""

    several_owners: Callable[[], bool]
    several_processes: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class RestoredSlots:
    """The conversations whose saved caches the supervisor has put into the slots of a model server.

    ``conversations`` returns their keys by slot. ``unused`` asks the model server which slots had no request since it
    started, and returns none where it does not say: in all others there is something else by now.
    """

    conversations: Callable[[], Mapping[int, str]] = dict
    unused: Callable[[], frozenset[int]] = frozenset

    def read(self) -> Mapping[int, str]:
        """Return the keys of the conversations that are in the slots now, by slot."""
        conversations = self.conversations()
        unused = self.unused() if conversations else frozenset()
        return {slot: conversation for slot, conversation in conversations.items() if slot in unused}


class SlotOwners:
    """Chooses slots while owners must be kept apart. One for a model server; safe to use from many threads."""

    def __init__(
        self,
        slots: int | None,
        process: Callable[[], object | None],
        has_prompt_cache: Callable[[], bool],
        sharing: Sharing,
        restored: RestoredSlots | None = None,
    ) -> None:
        """``slots``: how many there are; None where nobody knows: then no cache is used while owners are kept apart.

        ``process`` tells one process of the model server from the next, and ``has_prompt_cache`` whether it has the
        second cache.
        """
        self._process = process
        self._has_prompt_cache = has_prompt_cache
        self._sharing = sharing
        self._restored = restored or RestoredSlots()
        self._lock = threading.Lock()
        self._slots = [_Slot(number) for number in range(slots or 0)]
        self._server: object | None = None
        # The process that has got requests which were sent to no slot in particular.
        self._unplaced_server: object | None = None
        self._warned_of: object | None = None
        self._requests = 0
        # Running requests that may be in any slot.
        self._unplaced = 0
        self._is_stale = True
        # How often all was forgotten: what was sent before says nothing about the slots of now.
        self._forgotten = 0

    def place(self, source: PromptSource, request: ChatPayload, count: int, release: Release) -> PlacedRequest:
        """Return a request as the model server gets it, with what notes its answer, and its end by ``release``.

        ``count``: how many slots it takes. The request itself is not changed.
        """
        server = self._process()
        if not self._sharing.several_owners():
            return PlacedRequest(request, self._end_of_only_owner(server, release))
        # The model server and the disk are asked, and the prompt is hashed, before the lock is taken.
        restored = {} if server in (self._server, self._unplaced_server) else self._restored.read()
        has_prompt_cache = self._has_prompt_cache()
        usable = not has_prompt_cache and not self._sharing.several_processes()
        prompt = work_on(request, lambda: tuple(prompt_pieces(request)))
        with self._lock:
            if has_prompt_cache:
                self._warn_once(server)
            self._refresh(server, restored, usable=usable)
            self._requests += 1
            slot = None if count > 1 or request.get("id_slot", -1) >= 0 else self._choose(source, prompt)
            if slot is None:
                return self._unplaced_request(request, release)
            known = source.owner == slot.owner or _is_of(slot, source)
            if not known:
                slot.forget()
            slot.used, slot.taken = self._requests, True
            note_answer = self._noting(slot, source.owner, prompt)
        placed: ChatPayload = request | {"id_slot": slot.number}
        if not known:
            placed["cache_prompt"] = False
        return PlacedRequest(placed, self._freeing(slot, release), note_answer)

    @contextmanager
    def unplaced(self) -> Iterator[None]:
        """Within the block a request of another kind runs in any slot: nobody knows what is in the free ones then."""
        with self._lock:
            self._unplaced += 1
            self._forget_free()
        try:
            yield
        finally:
            with self._lock:
                self._unplaced -= 1
                self._forget_free()

    def _refresh(self, server: object | None, restored: Mapping[int, str], *, usable: bool) -> None:
        """Forget what is in the slots where this process does not know it any more. The lock is held.

        ``restored``: the conversations that are in the slots of a model server that has just been started. ``usable``:
        whether nobody else changes what is in the slots.
        """
        if not (self._is_stale or server != self._server or not usable):
            return
        is_new = server not in (self._server, self._unplaced_server)
        self._is_stale, self._server = False, server
        self._forgotten += 1
        for slot in self._slots:
            slot.forget()
            slot.restored = restored.get(slot.number) if is_new and usable else None

    def _noting(self, slot: _Slot, owner: str, prompt: tuple[Piece, ...]) -> Callable[[], None]:
        """Return what notes that the model server has a prompt in a slot. The lock is held."""
        forgotten = self._forgotten

        def note() -> None:
            with self._lock:
                if slot.taken and forgotten == self._forgotten:
                    slot.fill(owner, prompt)

        return note

    def _warn_once(self, server: object | None) -> None:
        """Warn of a model server that keeps no owner's cache, once for each of its processes."""
        if self._warned_of != (server,):
            self._warned_of = (server,)
            log.warning(_EXTERNAL_WARNING if server is None else _RESTART_WARNING)

    def _choose(self, source: PromptSource, prompt: tuple[Piece, ...]) -> _Slot | None:
        """Return the free slot for a request, or None where the model server must choose. The lock is held."""
        free = [slot for slot in self._slots if not slot.taken]
        if not free or self._unplaced:
            return None
        own = [slot for slot in free if slot.owner == source.owner]
        best = max(own, key=lambda slot: (slot.similarity(prompt), slot.used), default=None)
        if best is not None and best.similarity(prompt) > LEAST_SIMILARITY:
            return best
        return next((slot for slot in free if _is_of(slot, source)), None) or min(free, key=lambda slot: slot.worth)

    def _unplaced_request(self, request: ChatPayload, release: Release) -> PlacedRequest:
        """Return a request that uses no cache, wherever it runs. Until it ends, nobody knows what is in free slots.

        The lock is held.
        """
        self._unplaced += 1
        self._forget_free()

        def forget() -> None:
            self._unplaced -= 1
            self._forget_free()

        return PlacedRequest(request | {"cache_prompt": False}, self._once(forget, release))

    def _end_of_only_owner(self, server: object | None, release: Release) -> Release:
        """Return what ends a request of an owner who has the model server alone: it may run in any slot.

        A second owner may come before it ends.
        """
        with self._lock:
            self._unplaced += 1
            self._is_stale, self._unplaced_server = True, server

        def forget() -> None:
            self._unplaced -= 1
            self._is_stale = True

        return self._once(forget, release)

    def _forget_free(self) -> None:
        for slot in self._slots:
            if not slot.taken:
                slot.forget()

    def _freeing(self, slot: _Slot, release: Release) -> Release:
        def free() -> None:
            slot.taken = False
            if self._unplaced:
                slot.forget()

        return self._once(free, release)

    def _once(self, act: Callable[[], None], release: Release) -> Release:
        """Return what acts with the lock held, and then calls ``release``; calling it again does nothing."""
        held = [True]

        def end() -> None:
            with self._lock:
                if not held:
                    return
                held.pop()
                act()
            release()

        return end


def _is_of(slot: _Slot, source: PromptSource) -> bool:
    """Return whether a slot has the saved cache of the conversation of a request."""
    return slot.restored is not None and slot.restored == source.conversation


def prompt_pieces(request: ChatPayload) -> Iterator[Piece]:
    """Yield the pieces of a request's prompt in the order in which the model reads them, as far as that is known."""
    if request.get("tools"):
        yield _piece(request["tools"])
    for message in request.get("messages") or ():
        yield from _message_pieces(message)
    prompt = request.get("prompt") or request.get("input_prefix") or ()
    if isinstance(prompt, str | list):
        yield from _pieces_of(prompt)


def _message_pieces(message: ChatMessage) -> Iterator[Piece]:
    content = message.get("content")
    if not isinstance(content, str):
        yield _piece(message)
        return
    # The role makes a difference, and counts for nothing.
    yield Piece(hash(message["role"]), 0)
    yield from _pieces_of(content)
    others = omit(message, ("role", "content"))
    if others:
        yield _piece(others)


def _pieces_of(prompt: str | list[Any]) -> Iterator[Piece]:
    for start in range(0, len(prompt), PIECE_LENGTH):
        yield _piece(prompt[start : start + PIECE_LENGTH])


def _piece(value: object) -> Piece:
    encoded = orjson.dumps(value)
    return Piece(hash(encoded), len(encoded))
