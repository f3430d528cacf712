"""Which owner's prompt is in which slot, so that nobody's prompt is read from another's cache.

llama.cpp gives a request the slot with the most similar prompt, and says how many tokens it took from there
(``cached_tokens``). So whoever sends the beginning of a text learns whether somebody else has sent it. Where several
owners may call, each request is therefore sent to a slot of our choice (``id_slot``): one whose last prompt is of the
same owner, or else one that is used without its cache (``cache_prompt: false``).

llama.cpp has a second cache of prompts, in main memory, which knows no slots: where a slot has too little of a prompt,
what that cache has is put into it (``get_available_slot`` in tools/server/server-context.cpp). So with a model server
that has one no cache is used at all; the supervisor starts it without where owners are kept apart.

What is in the slots is known as far as this process has put it there: not after a restart of the model server, and not
while another API process uses it too. What is not known is not used. A request that the model server refuses, or that
ends while it waits, leaves in its slot what was there: a slot is its owner's only once the model server has answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson

from mistral_api.payload_types.chat import ChatPayload

# Below this part of a prompt it is not worth replacing another prompt of the same owner, as llama.cpp has it
# (``--slot-prompt-similarity``).
LEAST_SIMILARITY = 0.1
# A prompt is compared by pieces: its messages, or so many characters or tokens.
PIECE_LENGTH = 512

Release = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a prompt: a hash of it, and its length."""

    digest: int
    length: int


@dataclass(slots=True)
class _Slot:
    """``owner`` is None where nobody knows what is in the slot. ``used``: the number of the last request it got."""

    number: int
    owner: str | None = None
    prompt: tuple[Piece, ...] = ()
    used: int = 0
    taken: bool = False

    def forget(self) -> None:
        self.owner, self.prompt = None, ()

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
    """A request for the model server. ``note_answer`` is called when the model server begins to answer it, which it
    does after it has read the prompt, and ``end`` at its end, in any case.
    """

    request: ChatPayload
    end: Release
    note_answer: Callable[[], None] = _note_nothing


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who shares a model server now: whether callers of several owners, and whether several API processes."""

    several_owners: Callable[[], bool]
    several_processes: Callable[[], bool]


class SlotOwners:
    """Chooses slots while owners must be kept apart. One for a model server; safe to use from many threads."""

    def __init__(
        self,
        slots: int | None,
        process: Callable[[], object | None],
        has_prompt_cache: Callable[[], bool],
        sharing: Sharing,
    ) -> None:
        """``slots``: how many there are; None where nobody knows: then no cache is used while owners are kept apart.

        ``process`` tells one process of the model server from the next, and ``has_prompt_cache`` whether it has the
        second cache.
        """
        self._process = process
        self._has_prompt_cache = has_prompt_cache
        self._sharing = sharing
        self._lock = threading.Lock()
        self._slots = [_Slot(number) for number in range(slots or 0)]
        self._server = process()
        self._requests = 0
        # Running requests that may be in any slot.
        self._unplaced = 0
        self._is_stale = True
        # How often all was forgotten: what was sent before says nothing about the slots of now.
        self._forgotten = 0

    def place(self, owner: str, request: ChatPayload, count: int, release: Release) -> PlacedRequest:
        """Return a request as the model server gets it, with what notes its answer, and its end by ``release``.

        ``count``: how many slots it takes. The request itself is not changed.
        """
        if not self._sharing.several_owners():
            self._is_stale = True
            return PlacedRequest(request, release)
        with self._lock:
            self._refresh()
            self._requests += 1
            prompt = tuple(prompt_pieces(request))
            slot = None if count > 1 or request.get("id_slot", -1) >= 0 else self._choose(owner, prompt)
            if slot is None:
                return self._unplaced_request(request, release)
            known = slot.owner == owner
            if not known:
                slot.forget()
            slot.used, slot.taken = self._requests, True
            note_answer = self._noting(slot, owner, prompt)
        placed: ChatPayload = request | {"id_slot": slot.number}
        if not known:
            placed["cache_prompt"] = False
        return PlacedRequest(placed, self._freeing(slot, release), note_answer)

    def _refresh(self) -> None:
        """Forget what is in the slots where this process does not know it any more."""
        server = self._process()
        unusable = self._has_prompt_cache() or self._sharing.several_processes()
        if self._is_stale or server != self._server or unusable:
            self._is_stale, self._server = False, server
            self._forgotten += 1
            for slot in self._slots:
                slot.forget()

    def _noting(self, slot: _Slot, owner: str, prompt: tuple[Piece, ...]) -> Callable[[], None]:
        """Return what notes that the model server has read a prompt into a slot."""
        forgotten = self._forgotten

        def note() -> None:
            with self._lock:
                if slot.taken and forgotten == self._forgotten:
                    slot.owner, slot.prompt = owner, prompt

        return note

    def _choose(self, owner: str, prompt: tuple[Piece, ...]) -> _Slot | None:
        """Return the free slot for a request, or None where the model server must choose."""
        free = [slot for slot in self._slots if not slot.taken]
        if not free or self._unplaced:
            return None
        own = [slot for slot in free if slot.owner == owner]
        best = max(own, key=lambda slot: (slot.similarity(prompt), slot.used), default=None)
        if best is not None and best.similarity(prompt) > LEAST_SIMILARITY:
            return best
        return min(free, key=lambda slot: (slot.owner is not None, slot.used))

    def _unplaced_request(self, request: ChatPayload, release: Release) -> PlacedRequest:
        """Return a request that uses no cache, wherever it runs. Until it ends, nobody knows what is in free slots."""
        self._unplaced += 1
        self._forget_free()

        def forget() -> None:
            self._unplaced -= 1
            self._forget_free()

        return PlacedRequest(request | {"cache_prompt": False}, self._once(forget, release))

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


def prompt_pieces(request: ChatPayload) -> Iterator[Piece]:
    """Yield the pieces of a request's prompt in the order in which the model reads them, as far as that is known."""
    if request.get("tools"):
        yield _piece(request["tools"])
    for message in request.get("messages") or ():
        yield _piece(message)
    prompt = request.get("prompt") or request.get("input_prefix") or ()
    if isinstance(prompt, str | list):
        for start in range(0, len(prompt), PIECE_LENGTH):
            yield _piece(prompt[start : start + PIECE_LENGTH])


def _piece(value: object) -> Piece:
    encoded = orjson.dumps(value)
    return Piece(hash(encoded), len(encoded))
