"""The mirror of the API keys in DATA_DIR: hashes, by which a server that starts without PostgreSQL knows its callers.

It also says that no key exists, where that is so: without such a word nobody is let in without a key. It is of one
database; what it says about another one does not count. ADMIN_API_KEY is not in it.

A DATA_DIR that is new gets a mirror with null instead of keys: no server with this DATA_DIR has ever known any. Once
one has, ``had_keys`` says so in every later mirror, also in that of another database.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from mistral_api.security.api_key import ApiKey, KeyLimits, KeyRecord, SecretDigest
from mistral_api.system.files import ReplacedFile, make_data_dir, replace_file

log = logging.getLogger(__name__)

FILE_NAME = "api-keys.json"
_VERSION = 1


class KeyMirror:
    """The file of one DATA_DIR. Every API process on it writes the same, and replaces what another wrote too late."""

    def __init__(self, data_dir: Path, database: str) -> None:
        """``database`` is what :func:`~mistral_api.database.engine.database_fingerprint` returns.

        ``is_keyless``: no database that this DATA_DIR was used with has had a key, as far as is known.
        """
        self.path = data_dir / FILE_NAME
        self._database = database
        self.is_keyless = False
        self._had_keys = False
        self._file: ReplacedFile[str | None] = ReplacedFile(self.path, self._text, None)

    def read(self) -> list[KeyRecord] | None:
        """Return the keys as they were last known, or None where the file says nothing about this database."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found["version"] != _VERSION or found["database"] != self._database:
                return None
            return None if found["keys"] is None else [_record(each) for each in found["keys"]]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the mirror of the API keys '%s' cannot be read: %s", self.path, error)
            return None

    def begin(self) -> None:
        """Note whether DATA_DIR has seen no key: it is new, or its mirror says so. Called before anything is recorded.

        Without a mirror it is new where it has no journal. Then it gets one.
        """
        if self.path.exists():
            self.is_keyless = _has_no_key(self._text())
        elif not (self.path.parent / "journal").exists():
            self.is_keyless = True
            self._write_new()

    def _write_new(self) -> None:
        try:
            make_data_dir(self.path.parent)
            replace_file(self.path, json.dumps({"version": _VERSION, "database": self._database, "keys": None}) + "\n")
        except OSError as error:
            log.warning("the mirror of the API keys cannot be written: %s", error)

    def write(self, records: Iterable[KeyRecord]) -> None:
        """Have the file say this. It is looked at each time, and written where it says something else.

        Raises OSError.
        """
        keys = [_entry(record) for record in records]
        current = self._file.current()
        self._had_keys = self._had_keys or bool(keys) or _has_had_a_key(current)
        content = self._content(keys)
        if current != content:
            replace_file(self.path, content)
        self.is_keyless = not self._had_keys

    def _content(self, keys: list[dict[str, Any]]) -> str:
        had_keys = {"had_keys": True} if self._had_keys else {}
        mirror = {"version": _VERSION, "database": self._database, **had_keys, "keys": keys}
        return json.dumps(mirror, indent=1) + "\n"

    def _text(self) -> str | None:
        try:
            return self.path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None


def _has_no_key(text: str | None) -> bool:
    """Return whether a mirror is a whole one, of whatever database, that has no keys, and had none."""
    found = _mirror(text)
    return found.get("version") == _VERSION and found.get("keys", 0) in (None, []) and not found.get("had_keys")


def _has_had_a_key(text: str | None) -> bool:
    """Return whether a mirror, of whatever database, says that there are keys, or were some."""
    found = _mirror(text)
    return bool(found.get("had_keys") or found.get("keys"))


def _mirror(text: str | None) -> dict[str, Any]:
    """Return what a mirror says, nothing for one that cannot be read."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def read_any_records(data_dir: Path) -> list[KeyRecord]:
    """Return the keys in the mirror, whatever database they are of; none where there is no mirror."""
    try:
        return [_record(each) for each in json.loads((data_dir / FILE_NAME).read_text(encoding="utf-8"))["keys"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _entry(record: KeyRecord) -> dict[str, Any]:
    key = record.key
    return {
        "id": str(key.id),
        "name": key.name,
        "owner": key.owner,
        "scopes": sorted(key.scopes),
        "limits": [
            key.limits.requests_per_minute,
            key.limits.tokens_per_minute,
            key.limits.tokens_per_day,
            key.limits.concurrent_requests,
        ],
        "expires_at": key.expires_at,
        "revoked_at": record.revoked_at,
        "secret": _secret_entry(record.secret),
        "former": None if record.former is None else _secret_entry(record.former),
    }


def _secret_entry(secret: SecretDigest) -> dict[str, Any]:
    return {"sha256": secret.digest.hex(), "prefix": secret.prefix, "valid_until": secret.valid_until}


def _record(entry: dict[str, Any]) -> KeyRecord:
    """Return what an entry of the file says. Raises KeyError, TypeError, ValueError."""
    secret = _secret(entry["secret"])
    key = ApiKey(
        UUID(entry["id"]),
        entry["name"],
        entry["owner"],
        secret.prefix,
        frozenset(entry["scopes"]),
        KeyLimits(*entry["limits"]),
        entry["expires_at"],
    )
    former = None if entry["former"] is None else _secret(entry["former"])
    return KeyRecord(key, secret, former, entry["revoked_at"])


def _secret(entry: dict[str, Any]) -> SecretDigest:
    return SecretDigest(bytes.fromhex(entry["sha256"]), entry["prefix"], entry["valid_until"])
