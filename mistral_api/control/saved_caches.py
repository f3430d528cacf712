"""``DATA_DIR/slots``: the saved KV caches of conversations, their list, and marks of deleted conversations.

Supervisor and API share this folder. The supervisor has llama.cpp save the caches, and writes their list. An API
process that deletes a conversation removes its caches and leaves a mark, so that the supervisor does not save it
again.

A cache holds a conversation as tokens, so only the owner of DATA_DIR may read the folder. A file counts only once the
list names it with its size and SHA-256: a file that a killed process left unfinished is in no list, and is removed.
llama.cpp would not refuse a truncated file, its process would end (seen with xllamacpp 2026.10).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistral_api.control.server_spec import MAIN_SERVER, server_file_name
from mistral_api.system.files import replace_file

log = logging.getLogger(__name__)

LIST_FILE, DELETED_SUFFIX = "caches.json", ".forgotten"
_READ_BYTES = 1 << 20
_CACHE_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{8}\.kv")


@dataclass(frozen=True, slots=True)
class SavedCache:
    """The saved cache of one conversation. The field names are keys of the list.

    ``seed``: the seed of the generation after which it was saved. ``used_at``: when the conversation was last
    continued (Unix seconds).
    """

    conversation: str
    file: str
    seed: int
    tokens: int
    bytes: int
    digest: str
    used_at: float


def slots_folder(data_dir: Path, server_name: str = MAIN_SERVER) -> Path:
    """Return the folder of the caches, which llama.cpp gets as ``--slot-save-path``."""
    return data_dir / server_file_name(server_name, "slots")


def conversation_key(owner: str, session_id: str) -> str:
    """Return what a conversation is called where its owner and session id must not be readable.

    It is 32 hexadecimal digits of SHA-256: the same in every process, and after every restart.
    """
    unambiguous = f"{len(owner)}:{owner}{session_id}"
    return hashlib.sha256(unambiguous.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def mark_deleted(data_dir: Path, owner: str, session_id: str) -> None:
    """Remove the saved cache of a conversation, and prevent that its slot is saved later.

    Any process may call this. Raises OSError where the mark for the supervisor cannot be written.
    """
    folder = slots_folder(data_dir)
    if folder.is_dir():
        _delete_conversation(folder, conversation_key(owner, session_id))


def delete_unused(data_dir: Path, days: int) -> None:
    """Remove the saved caches of conversations that were not continued for so many days. Raises OSError."""
    folder, oldest = slots_folder(data_dir), time.time() - days * 86400
    for cache in _read_list(folder)[1]:
        if cache.used_at < oldest:
            _delete_conversation(folder, cache.conversation)


def _delete_conversation(folder: Path, key: str) -> None:
    try:
        replace_file(folder / f"{key}{DELETED_SUFFIX}", repr(time.monotonic()))
    finally:
        for path in folder.glob(f"{key}-*.kv"):
            # Windows keeps a file that llama.cpp has open: because of the mark, the supervisor removes it.
            with contextlib.suppress(FileNotFoundError, PermissionError):
                path.unlink()


class CacheFolder:
    """The supervisor's access to the folder. No other process writes the list."""

    def __init__(self, data_dir: Path, server_name: str = MAIN_SERVER) -> None:
        self.path = slots_folder(data_dir, server_name)

    @property
    def slot_save_path(self) -> str:
        """The folder with a separator at its end, since llama.cpp appends a file's name as it is."""
        return f"{self.path}{os.sep}"

    def create(self) -> None:
        """Create the folder. Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def read_list(self, fingerprint: str) -> dict[str, SavedCache]:
        """Return the caches that were saved under this fingerprint, by conversation. Raises OSError."""
        saved_under, caches = _read_list(self.path)
        if caches and saved_under != fingerprint:
            log.info("the saved caches are of another model or other settings, and are deleted")
            return {}
        return {each.conversation: each for each in caches}

    def write_list(self, fingerprint: str, caches: Iterable[SavedCache]) -> None:
        """Replace the list. Raises OSError."""
        content = {"fingerprint": fingerprint, "caches": [dataclasses.asdict(each) for each in caches]}
        replace_file(self.path / LIST_FILE, json.dumps(content, indent=1))

    def new_name(self, conversation: str) -> str:
        """Return a file name that has not been used."""
        return f"{conversation}-{secrets.token_hex(4)}.kv"

    def remove(self, name: str) -> None:
        """Remove one cache's file, if it is there."""
        _remove(self.path / name)

    def remove_unlisted(self, caches: Iterable[SavedCache]) -> None:
        """Remove every cache's file but these, and lists that were left unfinished."""
        known = {each.file for each in caches}
        for path in (*self.path.glob("*.kv"), *self.path.glob(f"{LIST_FILE}.*")):
            if path.name not in known:
                _remove(path)

    def take_deletions(self) -> dict[str, float]:
        """Remove the marks of deleted conversations; return each conversation and when it was deleted (monotonic)."""
        found = {}
        for path in self.path.glob(f"*{DELETED_SUFFIX}"):
            try:
                found[path.stem] = float(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                found[path.stem] = time.monotonic()
            _remove(path)
        return found

    def measure(self, name: str, deadline: float) -> tuple[int, str]:
        """Return a file's size and SHA-256. Raises OSError; past the deadline (monotonic) that is TimeoutError."""
        digest, size = hashlib.sha256(), 0
        with (self.path / name).open("rb") as file:
            while piece := file.read(_READ_BYTES):
                digest.update(piece)
                size += len(piece)
                if time.monotonic() > deadline:
                    raise TimeoutError("no time left")
        return size, digest.hexdigest()

    def free_bytes(self) -> int:
        """Return the free space of the disk. Raises OSError."""
        return shutil.disk_usage(self.path).free

    def clear(self) -> None:
        """Remove every file."""
        for path in self.path.glob("*"):
            _remove(path)


def _read_list(folder: Path) -> tuple[str, list[SavedCache]]:
    """Return the fingerprint and the caches; no caches where the list is missing or makes no sense. Raises OSError."""
    try:
        content = json.loads((folder / LIST_FILE).read_text(encoding="utf-8"))
        return str(content["fingerprint"]), [_parse_cache(fields) for fields in content["caches"]]
    except FileNotFoundError:
        return "", []
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("the list of saved caches makes no sense, none is used: %r", error)
        return "", []


def _parse_cache(fields: Mapping[str, Any]) -> SavedCache:
    """Read one entry of the list. Raises ValueError or TypeError for one that makes no sense."""
    cache = SavedCache(**fields)
    numbers = cache.seed, cache.tokens, cache.bytes
    sensible = (
        all(isinstance(number, int) and number >= 0 for number in numbers)
        and cache.tokens > 0
        and float(cache.used_at) >= 0
    )
    if not (sensible and _CACHE_NAME.fullmatch(cache.file) and cache.file.startswith(f"{cache.conversation}-")):
        raise ValueError(f"not a saved cache: {cache}")
    return cache


def _remove(path: Path) -> None:
    """Remove a file. Windows keeps one that is open: it is in no list then, and is removed later."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.debug("%s is not removed: %s", path, error)
