"""All API keys in memory, where every request looks its key up: without a lock, a database or a disk.

A secret is looked up by the first bytes of its SHA-256, and the rest is compared in constant time. What the time of an
answer could tell is something about a hash, from which no secret follows (vLLM's CVE-2025-59425 compared the secret
itself).

The keys come from the table ``api_keys``, or from its mirror in DATA_DIR (``mistral_api.api_keys``). Where PostgreSQL
is away, a key may have been made that is not here, so an unknown one is no more than unknown: 503 instead of 401.
"""

from __future__ import annotations

import hmac
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal
from uuid import UUID

from mistral_api.errors import ApiError, Unauthorized, Unavailable
from mistral_api.security.api_key import (
    ALL_SCOPES,
    ApiKey,
    KeyRecord,
    SecretDigest,
    digest_of,
    has_secret_form,
    shown_prefix,
)

# The key of the setting ADMIN_API_KEY. Its owner is who everything belonged to before there were keys.
ADMIN_KEY_NAME: Final = "ADMIN_API_KEY"
ADMIN_KEY_ID = UUID(int=0)
ADMIN_KEY_OWNER: Final = "local"

Reason = Literal["unknown", "revoked", "expired"]

_INDEX_BYTES = 8


class KeyRefused(Unauthorized):
    """401: the key that was sent is not in force. The client is not told why; ``reason`` and ``prefix`` are for logs.

    ``prefix`` is None where nothing of what was sent may be shown.
    """

    def __init__(self, reason: Reason, prefix: str | None) -> None:
        super().__init__("Incorrect API key provided. The operator of this server hands out keys.")
        self.reason: Reason = reason
        self.prefix = prefix


class KeyMissing(Unauthorized):
    """401: no key was sent, and this server has keys."""

    def __init__(self) -> None:
        super().__init__(
            "You didn't provide an API key. Send it as 'Authorization: Bearer YOUR_KEY', or in the header 'x-api-key'."
        )


class KeysUnavailable(Unavailable):
    """503: PostgreSQL is away, and without it nobody can say whether this caller may come in."""

    def __init__(self) -> None:
        super().__init__(
            "The database does not answer, and without it it is not known whether you may come in. Try again later; "
            "the operator finds the reason in the log and in /health.",
            code="database_unavailable",
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    """One secret of a key; ``valid_until`` is a Unix time in seconds."""

    digest: bytes
    key: ApiKey
    valid_until: float
    revoked: bool

    def reason(self) -> Reason | None:
        """Return why the secret is not in force, or None where it is."""
        if self.revoked:
            return "revoked"
        return "expired" if time.time() >= self.valid_until else None


@dataclass(frozen=True, slots=True)
class _Contents:
    """All keys at one moment. It is replaced as a whole, so that readers need no lock.

    ``known``: whether it is known which keys exist, be it from the mirror. ``complete``: whether no other key exists.
    """

    entries: Mapping[bytes, tuple[_Entry, ...]] = field(default_factory=dict)
    owners: frozenset[str] = frozenset()
    any_stored: bool = False
    known: bool = False
    complete: bool = False


class KeyRing:
    """All keys. Safe to use from many threads; :meth:`replace` and :meth:`mark_incomplete` by one at a time."""

    def __init__(self, admin_secret: str | None = None) -> None:
        """``admin_secret`` is ADMIN_API_KEY: a key with all scopes that no database knows and nobody can revoke."""
        self._admin = None if admin_secret is None else _admin_entry(admin_secret)
        self._contents = _Contents(_indexed(self._own_entries()), _owners(self._own_entries()))
        self._used: dict[UUID, float] = {}

    @property
    def any_key(self) -> bool:
        """Whether callers need a key: one exists, also a revoked or expired one, or nobody can say that none does."""
        contents = self._contents
        return self._admin is not None or contents.any_stored or not contents.known

    @property
    def known(self) -> bool:
        """Whether it is known who may come in, be it from the mirror of a former start, or from ADMIN_API_KEY."""
        return self._admin is not None or self._contents.known

    @property
    def owners(self) -> frozenset[str]:
        """The owners of all keys, also of those that are not in force any more."""
        return self._contents.owners

    @property
    def complete(self) -> bool:
        """Whether there is no other key: PostgreSQL answered a moment ago."""
        return self._contents.complete

    def find(self, secret: str) -> ApiKey:
        """Return the key in force with this secret, and note its use.

        Raises KeyRefused (401), and KeysUnavailable (503) for an unknown one that may be known when PostgreSQL is back.
        """
        contents, digest = self._contents, digest_of(secret)
        for entry in contents.entries.get(digest[:_INDEX_BYTES], ()):
            if hmac.compare_digest(entry.digest, digest):
                return self._admit(entry)
        if not contents.complete and has_secret_form(secret):
            raise KeysUnavailable
        raise KeyRefused("unknown", shown_prefix(secret))

    def _admit(self, entry: _Entry) -> ApiKey:
        reason = entry.reason()
        if reason is not None:
            raise KeyRefused(reason, entry.key.prefix)
        self._used[entry.key.id] = time.time()
        return entry.key

    def refusal_without_key(self) -> ApiError:
        """Return the error for a request without a key that needs one: 401, or 503 where nobody knows of any key."""
        return KeyMissing() if self.known else KeysUnavailable()

    def replace(self, keys: Iterable[KeyRecord], *, complete: bool) -> None:
        """Take these keys, from now on, as all that are known. ``complete``: they come from the database itself."""
        stored = [entry for record in keys for entry in _entries_of(record)]
        entries = [*self._own_entries(), *stored]
        self._contents = _Contents(
            _indexed(entries), _owners(entries), any_stored=bool(stored), known=True, complete=complete
        )

    def mark_incomplete(self) -> None:
        """Note that PostgreSQL is away, so that there may be keys which are not here."""
        self._contents = replace(self._contents, complete=False)

    def take_uses(self) -> dict[UUID, float]:
        """Return when each key was used last since the last call (Unix seconds), ADMIN_API_KEY left out."""
        used, self._used = self._used, {}
        # dict() copies at once, also while a request that saw the former dictionary writes into it.
        uses = dict(used)
        uses.pop(ADMIN_KEY_ID, None)
        return uses

    def _own_entries(self) -> list[_Entry]:
        return [] if self._admin is None else [self._admin]


def _admin_entry(secret: str) -> _Entry:
    key = ApiKey(ADMIN_KEY_ID, ADMIN_KEY_NAME, ADMIN_KEY_OWNER, ADMIN_KEY_NAME, ALL_SCOPES)
    return _Entry(digest_of(secret), key, float("inf"), revoked=False)


def _entries_of(record: KeyRecord) -> list[_Entry]:
    """Return an entry for the secret of a key, and one for its former secret."""
    return [_entry(record, secret) for secret in (record.secret, record.former) if secret is not None]


def _entry(record: KeyRecord, secret: SecretDigest) -> _Entry:
    ends = [moment for moment in (record.key.expires_at, secret.valid_until) if moment is not None]
    key = replace(record.key, prefix=secret.prefix)
    return _Entry(secret.digest, key, min(ends, default=float("inf")), revoked=record.revoked_at is not None)


def _owners(entries: Iterable[_Entry]) -> frozenset[str]:
    return frozenset(entry.key.owner for entry in entries)


def _indexed(entries: Iterable[_Entry]) -> dict[bytes, tuple[_Entry, ...]]:
    index: defaultdict[bytes, list[_Entry]] = defaultdict(list)
    for entry in entries:
        index[entry.digest[:_INDEX_BYTES]].append(entry)
    return {beginning: tuple(found) for beginning, found in index.items()}
