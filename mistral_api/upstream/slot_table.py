"""What is in the slots of a model server: whose prompt, and which requests run there or anywhere.

The table is in the memory of one process (:class:`OwnSlotTable`). Where several API processes share the model server
(API_PROCESSES), that is the first one's, and the others have
:class:`mistral_api.upstream.shared_slot_table.RemoteSlotTable`.

What is in the slots is known as far as these processes have put it there, or the supervisor after a restart of the
model server (:class:`RestoredSlots`): not while a stranger uses it too, as another server on the same DATA_DIR. What is
not known is not used. A request that the model server refuses, or that ends while it waits, leaves in its slot what was
there: a slot is its owner's only once the model server has begun to answer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from mistral_api.control.saved_caches import conversation_key
from mistral_api.upstream.prompt_pieces import Piece

log = logging.getLogger(__name__)

# Below this part of a prompt it is not worth replacing another prompt of the same owner, as llama.cpp has it
# (``--slot-prompt-similarity``).
LEAST_SIMILARITY = 0.1

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
class Prompt:
    """A prompt, for the process ``server`` of the model server. ``anywhere``: the request may run in any slot."""

    source: PromptSource
    pieces: tuple[Piece, ...]
    server: object | None
    anywhere: bool = False


def note_nothing() -> None:
    """Note nothing: nobody knows where the request runs."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The slot for a request, None where the model server chooses; and whether it may use the cache there.

    ``note_answer`` is to be called when the model server begins to answer it, and ``end`` at its end, in any case.
    """

    slot: int | None
    cached: bool
    end: Release
    note_answer: Callable[[], None] = note_nothing


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


def once(act: Callable[[], None], release: Release) -> Release:
    """Return what acts, and then calls ``release``; calling it again does nothing. Any thread may call it."""
    held = [act]

    def end() -> None:
        try:
            first = held.pop()
        except IndexError:  # it was called before
            return
        first()
        release()

    return end


class SlotTable(Protocol):
    """Knows what is in the slots of a model server. Safe to use from many threads, and in tasks.

    Each ``release`` is called at the end of a request. What ends one may be called twice.
    """

    def place(self, prompt: Prompt, release: Release) -> Placement:
        """Return where a request is sent while owners must be kept apart."""

    def begin_of_only_owner(self, server: object | None, release: Release) -> Release:
        """Return what ends a request of an owner who has the model server alone: it may run in any slot.

        A second owner may come before it ends.
        """

    def begin_unplaced(self, *, alone: bool) -> Release:
        """Return what ends a request of another kind, which runs in any slot: nobody knows what is in free ones then.

        ``alone``: its owner has the model server alone.
        """


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

    def is_restored_for(self, source: PromptSource) -> bool:
        """Return whether it has the saved cache of the conversation of a request."""
        return self.restored is not None and self.restored == source.conversation


class OwnSlotTable:
    """The table in the memory of this process (:class:`SlotTable`)."""

    def __init__(
        self,
        slots: int | None,
        has_prompt_cache: Callable[[], bool],
        strangers: Callable[[], bool],
        restored: RestoredSlots | None = None,
        *,
        catch_up: Callable[[], None] = note_nothing,
    ) -> None:
        """``slots``: how many there are; None where nobody knows: then no cache is used while owners are kept apart.

        ``has_prompt_cache``: whether the model server has the second cache. ``strangers``: whether others may use it
        who do not share this table. ``catch_up`` hears what those have said until now who do.
        """
        self._has_prompt_cache = has_prompt_cache
        self._strangers = strangers
        self._restored = restored or RestoredSlots()
        self._catch_up = catch_up
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

    def place(self, prompt: Prompt, release: Release) -> Placement:
        server = prompt.server
        # The model server and the disk are asked before the lock is taken.
        self._catch_up()
        restored = {} if server in (self._server, self._unplaced_server) else self._restored.read()
        has_prompt_cache = self._has_prompt_cache()
        usable = not has_prompt_cache and not self._strangers()
        with self._lock:
            if has_prompt_cache:
                self._warn_once(server)
            self._refresh(server, restored, usable=usable)
            self._requests += 1
            slot = None if prompt.anywhere else self._choose(prompt)
            if slot is None:
                return Placement(None, cached=False, end=self._unplaced_end(release))
            cached = prompt.source.owner == slot.owner or slot.is_restored_for(prompt.source)
            if not cached:
                slot.forget()
            slot.used, slot.taken = self._requests, True
            return Placement(slot.number, cached, self._freeing(slot, release), self._noting(slot, prompt))

    def begin_of_only_owner(self, server: object | None, release: Release) -> Release:
        with self._lock:
            self._unplaced += 1
            self._is_stale, self._unplaced_server = True, server

        def forget() -> None:
            self._unplaced -= 1
            self._is_stale = True

        return self._once(forget, release)

    def begin_unplaced(self, *, alone: bool) -> Release:
        with self._lock:
            return self._unplaced_end(note_nothing)

    def _refresh(self, server: object | None, restored: Mapping[int, str], *, usable: bool) -> None:
        """Forget what is in the slots where that is not known any more. The lock is held.

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

    def _noting(self, slot: _Slot, prompt: Prompt) -> Callable[[], None]:
        """Return what notes that the model server has a prompt in a slot. The lock is held."""
        forgotten = self._forgotten

        def note() -> None:
            with self._lock:
                if slot.taken and forgotten == self._forgotten:
                    slot.fill(prompt.source.owner, prompt.pieces)

        return note

    def _warn_once(self, server: object | None) -> None:
        """Warn of a model server that keeps no owner's cache, once for each of its processes."""
        if self._warned_of != (server,):
            self._warned_of = (server,)
            log.warning(_EXTERNAL_WARNING if server is None else _RESTART_WARNING)

    def _choose(self, prompt: Prompt) -> _Slot | None:
        """Return the free slot for a request, or None where the model server must choose. The lock is held."""
        free = [slot for slot in self._slots if not slot.taken]
        if not free or self._unplaced:
            return None
        source, pieces = prompt.source, prompt.pieces
        own = [slot for slot in free if slot.owner == source.owner]
        best = max(own, key=lambda slot: (slot.similarity(pieces), slot.used), default=None)
        if best is not None and best.similarity(pieces) > LEAST_SIMILARITY:
            return best
        return next((slot for slot in free if slot.is_restored_for(source)), None) or min(
            free, key=lambda slot: slot.worth
        )

    def _unplaced_end(self, release: Release) -> Release:
        """Return what ends a request that may run in any slot. Until then nobody knows what is in free slots.

        The lock is held.
        """
        self._unplaced += 1
        self._forget_free()

        def forget() -> None:
            self._unplaced -= 1
            self._forget_free()

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

        def act_locked() -> None:
            with self._lock:
                act()

        return once(act_locked, release)
