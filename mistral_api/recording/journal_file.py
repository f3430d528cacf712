"""The journal's file: its tables, how connections to it behave, and what happens when it is damaged.

SQLite in WAL mode (sqlite.org/wal.html): a committed row survives ``kill -9`` of the process at any
instant, and several processes may share the file. ``synchronous=NORMAL`` trades the last moments
before a power failure for a commit without fsync.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from mistral_api.recording.salvage import replace_damaged

NAME = "journal.sqlite3"
BUSY_SECONDS = 5.0

# exchanges: what was known at the start of a request; a position is never used twice, so that what is written
# late can never get to another request. checkpoints: what its answer had come to, while it
# is streamed. endings: how it ended; an exchange with an ending waits for PostgreSQL.
_SCHEMA = (
    "CREATE TABLE exchanges "
    "(position INTEGER PRIMARY KEY AUTOINCREMENT, process TEXT NOT NULL, session TEXT, opening BLOB NOT NULL)",
    "CREATE INDEX exchanges_session ON exchanges (session) WHERE session IS NOT NULL",
    "CREATE TABLE checkpoints (position INTEGER PRIMARY KEY, outcome BLOB NOT NULL)",
    "CREATE TABLE endings (position INTEGER PRIMARY KEY, ended_at REAL NOT NULL, outcome BLOB NOT NULL)",
    "CREATE INDEX endings_ended_at ON endings (ended_at)",
    "CREATE TABLE rejected "
    "(id INTEGER PRIMARY KEY, reason TEXT NOT NULL, rejected_at REAL NOT NULL, opening BLOB NOT NULL, "
    "outcome BLOB NOT NULL)",
)
_FROM_FIRST_VERSION = (
    "INSERT INTO exchanges SELECT position, '', session, payload FROM old_exchanges",
    "INSERT INTO endings SELECT position, written_at, payload FROM old_exchanges",
    "INSERT INTO rejected SELECT position, reason, rejected_at, payload, payload FROM old_rejected",
    "DROP TABLE old_exchanges",
    "DROP TABLE old_rejected",
)
VERSION = 2


def prepare(folder: Path, *, alone: bool) -> Path:
    """Make the journal where it is missing; replace a damaged one by what can be read of it, if ``alone``.

    ``alone``: no other process has it open. Answers its path. Raises OSError or sqlite3.Error where the
    folder cannot be written.
    """
    path = folder / NAME
    if alone and path.exists():
        replace_damaged(path, _make)
    _make(path)
    return path


def _make(path: Path) -> None:
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        # Lets the file become smaller again after a long outage; only heeded before the first table.
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        with transaction(connection):
            if connection.execute("PRAGMA user_version").fetchone() != (VERSION,):
                _make_tables(connection)
    finally:
        connection.close()


def _make_tables(connection: sqlite3.Connection) -> None:
    """Make the tables; what the first version of the journal held, one payload a row, moves into them."""
    old = connection.execute("SELECT 1 FROM pragma_table_info('exchanges') WHERE name = 'payload'").fetchone()
    if old:
        connection.execute("DROP INDEX exchanges_session")
        for table in ("exchanges", "rejected"):
            connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in _SCHEMA:
        connection.execute(statement)
    if old:
        for statement in _FROM_FIRST_VERSION:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, for use by several threads under a lock of theirs."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=NORMAL")
    # The checkpointer moves the WAL into the file, so that no request pays for the fsync.
    connection.execute("PRAGMA wal_autocheckpoint=0")
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing of what is done within."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself where the disk is full
            connection.execute("ROLLBACK")
        raise
