"""The paths of the API, as clients may spell them.

Each path of ours has one name, by which it is routed, logged, limited and measured. Whatever a client may write instead
becomes that name before anybody looks at it: a slash at the end, slashes that a joined base URL has doubled, and the
paths that llama.cpp's server has without ``/v1`` (its routes in tools/server/server.cpp). Where llama.cpp's own path
means something else here (``/completions``, ``/models/load``), it keeps that meaning.
"""

from __future__ import annotations

import re
from types import MappingProxyType

_SLASHES = re.compile(r"/{2,}")
_V1 = "/v1"
# What llama.cpp's server also answers without /v1. What is below one of them belongs to it: ``/responses/resp_1``.
_WITHOUT_V1 = ("/models", "/chat/completions", "/responses", "/embeddings", "/rerank")
# The paths of the API under other names.
_OTHER_NAMES = {"/v1/health": "/health", "/reranking": "/v1/rerank", "/v1/reranking": "/v1/rerank"}
# These are llama.cpp's own, and no model has their name.
_OWN = frozenset(("/models/load", "/models/unload"))
# Each name of a path beside its own one; for the documentation.
ALIASES = MappingProxyType({**{path: _V1 + path for path in _WITHOUT_V1}, **_OTHER_NAMES})
_FIRST_PARTS = frozenset(path.split("/")[1] for path in _WITHOUT_V1)


def canonical_path(path: str) -> str:
    """Return the name of a path of the API: its own one, whichever of its spellings this is.

    A path that is none of ours is returned without a slash at its end, and without doubled ones.
    """
    if "//" in path:
        path = _SLASHES.sub("/", path)
    if len(path) > 1 and path.endswith("/"):
        path = path[:-1]
    other = _OTHER_NAMES.get(path)
    if other is not None:
        return other
    first = path[1:].partition("/")[0]
    return _with_v1(path) if first in _FIRST_PARTS else path


def _with_v1(path: str) -> str:
    """Return a path with ``/v1`` before it where it is an alias."""
    if path in _OWN:
        return path
    return _V1 + path if any(path == alias or path.startswith(alias + "/") for alias in _WITHOUT_V1) else path
