"""Callers with limits, as the guard would make them."""

from __future__ import annotations

from uuid import uuid4

from mistral_api.security.access import Caller
from mistral_api.security.api_key import DEFAULT_SCOPES, ApiKey, KeyLimits
from mistral_api.system.addresses import is_loopback


def caller_with_key(owner: str = "alice", address: str = "198.51.100.7", **limits: int) -> Caller:
    """Return a caller with a key of its own that has these limits (:class:`KeyLimits`)."""
    key = ApiKey(uuid4(), owner, owner, "mla_1234", limits=KeyLimits(**limits))
    return Caller(owner, address, local=False, scopes=DEFAULT_SCOPES, key=key)


def caller_without_key(address: str | None) -> Caller:
    """Return a caller who sent no key."""
    return Caller("local", address, local=address is None or is_loopback(address), scopes=DEFAULT_SCOPES)
