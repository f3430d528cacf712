"""Which caches deserve the disk.

Which conversations' caches are worth their place on the disk.

The saved caches as a whole: which there are, what is to go, and whether the disk takes one more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from mistral_api.control.feedback import FinishedGeneration
from mistral_api.control.saved_caches import CacheFolder, SavedCache
from mistral_api.control.server_spec import MAIN_SERVER
from mistral_api.settings import Settings
from mistral_api.supervisor.http_client import Slot

# A shorter prompt is read again as fast as its cache is restored.
MIN_CACHE_TOKENS = 256


@dataclass(frozen=True, slots=True)
class CacheCandidate:
    """One conversation that could be on the disk: as it is there already, or as the slot holds it."""

    conversation: str
    tokens: int
    used_at: float
    in_slot: bool
    saved: SavedCache | None = None
    slot: Slot | None = None
    seed: int = 0

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Higher is busier. llama.cpp lets the least recently used leave their slots, so these come last."""
        return self.in_slot, self.tokens, self.used_at


def cache_candidates(
    slots: Iterable[Slot],
    generations: Mapping[int, FinishedGeneration],
    saved: Mapping[str, SavedCache],
    restored: Mapping[int, str],
    now: tuple[float, float],
) -> list[CacheCandidate]:
    """Every conversation once, the busiest first.

    ``restored``: what was restored into which slot. ``now``: the monotonic clock and Unix seconds. A slot counts only
    where its seed names a generation whose text may be stored.
    """
    monotonic, unix = now
    found = {each.conversation: _as_saved(each, in_slot=False) for each in saved.values()}
    for slot in slots:
        generation = None if slot.seed is None else generations.get(slot.seed)
        if slot.is_unused and restored.get(slot.id) in saved:
            _put(found, _as_saved(saved[restored[slot.id]], in_slot=True))
        elif generation is not None and generation.may_be_stored and not slot.busy and slot.tokens >= MIN_CACHE_TOKENS:
            used_at = unix - (monotonic - generation.ended_at)
            _put(found, _as_held(slot, generation, used_at, saved.get(generation.conversation)))
    return sorted(found.values(), key=lambda each: each.rank, reverse=True)


def _as_saved(cache: SavedCache, *, in_slot: bool) -> CacheCandidate:
    return CacheCandidate(cache.conversation, cache.tokens, cache.used_at, in_slot, saved=cache)


def _as_held(slot: Slot, generation: FinishedGeneration, used_at: float, saved: SavedCache | None) -> CacheCandidate:
    if saved is not None and saved.seed == generation.seed:
        return _as_saved(saved, in_slot=True)
    return CacheCandidate(generation.conversation, slot.tokens, used_at, True, saved, slot, generation.seed)


def _put(found: dict[str, CacheCandidate], candidate: CacheCandidate) -> None:
    """A conversation may be in several slots (branches of it, questions for a title): the longest counts."""
    known = found.get(candidate.conversation)
    if known is None or candidate.rank > known.rank:
        found[candidate.conversation] = candidate


def select_caches(
    ranked: Iterable[CacheCandidate], most: int, budget: int, bytes_per_token: float
) -> list[CacheCandidate]:
    """The busiest ones that fit: as many as there are slots, and into so many bytes."""
    kept: list[CacheCandidate] = []
    for candidate in ranked:
        size = cache_size(candidate, bytes_per_token)
        if len(kept) < most and size <= budget:
            kept.append(candidate)
            budget -= size
    return kept


def cache_size(candidate: CacheCandidate, bytes_per_token: float) -> int:
    """The bytes it takes, or will take."""
    if candidate.slot is None and candidate.saved is not None:
        return candidate.saved.bytes
    return int(candidate.tokens * bytes_per_token)


log = logging.getLogger(__name__)

# Of Mistral 7B with a cache of 16-bit numbers; once one is saved, its own size is the measure.
USUAL_BYTES_PER_TOKEN = 128 << 10
# Before there is a measure, a token of the largest models.
MOST_BYTES_PER_TOKEN = 1 << 20
LEFT_FREE_BYTES = 1 << 30
# A deletion is remembered at least so long: a report of what came before it may be on its way.
REMEMBER_SECONDS = 60.0


