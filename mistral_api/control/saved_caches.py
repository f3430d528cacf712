"""DATA_DIR/slots: saved caches, deleted conversations, conversation keys.

The name that a conversation goes by where its owner and its session id are not to be read.

``DATA_DIR/slots``: the saved caches, a list of them, and notes of conversations that were deleted.

A cache holds a conversation as tokens, so the folder is for its owner alone. A file counts only once the list
names it, with its size and SHA-256: whatever a killed process leaves half done is removed as a stranger. A
truncated file would not be refused by llama.cpp, it would end the process (seen with xllamacpp 2026.10).
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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistral_api.control.server_spec import MAIN_SERVER, server_file_name
from mistral_api.system.files import replace_file


def conversation_key(owner: str, session_id: str) -> str:
    """32 hexadecimal digits of SHA-256, the same in every process and in every life of the server."""
    told_apart = f"{len(owner)}:{owner}{session_id}"
    return hashlib.sha256(told_apart.encode("utf-8", "surrogatepass")).hexdigest()[:32]


log = logging.getLogger(__name__)

LIST_FILE, FORGOTTEN = "caches.json", ".forgotten"
_PIECE = 1 << 20
_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{8}\.kv")


@dataclass(frozen=True, slots=True)
class SavedCache:
    """One conversation's cache on the disk; ``seed`` marks the generation after which it was saved.

    ``used_at``: when the conversation was last continued (Unix seconds).
    """

    conversation: str
    file: str
    seed: int
    tokens: int
    bytes: int
    digest: str
    used_at: float


def slots_folder(data_dir: Path, server: str = MAIN_SERVER) -> Path:
    """Where the caches are; what llama.cpp is given as ``--slot-save-path``."""
    return data_dir / server_file_name(server, "slots")


def mark_deleted(data_dir: Path, owner: str, session_id: str) -> None:
    """Remove what is saved of a conversation, and see to it that what a slot still holds is not saved later.

    For any process. Raises OSError where the note for the supervisor cannot be left.
    """
    folder = slots_folder(data_dir)
    if folder.is_dir():
        _forget(folder, conversation_key(owner, session_id))


def delete_unused(data_dir: Path, days: int) -> None:
    """Remove what is saved of conversations that were not continued for so many days. Raises OSError."""
    folder, oldest = slots_folder(data_dir), time.time() - days * 86400
    for cache in _read_list(folder)[1]:
        if cache.used_at < oldest:
            _forget(folder, cache.conversation)


def _forget(folder: Path, key: str) -> None:
    try:
        replace_file(folder / f"{key}{FORGOTTEN}", repr(time.monotonic()))
    finally:
        for path in folder.glob(f"{key}-*.kv"):
            # Windows keeps a file that llama.cpp has open: the note has the supervisor remove it.
            with contextlib.suppress(FileNotFoundError, PermissionError):
                path.unlink()


class CacheFolder:
    """The supervisor's hold on the folder; no other process writes the list."""

    def __init__(self, data_dir: Path, server: str = MAIN_SERVER) -> None:
        self.path = slots_folder(data_dir, server)

    @property
    def slot_save_path(self) -> str:
        """With the separator at its end: llama.cpp puts a file's name right behind."""
        return f"{self.path}{os.sep}"

    def create(self) -> None:
        """Make the folder. Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def read_list(self, fingerprint: str) -> dict[str, SavedCache]:
        """The caches that were saved under this fingerprint, by conversation. Raises OSError."""
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
        """A file name that has not been used."""
        return f"{conversation}-{secrets.token_hex(4)}.kv"

    def remove(self, name: str) -> None:
        """Remove one cache's file, if it is there."""
        _remove(self.path / name)

    def remove_unlisted(self, caches: Iterable[SavedCache]) -> None:
        """Remove every cache but these, and lists that were never finished."""
        known = {each.file for each in caches}
        for path in (*self.path.glob("*.kv"), *self.path.glob(f"{LIST_FILE}.*")):
            if path.name not in known:
                _remove(path)

    def take_deletions(self) -> dict[str, float]:
        """The conversations that were deleted since it was asked last, and when (monotonic)."""
        found = {}
        for path in self.path.glob(f"*{FORGOTTEN}"):
            try:
                found[path.stem] = float(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                found[path.stem] = time.monotonic()
            _remove(path)
        return found

    def measure(self, name: str, deadline: float) -> tuple[int, str]:
        """A file's size and SHA-256. Raises OSError, TimeoutError (one of them) past the deadline (monotonic)."""
        digest, size = hashlib.sha256(), 0
        with (self.path / name).open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                size += len(piece)
                if time.monotonic() > deadline:
                    raise TimeoutError("no time left")
        return size, digest.hexdigest()

    def free_bytes(self) -> int:
        """What the disk still takes. Raises OSError."""
        return shutil.disk_usage(self.path).free

    def clear(self) -> None:
        """Remove everything."""
        for path in self.path.glob("*"):
            _remove(path)


def _read_list(folder: Path) -> tuple[str, list[SavedCache]]:
    """The fingerprint and the caches; none where there is no list, or one that makes no sense. Raises OSError."""
    try:
        content = json.loads((folder / LIST_FILE).read_text(encoding="utf-8"))
        return str(content["fingerprint"]), [_saved_cache(fields) for fields in content["caches"]]
    except FileNotFoundError:
        return "", []
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("the list of saved caches makes no sense, none is used: %r", error)
        return "", []


def _saved_cache(fields: dict[str, Any]) -> SavedCache:
    cache = SavedCache(**fields)
    numbers = cache.seed, cache.tokens, cache.bytes
    sensible = (
        all(isinstance(number, int) and number >= 0 for number in numbers)
        and cache.tokens > 0
        and float(cache.used_at) >= 0
    )
    if not (sensible and _NAME.fullmatch(cache.file) and cache.file.startswith(f"{cache.conversation}-")):
        raise ValueError(f"not a saved cache: {cache}")
    return cache


def _remove(path: Path) -> None:
    """A file that cannot be removed now (Windows keeps one that is open) is a stranger, and removed later."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.debug("%s is not removed: %s", path, error)
