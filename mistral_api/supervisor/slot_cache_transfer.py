"""Saving and restoring, slot by slot.

Giving saved caches to a model server that has just become ready.

Saving the slots that hold the chosen conversations, one after the other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from mistral_api.control.feedback import Feedback
from mistral_api.control.saved_caches import SavedCache
from mistral_api.supervisor.http_client import Slot, SlotClient, SlotFailure
from mistral_api.supervisor.slot_cache_store import CacheCandidate, CacheStore, by_size

log = logging.getLogger(__name__)


class CacheRestorer:
    """One round, into slots that no request has used: what somebody works with is never replaced."""

    def __init__(self, server: SlotClient, store: CacheStore) -> None:
        self._server = server
        self._store = store

    def restore(self, deadline: float, stopping: Callable[[], bool]) -> dict[int, str]:
        """Which conversation is in which slot now; ends at the deadline (monotonic), or when we are to stop.

        The longest goes into the first slot: llama.cpp takes the last one first where all are unused.
        """
        filled: dict[int, str] = {}
        try:
            for cache in by_size(self._store.caches.values()):
                slot = self._untouched(filled)
                if slot is None or time.monotonic() >= deadline or stopping():
                    break
                if self._intact(cache, deadline) and self._restored(cache, slot, deadline):
                    filled[slot.id] = cache.conversation
        except SlotFailure as error:
            log.warning("the saved caches are not restored: %s", error)
        return filled

    def _untouched(self, filled: dict[int, str]) -> Slot | None:
        slots = sorted(self._server.list_slots(), key=lambda slot: slot.id)
        return next((slot for slot in slots if slot.is_unused and slot.id not in filled), None)

    def _restored(self, cache: SavedCache, slot: Slot, deadline: float) -> bool:
        """Whether llama.cpp took it; a cache that it does not take is deleted: it may be what a server dies of."""
        try:
            tokens = self._server.restore(slot, cache.file, deadline - time.monotonic())
        except SlotFailure as error:
            if time.monotonic() >= deadline:  # we did not wait long enough, for which the cache is not to blame
                log.warning("a conversation is not restored in time: %s", error)
                return False
            log.warning("a conversation is not restored, its cache is deleted: %s", error)
        else:
            if tokens == cache.tokens:
                return True
            log.warning("a conversation is not restored: %d tokens of %d", tokens, cache.tokens)
        self._store.delete([cache.conversation])
        return False

    def _intact(self, cache: SavedCache, deadline: float) -> bool:
        """Whether the file is what was written; another is deleted."""
        try:
            found = self._store.folder.measure(cache.file, deadline)
        except TimeoutError:
            return False
        except OSError as error:
            log.warning("a saved cache cannot be read and is deleted: %s", error)
        else:
            if found == (cache.bytes, cache.digest):
                return True
            log.warning("a saved cache is damaged and is deleted: %s", cache.file)
        self._store.delete([cache.conversation])
        return False


# One slot of the largest context to a slow disk.
SAVE_SECONDS = 30.0


class CacheSaver:
    """One round. ``stop`` ends it between two conversations."""

    def __init__(self, server: SlotClient, store: CacheStore, reports: Feedback, stop: threading.Event) -> None:
        self._server = server
        self._store = store
        self._reports = reports
        self._stop = stop

    def save(self, chosen: Iterable[CacheCandidate], deadline: float) -> Iterator[bool]:
        """Whether each conversation that has to be was saved; ends at the deadline (monotonic)."""
        for candidate in chosen:
            if self._stop.is_set() or time.monotonic() >= deadline:
                return
            if candidate.slot is not None:
                yield self._save(candidate, candidate.slot, deadline)

    def _save(self, candidate: CacheCandidate, slot: Slot, deadline: float) -> bool:
        folder, name = self._store.folder, self._store.folder.new_name(candidate.conversation)
        try:
            if not (self._allowed(candidate) and self._store.make_room(candidate)):
                return False
            tokens = self._server.save(slot, name, min(deadline - time.monotonic(), SAVE_SECONDS))
            cache = self._checked(candidate, slot, name, tokens, deadline)
        except (SlotFailure, OSError) as error:
            log.warning("a conversation is not saved: %s", error)
            cache = None
        if cache is None:
            folder.remove(name)
            return False
        return self._store.add(cache)

    def _allowed(self, candidate: CacheCandidate) -> bool:
        return self._store.may_save(self._reports.generations[candidate.seed])

    def _checked(
        self, candidate: CacheCandidate, slot: Slot, name: str, tokens: int, deadline: float
    ) -> SavedCache | None:
        """The cache as it is listed, or None where the slot has gone to another request, or the text been deleted."""
        size, digest = self._store.folder.measure(name, deadline)
        self._store.delete_marked(self._reports.generations)
        if slot not in self._server.list_slots() or tokens != slot.tokens or not self._allowed(candidate):
            return None
        conversation, used_at = candidate.conversation, candidate.used_at
        return SavedCache(conversation, name, candidate.seed, tokens, size, digest, used_at)
