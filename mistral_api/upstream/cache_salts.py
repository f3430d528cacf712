"""A salt for the prompts of each owner, so that vLLM keeps its caches of them apart.

vLLM says how much of a prompt it has read before (``cached_tokens``), whoever sent it. Requests with different salts
share nothing there, and no template sees the salt: ``cache_salt`` in vllm/entrypoints/openai/protocol.py, which asks
for 256 random bits. A vLLM says that it is one as the owner of its models (the same file, ``ModelCard``).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import cast

from mistral_api.payload_types.chat import ChatPayload


class CacheSalts:
    """Salts requests while owners must be kept apart. Threads may share it.

    ``secret`` returns the random bits that the salts are made of: its own, unless several processes share some.
    """

    def __init__(self, is_vllm: Callable[[], bool], several_owners: Callable[[], bool]) -> None:
        """``is_vllm`` raises our exceptions where the model server does not answer."""
        self._is_vllm = is_vllm
        self._several_owners = several_owners
        own = secrets.token_bytes(32)
        self.secret: Callable[[], bytes] = lambda: own

    @property
    def needed(self) -> bool:
        """Whether there may be callers of several owners now."""
        return self._several_owners()

    def salted(self, owner: str, request: ChatPayload) -> ChatPayload:
        """Return a request as the model server gets it. The request itself is not changed."""
        if not self._several_owners() or not self._is_vllm():
            return request
        salt = hmac.digest(self.secret(), owner.encode(), hashlib.sha256)
        return cast("ChatPayload", request | {"cache_salt": base64.urlsafe_b64encode(salt).decode()})
