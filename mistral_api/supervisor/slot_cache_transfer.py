"""Slots saved to files and restored from files, one after the other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from mistral_api.control.feedback import Feedback
from mistral_api.control.saved_caches import SavedCache
from mistral_api.supervisor.http_client import Slot, SlotClient, SlotFailure
from mistral_api.supervisor.slot_cache_store import CacheCandidate, CacheStore

log = logging.getLogger(__name__)

# Enough for one slot of the largest context on a slow disk.
SAVE_TIMEOUT_SECONDS = 30.0


class CacheSaver:
    """Saves the slots of selected conversations. ``stop`` ends it between two of them."""

    def __init__(self, slots: SlotClient, store: CacheStore, feedback: Feedback, stop: threading.Event) -> None:
        self._slots = slots
        self._store = store
        self._feedback = feedback
        self._stop = stop

    def save(self, candidates: Iterable[CacheCandidate], deadline: float) -> int:
        """Save the candidates that are not saved yet, until the deadline (monotonic). Return how many were saved.

        Raises nothing: a conversation that cannot be saved is logged.
        """
        saved = 0
        for candidate in candidates:
            if self._stop.is_set() or time.monotonic() >= deadline:
                break
            if candidate.slot is not None:
                saved += self._save_slot(candidate, candidate.slot, deadline)
        return saved

    def _save_slot(self, candidate: CacheCandidate, slot: Slot, deadline: float) -> bool:
        folder, name = self._store.folder, self._store.folder.new_name(candidate.conversation)
        try:
            if not (self._may_save(candidate) and self._store.make_room(candidate)):
                return False
            tokens = self._slots.save(slot, name, min(deadline - time.monotonic(), SAVE_TIMEOUT_SECONDS))
            cache = self._check_saved(candidate, slot, name, tokens, deadline)
        except (SlotFailure, OSError) as error:
            log.warning("a conversation is not saved: %s", error)
            cache = None
        if cache is None:
            folder.remove(name)
            return False
        return self._store.add(cache)

    def _may_save(self, candidate: CacheCandidate) -> bool:
        return self._store.may_save(self._feedback.generations[candidate.seed])

    def _check_saved(
        self, candidate: CacheCandidate, slot: Slot, name: str, tokens: int, deadline: float
    ) -> SavedCache | None:
        """Return the cache for the list, or None where another request took the slot, or the text was deleted."""
        size, digest = self._store.folder.measure(name, deadline)
        self._store.delete_marked(self._feedback.generations)
        if slot not in self._slots.list_slots() or tokens != slot.tokens or not self._may_save(candidate):
            return None
        conversation, used_at = candidate.conversation, candidate.used_at
        return SavedCache(conversation, name, candidate.seed, tokens, size, digest, used_at)


class CacheRestorer:
    """Restores caches into slots that no request has used: it never replaces what a client works with."""

    def __init__(self, slots: SlotClient, store: CacheStore) -> None:
        self._slots = slots
        self._store = store

    def restore(self, deadline: float, stop_requested: Callable[[], bool]) -> dict[int, str]:
        """Restore the caches, and return which conversation is in which slot now.

        Ends at the deadline (monotonic), or when ``stop_requested`` returns true. The longest conversation goes into
        the first slot, because llama.cpp takes the last slot first where all are unused.
        """
        filled: dict[int, str] = {}
        try:
            for cache in _longest_first(self._store.caches.values()):
                slot = self._unused_slot(filled)
                if slot is None or time.monotonic() >= deadline or stop_requested():
                    break
                if self._is_intact(cache, deadline) and self._restore_slot(cache, slot, deadline):
                    filled[slot.id] = cache.conversation
        except SlotFailure as error:
            log.warning("the saved caches are not restored: %s", error)
        return filled

    def _unused_slot(self, filled: dict[int, str]) -> Slot | None:
        slots = sorted(self._slots.list_slots(), key=lambda slot: slot.id)
        return next((slot for slot in slots if slot.is_unused and slot.id not in filled), None)

    def _restore_slot(self, cache: SavedCache, slot: Slot, deadline: float) -> bool:
        """Return whether llama.cpp took the cache. One that it does not take is deleted: it could end a server."""
        try:
            tokens = self._slots.restore(slot, cache.file, deadline - time.monotonic())
        except SlotFailure as error:
            if time.monotonic() >= deadline:  # we did not wait long enough: that is no fault of the cache
                log.warning("a conversation is not restored in time: %s", error)
                return False
            log.warning("a conversation is not restored, its cache is deleted: %s", error)
        else:
            if tokens == cache.tokens:
                return True
            log.warning("a conversation is not restored: %d tokens of %d", tokens, cache.tokens)
        self._store.delete([cache.conversation])
        return False

    def _is_intact(self, cache: SavedCache, deadline: float) -> bool:
        """Return whether the file is what was written; one that is not is deleted."""
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


def _longest_first(caches: Iterable[SavedCache]) -> list[SavedCache]:
    """Return the caches by tokens, the most first; of as many tokens, the one used last comes first."""
    return sorted(caches, key=lambda each: (each.tokens, each.used_at), reverse=True)