class CacheStore:
    """What is in ``DATA_DIR/slots``, kept in step with its list. A disk that fails is said once a round."""

    def __init__(self, settings: Settings, fingerprint: str, server: str = MAIN_SERVER) -> None:
        self.enabled = settings.slot_save_seconds > 0 and settings.store_content
        self.folder = CacheFolder(settings.data_dir, server)
        self.caches: dict[str, SavedCache] = {}
        self._fingerprint = fingerprint
        self._budget = settings.slot_save_bytes
        self._kept_seconds = settings.retention_days * 86400.0
        self._forgotten: dict[str, float] = {}
        self._measured: float | None = None

    @property
    def bytes_per_token(self) -> float:
        """What a token takes, as the last cache has shown."""
        return self._measured or USUAL_BYTES_PER_TOKEN

    def prepare(self) -> bool:
        """Make the folder, or empty it where no text may be kept; whether caches can be kept."""
        try:
            if self.enabled:
                self.folder.create()
            else:
                self.folder.clear()
        except OSError as error:
            log.warning("conversations are not saved: %s", error)
            return False
        return self.enabled

    def open(self) -> bool:
        """Read what an earlier life has left and delete what cannot be used; whether caches can be kept."""
        self.caches = {}
        if not self.prepare():
            return False
        try:
            self.caches = self.folder.read_list(self._fingerprint)
            self._measured = max((each.bytes / each.tokens for each in self.caches.values()), default=None)
            self.delete_marked({})
            self.delete_expired()
        except OSError as error:
            log.warning("saved caches are not used: %s", error)
            return False
        return True

    def delete_expired(self) -> None:
        """Delete what is older than RETENTION_DAYS, and files that nobody knows."""
        if self._kept_seconds:
            oldest = time.time() - self._kept_seconds
            self.delete([each.conversation for each in self.caches.values() if each.used_at < oldest])
        self.folder.remove_unlisted(self.caches.values())

    def delete_marked(self, generations: Mapping[int, FinishedGeneration]) -> None:
        """Delete the caches of conversations that were deleted, and remember which were."""
        found = self.folder.take_deletions()
        if not found:
            return
        self.delete(found)
        known, recently = {each.conversation for each in generations.values()}, time.monotonic() - REMEMBER_SECONDS
        kept = {key: at for key, at in self._forgotten.items() if key in known or at > recently}
        self._forgotten = kept | found

    def may_save(self, generation: FinishedGeneration) -> bool:
        """Whether what a generation has left may be on the disk."""
        forgotten_at = self._forgotten.get(generation.conversation, float("-inf"))
        too_old = self._kept_seconds and time.monotonic() - generation.ended_at > self._kept_seconds
        return generation.may_be_stored and generation.ended_at > forgotten_at and not too_old

    def delete(self, conversations: Collection[str]) -> None:
        """Delete caches: from the list first, so that no list names a file that is not there."""
        gone = [self.caches.pop(key) for key in list(conversations) if key in self.caches]
        if gone:
            self._write_list()
            for each in gone:
                self.folder.remove(each.file)

    def make_room(self, candidate: CacheCandidate) -> bool:
        """Whether the disk takes it; its own former cache is given up for that where need be."""
        size = cache_size(candidate, self.bytes_per_token)
        per_token = self._measured or MOST_BYTES_PER_TOKEN
        needed = int(candidate.tokens * per_token) + LEFT_FREE_BYTES
        if not self._fits(size, needed):
            self.delete([candidate.conversation])
        return self._fits(size, needed)

    def _fits(self, size: int, needed: int) -> bool:
        used = sum(each.bytes for each in self.caches.values())
        return used + size <= self._budget and self.folder.free_bytes() >= needed

    def add(self, cache: SavedCache) -> bool:
        """Take a new file into the list; one that turns out too large for the budget goes again."""
        self._measured = cache.bytes / cache.tokens
        former = self.caches.get(cache.conversation)
        used = sum(each.bytes for each in self.caches.values() if each is not former)
        if used + cache.bytes > self._budget:
            self.folder.remove(cache.file)
            return False
        self.caches[cache.conversation] = cache
        if not self._write_list():
            self.folder.remove(cache.file)
            self.caches.pop(cache.conversation)
            return False
        if former is not None:
            self.folder.remove(former.file)
        return True

    def _write_list(self) -> bool:
        try:
            self.folder.write_list(self._fingerprint, self.caches.values())
        except OSError as error:
            log.warning("the list of saved caches cannot be written: %s", error)
            return False
        return True


def by_size(caches: Iterable[SavedCache]) -> list[SavedCache]:
    """The order in which caches are restored: the most tokens first, of as many the one used last."""
    return sorted(caches, key=lambda each: (each.tokens, each.used_at), reverse=True)
