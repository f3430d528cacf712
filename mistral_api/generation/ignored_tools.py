"""The tools of a request that are left out, since only those who made them can run them: its client and the log know.

The client reads it in the header ``X-Ignored-Tools``, the operator in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

log = logging.getLogger(__name__)

# What the log has been told of: the maker and the type. A client's types are few, but nobody holds it to that.
_told: set[tuple[str, str]] = set()
_MOST_TOLD = 100
# So many types are named in one header, which clients read only up to a length.
_MOST_NAMED = 32


def ignored_types(maker: str, types: Iterable[str]) -> tuple[str, ...]:
    """Return the types of tools that a request is answered without, each once, and the first 32 alone.

    ``maker``: who could run them. The log is told of each type once, of 100 at most.
    """
    ignored = tuple(dict.fromkeys(types))[:_MOST_NAMED]
    new = [kind for kind in ignored if (maker, kind) not in _told][: _MOST_TOLD - len(_told)]
    if new:
        _told.update((maker, kind) for kind in new)
        log.info("tools that only %s can run are left out of requests that have them: %s", maker, ", ".join(new))
    return ignored
