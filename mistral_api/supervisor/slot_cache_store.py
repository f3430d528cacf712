"""Which saved caches there are, which conversations deserve one, and whether the disk takes one more."""

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

log = logging.getLogger(__name__)

# A shorter prompt is computed again as fast as its cache is restored.
MIN_CACHE_TOKENS = 256
# Of Mistral 7B with a cache of 16-bit numbers. Once a cache is saved, its own size counts.
USUAL_BYTES_PER_TOKEN = 128 << 10
# Before a cache is saved, the space on the disk is checked for the tokens of the largest models.
MAX_BYTES_PER_TOKEN = 1 << 20
LEFT_FREE_BYTES = 1 << 30
# A deletion is remembered at least so long: feedback about a generation before it may still be on its way.
REMEMBER_SECONDS = 60.0


class CacheStore:
    """The caches in ``DATA_DIR/slots`` and their list, kept in agreement. A failing disk only logs a warning."""

    def __init__(self, settings: Settings, fingerprint: str, server_name: str = MAIN_SERVER) -> None:
        self.enabled = settings.slot_save_seconds > 0 and settings.store_content
        self.folder = CacheFolder(settings.data_dir, server_name)
        self.caches: dict[str, SavedCache] = {}
        self._fingerprint = fingerprint
        self._max_bytes = settings.slot_save_bytes
        self._retention_seconds = settings.retention_days * 86400.0
        # When each deleted conversation was deleted (monotonic).
        self._deleted_at: dict[str, float] = {}
        self._measured_bytes_per_token: float | None = None

    @property
    def bytes_per_token(self) -> float:
        """The size of a token in the last cache, or an estimate before there is one."""
        return self._measured_bytes_per_token or USUAL_BYTES_PER_TOKEN

    def prepare(self) -> bool:
        """Create the folder, or empty it where no text may be stored. Return whether caches can be saved."""
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
        """Read the caches of an earlier run, and delete what cannot be used. Return whether caches can be saved."""
        self.caches = {}
        if not self.prepare():
            return False
        try:
            self.caches = self.folder.read_list(self._fingerprint)
            sizes = (each.bytes / each.tokens for each in self.caches.values())
            self._measured_bytes_per_token = max(sizes, default=None)
            self.delete_marked({})
            self.delete_expired()
        except OSError as error:
            log.warning("saved caches are not used: %s", error)
            return False
        return True

    def delete_expired(self) -> None:
        """Delete caches that are older than RETENTION_DAYS, and files that are in no list."""
        if self._retention_seconds:
            oldest = time.time() - self._retention_seconds
            self.delete([each.conversation for each in self.caches.values() if each.used_at < oldest])
        self.folder.remove_unlisted(self.caches.values())

    def delete_marked(self, generations: Mapping[int, FinishedGeneration]) -> None:
        """Delete the caches of conversations that are marked as deleted, and remember which these are.

        A deletion is remembered as long as ``generations`` has one of that conversation.
        """
        marked = self.folder.take_deletions()
        if not marked:
            return
        self.delete(marked)
        known, recently = {each.conversation for each in generations.values()}, time.monotonic() - REMEMBER_SECONDS
        remembered = {key: at for key, at in self._deleted_at.items() if key in known or at > recently}
        self._deleted_at = remembered | marked

    def may_save(self, generation: FinishedGeneration) -> bool:
        """Return whether the text of a generation may be written to the disk."""
        deleted_at = self._deleted_at.get(generation.conversation, float("-inf"))
        too_old = self._retention_seconds and time.monotonic() - generation.ended_at > self._retention_seconds
        return generation.may_be_stored and generation.ended_at > deleted_at and not too_old

    def delete(self, conversations: Collection[str]) -> None:
        """Delete caches: first from the list, so that no list names a file that is not there."""
        deleted = [self.caches.pop(key) for key in list(conversations) if key in self.caches]
        if deleted:
            self._write_list()
            for each in deleted:
                self.folder.remove(each.file)

    def make_room(self, candidate: CacheCandidate) -> bool:
        """Return whether the disk takes this cache. Where necessary, its own former cache is deleted for it."""
        size = cache_size(candidate, self.bytes_per_token)
        per_token = self._measured_bytes_per_token or MAX_BYTES_PER_TOKEN
        needed = int(candidate.tokens * per_token) + LEFT_FREE_BYTES
        if not self._fits(size, needed):
            self.delete([candidate.conversation])
        return self._fits(size, needed)

    def _fits(self, size: int, needed_free: int) -> bool:
        used = sum(each.bytes for each in self.caches.values())
        return used + size <= self._max_bytes and self.folder.free_bytes() >= needed_free

    def add(self, cache: SavedCache) -> bool:
        """Add a new file to the list, and return whether it is there. One beyond the limit of bytes is removed."""
        self._measured_bytes_per_token = cache.bytes / cache.tokens
        former = self.caches.get(cache.conversation)
        used = sum(each.bytes for each in self.caches.values() if each is not former)
        if used + cache.bytes > self._max_bytes:
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


