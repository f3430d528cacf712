"""Which conversations' caches are worth their place on the disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mistral_api.supervisor.reports import Generation
from mistral_api.supervisor.warm.folder import SavedCache
from mistral_api.supervisor.warm.slots import Slot

# A shorter prompt is read again as fast as its cache is restored.
SHORTEST_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Candidate:
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
    generations: Mapping[int, Generation],
    saved: Mapping[str, SavedCache],
    restored: Mapping[int, str],
    now: tuple[float, float],
) -> list[Candidate]:
    """Every conversation once, the busiest first.

    ``restored``: what was restored into which slot. ``now``: the monotonic clock and Unix seconds. A slot counts only
    where its seed names a generation whose text may be stored.
    """
    monotonic, unix = now
    found = {each.conversation: _as_saved(each, in_slot=False) for each in saved.values()}
    for slot in slots:
        generation = None if slot.seed is None else generations.get(slot.seed)
        if slot.untouched and restored.get(slot.id) in saved:
            _put(found, _as_saved(saved[restored[slot.id]], in_slot=True))
        elif generation is not None and generation.may_be_stored and not slot.busy and slot.tokens >= SHORTEST_TOKENS:
            used_at = unix - (monotonic - generation.ended_at)
            _put(found, _as_held(slot, generation, used_at, saved.get(generation.conversation)))
    return sorted(found.values(), key=lambda each: each.rank, reverse=True)


def _as_saved(cache: SavedCache, *, in_slot: bool) -> Candidate:
    return Candidate(cache.conversation, cache.tokens, cache.used_at, in_slot, saved=cache)


def _as_held(slot: Slot, generation: Generation, used_at: float, saved: SavedCache | None) -> Candidate:
    if saved is not None and saved.seed == generation.seed:
        return _as_saved(saved, in_slot=True)
    return Candidate(generation.conversation, slot.tokens, used_at, True, saved, slot, generation.seed)


def _put(found: dict[str, Candidate], candidate: Candidate) -> None:
    """A conversation may be in several slots (branches of it, questions for a title): the longest counts."""
    known = found.get(candidate.conversation)
    if known is None or candidate.rank > known.rank:
        found[candidate.conversation] = candidate


def select_caches(ranked: Iterable[Candidate], most: int, budget: int, bytes_per_token: float) -> list[Candidate]:
    """The busiest ones that fit: as many as there are slots, and into so many bytes."""
    kept: list[Candidate] = []
    for candidate in ranked:
        size = cache_size(candidate, bytes_per_token)
        if len(kept) < most and size <= budget:
            kept.append(candidate)
            budget -= size
    return kept


def cache_size(candidate: Candidate, bytes_per_token: float) -> int:
    """The bytes it takes, or will take."""
    if candidate.slot is None and candidate.saved is not None:
        return candidate.saved.bytes
    return int(candidate.tokens * bytes_per_token)
