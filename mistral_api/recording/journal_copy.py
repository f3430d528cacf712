"""The journal as a whole: copied while others write to it, replaced by a copy, and kept from servers meanwhile."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TypedDict

from filelock import FileLock

from mistral_api.errors import StartError
from mistral_api.recording.group_commit import BUSY_TIMEOUT_SECONDS
from mistral_api.recording.journal import JOURNAL_FILE, VERSION, WRITER_LOCK_FILE, prepare_journal
from mistral_api.recording.journal_repair import find_damage
from mistral_api.system.files import move_file, remove_file
from mistral_api.system.process_lock import ProcessLock, acquire_if_free

_SIDE_FILES = ("", "-wal", "-shm")
_COUNTS = "SELECT (SELECT count(*) FROM endings), (SELECT count(*) FROM exchanges), (SELECT count(*) FROM rejected)"


class JournalCounts(TypedDict):
    """How many finished exchanges wait for PostgreSQL, how many had not ended, how many PostgreSQL never takes."""

    pending: int
    open: int
    rejected: int


@contextlib.contextmanager
def exclusive_journal(folder: Path) -> Iterator[ProcessLock]:
    """Give the lock of a process that is alone with the journal. Nothing is delivered during the block.

    A server that starts during the block journals, and its writer waits. Raises StartError where one runs already.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = ProcessLock(folder)
    except OSError as error:
        raise StartError(f"DATA_DIR: '{folder}' cannot be used: {error.strerror}.") from error
    with closing(lock):
        writer_lock = FileLock(folder / WRITER_LOCK_FILE, mode=0o600)
        if not lock.is_alone() or not acquire_if_free(writer_lock):
            raise StartError(f"A server runs on '{folder.parent}' and records into this database: stop it first.")
        try:
            yield lock
        finally:
            writer_lock.release()


def copy_journal(folder: Path, target: Path) -> JournalCounts | None:
    """Copy the journal, as it is at one instant, into a new file, and count its rows. None where there is no journal.

    Others may write meanwhile (sqlite.org/backup.html). Raises sqlite3.Error.
    """
    path = folder / JOURNAL_FILE
    if not path.exists():
        return None
    prepare_journal(folder, alone=False)  # one of an earlier version gets the tables of this one
    with closing(_connect(path)) as source, closing(_connect(target)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without the WAL beside it
        return _count(copy)


def _count(connection: sqlite3.Connection) -> JournalCounts:
    pending, begun, rejected = connection.execute(_COUNTS).fetchone()
    return {"pending": pending, "open": begun - pending, "rejected": rejected}


def has_rows(folder: Path) -> bool:
    """Return whether the journal in a folder holds anything. Raises sqlite3.Error."""
    path = folder / JOURNAL_FILE
    if not path.exists():
        return False
    prepare_journal(folder, alone=False)
    with closing(_connect(path)) as connection:
        return any(_count(connection).values())


def require_whole(path: Path) -> None:
    """Refuse a file that is damaged, or a journal of a newer version. Raises ValueError, which says why."""
    try:
        damage = find_damage(path)
        with closing(_connect(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        raise ValueError(str(error)) from error
    if damage is not None:
        raise ValueError(damage)
    if version > VERSION:
        raise ValueError(f"it is of a newer version ({version}) of this program")


def replace_journal(folder: Path, new: Path | None, lock: ProcessLock) -> Path | None:
    """Put a copy, or nothing, in the place of the journal. Return where the old one is kept, None where it was empty.

    No process can begin to use the journal meanwhile. Raises OSError, sqlite3.Error, and StartError where another
    process has come to use it.
    """
    with lock.excluding_others() as alone:
        if not alone:
            raise StartError(f"A server has been started on '{folder.parent}' meanwhile: stop it, and run this again.")
        kept = _set_aside(folder / JOURNAL_FILE) if has_rows(folder) else None
        for suffix in _SIDE_FILES:
            remove_file(folder / f"{JOURNAL_FILE}{suffix}")
        if new is not None:
            move_file(new, folder / JOURNAL_FILE)
    return kept


def _set_aside(path: Path) -> Path:
    kept = path.with_name(f"{path.name}.replaced-{time.time_ns() // 1_000_000}")
    for suffix in _SIDE_FILES:
        side = path.with_name(path.name + suffix)
        if side.exists():
            move_file(side, kept.with_name(kept.name + suffix))
    return kept


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
