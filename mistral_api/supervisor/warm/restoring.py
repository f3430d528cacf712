"""Giving saved caches to a model server that has just become ready."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from mistral_api.supervisor.warm.folder import SavedCache
from mistral_api.supervisor.warm.slots import Slot, SlotFailure, SlotServer
from mistral_api.supervisor.warm.store import CacheStore, by_size

log = logging.getLogger(__name__)


class CacheRestore:
    """One round, into slots that no request has used: what somebody works with is never replaced."""

    def __init__(self, server: SlotServer, store: CacheStore) -> None:
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
        slots = sorted(self._server.slots(), key=lambda slot: slot.id)
        return next((slot for slot in slots if slot.untouched and slot.id not in filled), None)

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
        self._store.discard([cache.conversation])
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
        self._store.discard([cache.conversation])
        return False
