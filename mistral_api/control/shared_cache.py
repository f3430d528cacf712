"""The KV cache that the slots of a model server share, and whether they do.

llama.cpp gives each slot a part of the cache of its own, or all slots one cache (``--kv-unified``, tools/server/
README.md). In one cache a request alone may have all of the context. Which of both a server of ours gets is decided
here; whether it has got it, it says itself while it loads (``supervisor/load_report.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mistral_api.embedded.engine.values import NO
from mistral_api.settings import Settings

UNIFIED, NOT_UNIFIED = "LLAMA_ARG_KV_UNIFIED", "LLAMA_ARG_NO_KV_UNIFIED"
# With one cache llama.cpp would save all idle slots to main memory, and clear them, before each request (TAG_IDLE_SLOT_
# CLEAR in tools/server/server-context.cpp): conversations that take turns would be copied to and fro, and after a
# planned restart nothing would be in the slots. It clears idle slots by itself where it needs their room.
IDLE_SLOTS = "LLAMA_ARG_CACHE_IDLE_SLOTS"
# While llama.cpp computes an image it clears no idle slot where it lacks room, and fails ("failed to process mtmd
# chunk"); and embeddings take slots that nobody waits for. Models that do either have a cache for each slot.
_SPLIT_WITH = ("LLAMA_ARG_MMPROJ", "LLAMA_ARG_MMPROJ_URL", "LLAMA_ARG_EMBEDDINGS", "LLAMA_ARG_RERANKING")


@dataclass(frozen=True, slots=True)
class SharedCache:
    """A cache of so many ``tokens`` that ``slots`` share. ``request``: the most that one of them may use of it."""

    tokens: int
    request: int
    slots: int

    @property
    def share(self) -> int:
        """The tokens of a slot, if all had the same."""
        return self.tokens // self.slots


def with_shared_cache(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a model server whose slots share one cache, unless the operator says otherwise.

    A variable is used, and no flag: a build that does not know it ignores it.
    """
    defaults = {IDLE_SLOTS: "0"}
    if NOT_UNIFIED not in environment and not any(environment.get(name) for name in _SPLIT_WITH):
        defaults[UNIFIED] = "1"
    return defaults | dict(environment)


def whole_context(settings: Settings, model_context: int | None, environment: Mapping[str, str]) -> int:
    """Return the tokens of the whole cache that a model server with this environment is going to have; 0: unknown.

    Where each slot has its own, a context of 0 gives every one of them the model's.
    """
    slots = 1 if is_shared(environment) else settings.parallel
    return settings.context_size or (model_context or 0) * slots


def is_shared(environment: Mapping[str, str]) -> bool:
    """Return whether a model server with this environment is asked for one cache."""
    return environment.get(UNIFIED, "0").lower() not in NO
