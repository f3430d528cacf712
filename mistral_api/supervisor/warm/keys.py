"""The name that a conversation goes by where its owner and its session id are not to be read."""

from __future__ import annotations

import hashlib


def conversation_key(owner: str, session_id: str) -> str:
    """32 hexadecimal digits of SHA-256, the same in every process and in every life of the server."""
    told_apart = f"{len(owner)}:{owner}{session_id}"
    return hashlib.sha256(told_apart.encode("utf-8", "surrogatepass")).hexdigest()[:32]