@dataclass(frozen=True, slots=True)
class CacheCandidate:
    """A conversation whose cache could be on the disk: as it is saved already, or as a slot holds it.

    ``slot`` and ``seed`` are set where the slot has to be saved.
    """

    conversation: str
    tokens: int
    used_at: float
    in_slot: bool
    saved: SavedCache | None = None
    slot: Slot | None = None
    seed: int = 0

    @property
    def rank(self) -> tuple[bool, int, float]:
        """How busy it is; higher is busier.

        llama.cpp gives the slots of the least recently used conversations to others, so those without a slot are last.
        """
        return self.in_slot, self.tokens, self.used_at


def cache_candidates(
    slots: Iterable[Slot],
    generations: Mapping[int, FinishedGeneration],
    saved: Mapping[str, SavedCache],
    restored: Mapping[int, str],
    now: tuple[float, float],
) -> list[CacheCandidate]:
    """Return every conversation once, the busiest first.

    ``restored``: the conversation that was restored into each slot. ``now``: the monotonic clock, and Unix seconds. A
    slot counts only where its seed names a generation whose text may be stored, and that named no scales of adapters.
    """
    monotonic, unix = now
    found = {each.conversation: _saved_candidate(each, in_slot=False) for each in saved.values()}
    for slot in slots:
        generation = None if slot.seed is None else generations.get(slot.seed)
        if slot.is_unused and restored.get(slot.id) in saved:
            _add_longest(found, _saved_candidate(saved[restored[slot.id]], in_slot=True))
        elif generation is not None and _is_worth_saving(slot, generation):
            used_at = unix - (monotonic - generation.ended_at)
            _add_longest(found, _slot_candidate(slot, generation, used_at, saved.get(generation.conversation)))
    return sorted(found.values(), key=lambda each: each.rank, reverse=True)


def _is_worth_saving(slot: Slot, generation: FinishedGeneration) -> bool:
    return generation.may_be_stored and not slot.busy and not slot.own_scales and slot.tokens >= MIN_CACHE_TOKENS


def _saved_candidate(cache: SavedCache, *, in_slot: bool) -> CacheCandidate:
    return CacheCandidate(cache.conversation, cache.tokens, cache.used_at, in_slot, saved=cache)


def _slot_candidate(
    slot: Slot, generation: FinishedGeneration, used_at: float, saved: SavedCache | None
) -> CacheCandidate:
    if saved is not None and saved.seed == generation.seed:
        return _saved_candidate(saved, in_slot=True)
    return CacheCandidate(generation.conversation, slot.tokens, used_at, True, saved, slot, generation.seed)


def _add_longest(found: dict[str, CacheCandidate], candidate: CacheCandidate) -> None:
    """Add a candidate where it is the longest of its conversation.

    A conversation may be in several slots: its branches, and requests for a title.
    """
    known = found.get(candidate.conversation)
    if known is None or candidate.rank > known.rank:
        found[candidate.conversation] = candidate


def select_caches(
    ranked: Iterable[CacheCandidate], max_caches: int, max_bytes: int, bytes_per_token: float
) -> list[CacheCandidate]:
    """Return the busiest candidates that fit into so many bytes, as many as there are slots (``max_caches``)."""
    selected: list[CacheCandidate] = []
    for candidate in ranked:
        size = cache_size(candidate, bytes_per_token)
        if len(selected) < max_caches and size <= max_bytes:
            selected.append(candidate)
            max_bytes -= size
    return selected


def cache_size(candidate: CacheCandidate, bytes_per_token: float) -> int:
    """Return the bytes that a candidate takes on the disk, or will take."""
    if candidate.slot is None and candidate.saved is not None:
        return candidate.saved.bytes
    return int(candidate.tokens * bytes_per_token)
