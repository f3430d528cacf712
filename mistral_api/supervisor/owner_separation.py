"""Whether the model server is started without its cache of prompts in main memory.

That cache is one for all callers, and the number of tokens that it saves tells one caller what another has sent. So it
is switched off where there are callers of several owners (``upstream/slot_owners.py`` has the rest). That is asked
before each start, from the mirror of the API keys and the settings.
"""

from __future__ import annotations

from collections.abc import Mapping

from mistral_api.api_keys.key_mirror import read_any_records
from mistral_api.security.access import AccessRule
from mistral_api.security.key_ring import KeyRing
from mistral_api.settings import Settings

# llama.cpp's variable for the cache's size in MiB (tools/server/README.md, --cache-ram). Builds without it have no such
# cache.
CACHE_VARIABLE = "LLAMA_ARG_CACHE_RAM"
_NO_CACHE = "0"


def separated_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a model server, without the cache where owners share the server.

    What the operator has set stays.
    """
    off = {CACHE_VARIABLE: _NO_CACHE} if _has_several_owners(settings) else {}
    return off | dict(environment)


def has_prompt_cache(environment: Mapping[str, str]) -> bool:
    """Return whether a model server with this environment has the cache."""
    return environment.get(CACHE_VARIABLE) != _NO_CACHE


def _has_several_owners(settings: Settings) -> bool:
    ring = KeyRing(settings.admin_api_key)
    ring.replace(read_any_records(settings.data_dir), complete=False)
    return AccessRule(settings, ring).several_owners
