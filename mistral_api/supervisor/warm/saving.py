"""Saving the slots that hold the chosen conversations, one after the other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator

from mistral_api.supervisor.reports import Feedback
from mistral_api.supervisor.warm.choosing import Candidate
from mistral_api.supervisor.warm.folder import SavedCache
from mistral_api.supervisor.warm.slots import Slot, SlotFailure, SlotServer
from mistral_api.supervisor.warm.store import CacheStore

# One slot of the largest context to a slow disk.
SAVE_SECONDS = 30.0

log = logging.getLogger(__name__)


class CacheSave:
    """One round. ``stop`` ends it between two conversations."""

    def __init__(self, server: SlotServer, store: CacheStore, reports: Feedback, stop: threading.Event) -> None:
        self._server = server
        self._store = store
        self._reports = reports
        self._stop = stop

    def save_each(self, chosen: Iterable[Candidate], deadline: float) -> Iterator[bool]:
        """Whether each conversation that has to be was saved; ends at the deadline (monotonic)."""
        for candidate in chosen:
            if self._stop.is_set() or time.monotonic() >= deadline:
                return
            if candidate.slot is not None:
                yield self._save(candidate, candidate.slot, deadline)

    def _save(self, candidate: Candidate, slot: Slot, deadline: float) -> bool:
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

    def _allowed(self, candidate: Candidate) -> bool:
        return self._store.allows(self._reports.generations[candidate.seed])

    def _checked(self, candidate: Candidate, slot: Slot, name: str, tokens: int, deadline: float) -> SavedCache | None:
        """The cache as it is listed, or None where the slot has gone to another request, or the text been deleted."""
        size, digest = self._store.folder.measure(name, deadline)
        self._store.take_forgotten(self._reports.generations)
        if slot not in self._server.slots() or tokens != slot.tokens or not self._allowed(candidate):
            return None
        conversation, used_at = candidate.conversation, candidate.used_at
        return SavedCache(conversation, name, candidate.seed, tokens, size, digest, used_at)
