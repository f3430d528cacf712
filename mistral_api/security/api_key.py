"""API keys: what each allows, and whose it is. The secret itself is never kept, only its SHA-256.

A secret has 256 random bits, so its SHA-256 cannot be found by guessing, and needs neither salt nor a slow hash.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

# Generate; read and change conversations, responses and figures of one's own; change the model server and the keys;
# send raw grammars; read the metrics.
INFERENCE: Final = "inference"
HISTORY: Final = "history"
ADMIN: Final = "admin"
GRAMMAR: Final = "grammar"
METRICS: Final = "metrics"
SCOPES = (INFERENCE, HISTORY, ADMIN, GRAMMAR, METRICS)
ALL_SCOPES = frozenset(SCOPES)
DEFAULT_SCOPES = frozenset((INFERENCE, HISTORY))


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The most that a key may use. None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrent_requests: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key in force. ``prefix`` is the visible beginning of its secret; ``expires_at`` is a Unix time in seconds."""

    id: UUID
    name: str
    owner: str
    prefix: str
    scopes: frozenset[str] = DEFAULT_SCOPES
    limits: KeyLimits = field(default_factory=KeyLimits)
    expires_at: float | None = None


KEY_BEGINNING: Final = "mla_"
# 43 letters and digits have 256 bits.
_SECRET_CHARACTERS = string.ascii_letters + string.digits
_SECRET_LENGTH = 43
SECRET_PATTERN: Final = rf"{KEY_BEGINNING}[A-Za-z0-9]{{{_SECRET_LENGTH}}}"
_SECRET = re.compile(SECRET_PATTERN)
PREFIX_LENGTH: Final = 12


@dataclass(frozen=True, slots=True)
class SecretDigest:
    """What is kept of a secret: its SHA-256 and its visible beginning. ``valid_until`` is a Unix time in seconds."""

    digest: bytes
    prefix: str
    valid_until: float | None = None


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is stored, in force or not. ``former`` is the secret before a rotation, ``revoked_at`` a Unix time.

    ``key.prefix`` is that of ``secret``.
    """

    key: ApiKey
    secret: SecretDigest
    former: SecretDigest | None = None
    revoked_at: float | None = None


def new_secret() -> str:
    """Return the secret of a new key: ``mla_`` and 256 random bits in letters and digits."""
    return KEY_BEGINNING + "".join(secrets.choice(_SECRET_CHARACTERS) for _ in range(_SECRET_LENGTH))


def has_secret_form(text: str) -> bool:
    """Whether a text could be the secret of a key that we made."""
    return _SECRET.fullmatch(text) is not None


def digest_of(secret: str) -> bytes:
    """Return the SHA-256 of a secret, 32 bytes. Any text has one."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def digest_secret(secret: str) -> SecretDigest:
    """Return what is kept of a secret of ours."""
    return SecretDigest(digest_of(secret), secret[:PREFIX_LENGTH])


def shown_prefix(text: str) -> str | None:
    """Return the beginning of what a client sent as a key, as far as a log may show it: that of our secrets alone.

    What has another form may be a password, or the key of another service.
    """
    return text[:PREFIX_LENGTH] if has_secret_form(text) else None
