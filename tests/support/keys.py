"""API keys for tests that have no database."""

from __future__ import annotations

from collections.abc import Iterable

from mistral_api.security.api_key import DEFAULT_SCOPES, ApiKey, KeyRecord, digest_secret, new_secret
from mistral_api.security.key_ring import KeyRing
from mistral_api.system.identifiers import new_id


def key_record(name: str, scopes: Iterable[str] = DEFAULT_SCOPES, owner: str | None = None) -> tuple[str, KeyRecord]:
    """Return the secret of a new key and its record."""
    secret = new_secret()
    kept = digest_secret(secret)
    return secret, KeyRecord(ApiKey(new_id(), name, owner or name, kept.prefix, frozenset(scopes)), kept)


def key_ring(*records: KeyRecord, complete: bool = True) -> KeyRing:
    """Return a ring that knows of these keys, and of no others."""
    ring = KeyRing()
    ring.replace(records, complete=complete)
    return ring
