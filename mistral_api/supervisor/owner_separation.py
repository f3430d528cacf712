"""Whether the model server is started without its cache of prompts in main memory.

That cache is one for all callers, and the number of tokens that it saves tells one caller what another has sent. So it
is switched off where there are callers of several owners (``upstream/slot_owners.py`` has the rest). That is asked
before each start, from the mirror of the API keys and the settings. Otherwise it may take PROMPT_CACHE_MIB, or a part
of the memory that is free.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from mistral_api.api_keys.key_mirror import read_any_records
from mistral_api.hardware.main_memory import available_memory_bytes
from mistral_api.security.access import AccessRule
from mistral_api.security.key_ring import KeyRing
from mistral_api.settings import Settings
from mistral_api.system.byte_sizes import MIB

log = logging.getLogger(__name__)

# llama.cpp's variable for the cache's size in MiB (tools/server/README.md, --cache-ram). Builds without it have no such
# cache.
CACHE_VARIABLE = "LLAMA_ARG_CACHE_RAM"
_NO_CACHE = "0"


# The part of the memory left by the model that the cache may take, and llama.cpp's own default of it. A smaller cache
# than the least one holds next to nothing.
FREE_PART, MOST_MIB, LEAST_MIB = 4, 8192, 64


def separated_environment(settings: Settings, environment: Mapping[str, str], needed_bytes: int = 0) -> dict[str, str]:
    """Return the environment of a model server with the size of the cache: none where owners share the server.

    What the operator has set for llama.cpp itself stays. ``needed_bytes``: what the model and its KV cache take.
    """
    if CACHE_VARIABLE in environment:
        if settings.prompt_cache_mib is not None:
            log.warning("PROMPT_CACHE_MIB is not used, since %s is set", CACHE_VARIABLE)
        return dict(environment)
    size = settings.prompt_cache_mib
    if _has_several_owners(settings):
        if size:
            log.warning("PROMPT_CACHE_MIB is not used: callers of several owners share the model server")
        size = 0
    elif size is None:
        size = prompt_cache_mib(available_memory_bytes() - needed_bytes)
    return {**environment, CACHE_VARIABLE: str(size)}


def prompt_cache_mib(free_bytes: int) -> int:
    """Return how many MiB the cache may take where so many bytes are free."""
    size = min(MOST_MIB, max(0, free_bytes) // FREE_PART // MIB)
    return size if size >= LEAST_MIB else 0


def describe_prompt_cache(environment: Mapping[str, str]) -> str:
    """Return in words how much main memory the cache may take."""
    size = prompt_cache_size(environment)
    if size == 0:
        return "no prompts are cached in main memory"
    return f"prompts may take {'any' if size is None else size} MiB of main memory"


def prompt_cache_size(environment: Mapping[str, str]) -> int | None:
    """Return the MiB that a model server with this environment may take for the cache; None: nobody knows, or any."""
    text = environment.get(CACHE_VARIABLE, "")
    return int(text) if text.isdigit() else None


def has_prompt_cache(environment: Mapping[str, str]) -> bool:
    """Return whether a model server with this environment has the cache."""
    return environment.get(CACHE_VARIABLE) != _NO_CACHE


def _has_several_owners(settings: Settings) -> bool:
    ring = KeyRing(settings.admin_api_key)
    ring.replace(read_any_records(settings.data_dir), complete=False)
    return AccessRule(settings, ring).several_owners
