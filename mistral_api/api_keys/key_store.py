"""The table of API keys: they are made, listed, revoked and rotated here, by commands and over HTTP.

Every change tells the watchers of all API processes (``key_watcher``) in its own transaction, by NOTIFY: they hear of
it when it is committed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from psycopg2.errorcodes import UNIQUE_VIOLATION
from sqlalchemy import ColumnElement, and_, delete, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mistral_api.database.errors import sqlstate
from mistral_api.database.tables.keys import StoredKey
from mistral_api.errors import InvalidRequest, NotFound
from mistral_api.security.access import ANONYMOUS_OWNER, LOCAL_OWNER
from mistral_api.security.api_key import (
    DEFAULT_SCOPES,
    SCOPES,
    ApiKey,
    KeyLimits,
    KeyRecord,
    SecretDigest,
    digest_secret,
    new_secret,
)
from mistral_api.security.key_ring import ADMIN_KEY_NAME
from mistral_api.system.identifiers import new_id
from mistral_api.wire.keys import NAME_PATTERN
from mistral_api.wire.queries import LAST_SECOND

CHANNEL: Final = "mistral_api_keys"
NAME_RULE: Final = "at most 64 letters, digits and . _ @ + -, beginning with a letter or a digit"
# Owners that a key's name alone must not choose: data from before there were keys, and callers without one.
RESERVED_OWNERS: Final = frozenset({LOCAL_OWNER, ANONYMOUS_OWNER})

_ID_PREFIX = "key_"
_NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', '')")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be made. Without an ``owner`` it is owned by its name; ``expires_at`` is a Unix time in seconds."""

    name: str
    owner: str | None = None
    scopes: frozenset[str] = DEFAULT_SCOPES
    limits: KeyLimits = field(default_factory=KeyLimits)
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A key with its secret, which is nowhere else and cannot be had again."""

    stored: StoredKey
    secret: str


def create_key(session: Session, wanted: NewKey) -> MadeKey:
    """Make a key, and commit. Raises InvalidRequest, which names the field, and sqlalchemy.exc.SQLAlchemyError."""
    _check(wanted)
    secret = new_secret()
    kept = digest_secret(secret)
    stored = StoredKey(
        id=new_id(),
        name=wanted.name,
        owner=wanted.owner or wanted.name,
        prefix=kept.prefix,
        digest=kept.digest,
        scopes=[scope for scope in SCOPES if scope in wanted.scopes],
        requests_per_minute=wanted.limits.requests_per_minute,
        tokens_per_minute=wanted.limits.tokens_per_minute,
        tokens_per_day=wanted.limits.tokens_per_day,
        concurrent_requests=wanted.limits.concurrent_requests,
        created_at=datetime.now(UTC),
        expires_at=None if wanted.expires_at is None else datetime.fromtimestamp(wanted.expires_at, UTC),
        revision=1,
    )
    session.add(stored)
    try:
        session.flush()
    except IntegrityError as error:
        session.rollback()
        if sqlstate(error) != UNIQUE_VIOLATION:
            raise
        raise _refusal("name", f"There is a key of the name '{wanted.name}' already: revoke or rotate it.") from error
    return MadeKey(_commit_change(session, stored), secret)


def _check(wanted: NewKey) -> None:
    """Refuse a key that must not be. Raises InvalidRequest."""
    for param, value in (("name", wanted.name), ("owner", wanted.owner)):
        if value is not None and not NAME_PATTERN.fullmatch(value):
            raise _refusal(param, f"Invalid '{param}': expected {NAME_RULE}.")
    if wanted.name == ADMIN_KEY_NAME:
        raise _refusal("name", f"Invalid 'name': '{ADMIN_KEY_NAME}' is the key of the setting of that name.")
    if wanted.owner is None and wanted.name in RESERVED_OWNERS:
        raise _refusal(
            "name", f"Invalid 'name': the data of '{wanted.name}' are those of callers without a key. Give the owner."
        )
    if not wanted.scopes or not wanted.scopes.issubset(SCOPES):
        raise _refusal("scopes", f"Invalid 'scopes': expected at least one of {', '.join(SCOPES)}.")
    if wanted.expires_at is not None and not time.time() < wanted.expires_at <= LAST_SECOND:
        raise _refusal("expires_at", "Invalid 'expires_at': it is in the past, or after the year 9999.")


def _refusal(param: str, sentence: str) -> InvalidRequest:
    return InvalidRequest(sentence, code="invalid_value", param=param)


def list_keys(session: Session) -> list[StoredKey]:
    """Return all keys, revoked ones too, oldest first. Raises sqlalchemy.exc.SQLAlchemyError."""
    return list(session.scalars(select(StoredKey).order_by(StoredKey.created_at, StoredKey.id)))


def has_keys(session: Session) -> bool:
    """Whether any key was ever made. Raises sqlalchemy.exc.SQLAlchemyError."""
    return session.scalar(select(StoredKey.id).limit(1)) is not None


def discard_key(session: Session, key_id: UUID) -> None:
    """Delete a key whose secret nobody has got, and commit."""
    session.execute(delete(StoredKey).where(StoredKey.id == key_id))
    session.execute(_NOTIFY)
    session.commit()


def find_key(session: Session, key_id: UUID | None) -> StoredKey:
    """Return a key by its id; None is no id of a key. Raises NotFound, and sqlalchemy.exc.SQLAlchemyError."""
    stored = None if key_id is None else session.get(StoredKey, key_id)
    if stored is None:
        raise NotFound("No such API key.", param="key_id")
    return stored


def find_named_key(session: Session, name_or_id: str) -> StoredKey:
    """Return a key by its id, or the key in force of a name. Raises NotFound, and SQLAlchemyError."""
    key_id = parse_key_id(name_or_id)
    if key_id is not None:
        return find_key(session, key_id)
    in_force: ColumnElement[bool] = and_(StoredKey.name == name_or_id, StoredKey.revoked_at.is_(None))
    stored = session.scalar(select(StoredKey).where(in_force)) if "\0" not in name_or_id else None
    if stored is None:
        raise NotFound(f"There is no API key '{name_or_id}', or it is revoked: give its id.", param="key_id")
    return stored


def revoke_key(session: Session, key_id: UUID | None) -> StoredKey:
    """Revoke a key, for good, and commit. One that is revoked already stays so; None is no id of a key.

    Raises NotFound, and sqlalchemy.exc.SQLAlchemyError.
    """
    return _change(session, key_id, revoked_at=datetime.now(UTC))


def rotate_key(session: Session, key_id: UUID | None, grace_seconds: float) -> MadeKey:
    """Give a key another secret, and commit. The former one works for ``grace_seconds`` longer, one before it no more.

    Raises NotFound, InvalidRequest for a revoked key, and sqlalchemy.exc.SQLAlchemyError.
    """
    if find_key(session, key_id).revoked_at is not None:
        raise InvalidRequest("This API key is revoked: make another one.", code="key_revoked", param="key_id")
    secret = new_secret()
    kept, keeps = digest_secret(secret), grace_seconds > 0
    changed = _change(
        session,
        key_id,
        prefix=kept.prefix,
        digest=kept.digest,
        former_prefix=StoredKey.prefix if keeps else None,
        former_digest=StoredKey.digest if keeps else None,
        former_until=datetime.now(UTC) + timedelta(seconds=grace_seconds) if keeps else None,
    )
    return MadeKey(changed, secret)


def _change(session: Session, key_id: UUID | None, **values: object) -> StoredKey:
    """Change a key, unless it is revoked, and commit. Raises NotFound."""
    session.execute(
        update(StoredKey)
        .where(StoredKey.id == key_id, StoredKey.revoked_at.is_(None))
        .values(**values, revision=StoredKey.revision + 1),
        execution_options={"synchronize_session": False},
    )
    session.expire_all()
    return _commit_change(session, find_key(session, key_id))


def _commit_change(session: Session, changed: StoredKey) -> StoredKey:
    """Commit, and return the key as it is now, detached: a secret that is made must not get lost by another query."""
    session.execute(_NOTIFY)
    session.expunge(changed)
    session.commit()
    return changed


def records_of(rows: Sequence[StoredKey]) -> list[KeyRecord]:
    """Return keys as the ring takes them."""
    return [_record(row) for row in rows]


def _record(row: StoredKey) -> KeyRecord:
    limits = KeyLimits(row.requests_per_minute, row.tokens_per_minute, row.tokens_per_day, row.concurrent_requests)
    key = ApiKey(row.id, row.name, row.owner, row.prefix, frozenset(row.scopes), limits, _unix(row.expires_at))
    former = None
    if row.former_digest is not None and row.former_prefix is not None:
        former = SecretDigest(bytes(row.former_digest), row.former_prefix, _unix(row.former_until))
    return KeyRecord(key, SecretDigest(bytes(row.digest), row.prefix), former, _unix(row.revoked_at))


def _unix(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def key_id_text(key_id: UUID) -> str:
    """Return the id of a key as clients see it: ``key_`` and 32 hexadecimal digits."""
    return f"{_ID_PREFIX}{key_id.hex}"


def key_subject(key: StoredKey) -> str:
    """Return how a key is named in the audit log: its name and its id."""
    return f"{key.name} ({key_id_text(key.id)})"


def parse_key_id(text_of_id: str) -> UUID | None:
    """Return the id that a client means, or None for what is no id of a key."""
    digits = text_of_id.removeprefix(_ID_PREFIX)
    if digits == text_of_id or not re.fullmatch(r"[0-9a-f]{32}", digits):
        return None
    return UUID(hex=digits)
