"""The journal: a local SQLite file that holds every exchange until PostgreSQL has it.

SQLite runs in WAL mode (sqlite.org/wal.html): a committed row survives ``kill -9`` of the process at any instant, and
several processes may share the file. ``synchronous=NORMAL`` gives up the last moments before a power failure for a
commit without fsync.

Requests write through :class:`Journal`. The writer reads through ``recording.backlog``.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mistral_api.recording.exchange import Exchange
from mistral_api.recording.journal_repair import replace_damaged

JOURNAL_FILE = "journal.sqlite3"
# Beside it: held by the process that delivers.
WRITER_LOCK_FILE = "writer.lock"
BUSY_TIMEOUT_SECONDS = 5.0
VERSION = 2

# exchanges: the opening of each request. AUTOINCREMENT never uses a position twice, so that a late write cannot reach
# another request. checkpoints: the outcome so far of a request that is being streamed. endings: the outcome; an
# exchange with an ending waits for PostgreSQL. rejected: what PostgreSQL will never take.
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

_BEGIN = "INSERT INTO exchanges (process, session, opening) VALUES (?, ?, ?)"
_END = "INSERT INTO endings (position, ended_at, outcome) VALUES (?, ?, ?)"
# Only while the exchange is open: it may have ended, and even have been delivered, in the meantime.
_CHECKPOINT = (
    "INSERT OR REPLACE INTO checkpoints (position, outcome) SELECT position, ? FROM exchanges WHERE position = ? "
    "AND NOT EXISTS (SELECT 1 FROM endings WHERE endings.position = exchanges.position)"
)
_PENDING_SESSION = (
    "SELECT 1 FROM exchanges JOIN endings ON endings.position = exchanges.position WHERE exchanges.session = ? LIMIT 1"
)
_LAST_PENDING = "SELECT max(position) FROM endings"
_PENDING_UP_TO = "SELECT 1 FROM endings WHERE position <= ? LIMIT 1"


class Journal:
    """The journal's file, for requests. Several threads and several processes may use it at once."""

    def __init__(self, path: Path, process: str) -> None:
        """Open a prepared journal; ``process`` is the name of this process. Raises sqlite3.Error."""
        self._process = process
        self.path = path
        self._lock = threading.Lock()
        self._connection = connect(path)

    def begin(self, exchange: Exchange) -> int:
        """Write the opening of an exchange and return its position. It is durable when this returns.

        Raises sqlite3.Error.
        """
        row = self._begin_parameters(exchange)
        with self._lock:
            position = self._connection.execute(_BEGIN, row).lastrowid
        assert position is not None  # noqa: S101 - an INSERT always has one
        return position

    def _begin_parameters(self, exchange: Exchange) -> tuple[str, str | None, bytes]:
        session = session_key(exchange.owner, exchange.session_id) if exchange.session_id else None
        return self._process, session, exchange.opening()

    def end(self, position: int, exchange: Exchange) -> None:
        """Write the outcome of an exchange. It is durable when this returns. Raises sqlite3.Error."""
        row = (position, time.time(), exchange.outcome())
        with self._lock:
            self._connection.execute(_END, row)

    def add(self, exchange: Exchange) -> None:
        """Write an exchange that has ended already, in one transaction. Raises sqlite3.Error."""
        opening, outcome = self._begin_parameters(exchange), exchange.outcome()
        with self._lock, transaction(self._connection):
            position = self._connection.execute(_BEGIN, opening).lastrowid
            self._connection.execute(_END, (position, time.time(), outcome))

    def write_checkpoints(self, outcomes: Sequence[tuple[int, bytes]]) -> None:
        """Write outcomes so far, each with its position. Raises sqlite3.Error."""
        with self._lock, transaction(self._connection):
            self._connection.executemany(_CHECKPOINT, [(outcome, position) for position, outcome in outcomes])

    def has_pending_session(self, owner: str, session_id: str) -> bool:
        """Return whether a finished exchange of a session waits for PostgreSQL. Raises sqlite3.Error."""
        with self._lock:
            row = self._connection.execute(_PENDING_SESSION, (session_key(owner, session_id),)).fetchone()
        return row is not None

    def last_pending_position(self) -> int | None:
        """Return the highest position that waits for PostgreSQL, or None where none does. Raises sqlite3.Error."""
        with self._lock:
            (position,) = self._connection.execute(_LAST_PENDING).fetchone()
        return None if position is None else int(position)

    def has_pending_up_to(self, position: int) -> bool:
        """Return whether any position up to this one waits for PostgreSQL. Raises sqlite3.Error."""
        with self._lock:
            return self._connection.execute(_PENDING_UP_TO, (position,)).fetchone() is not None

    def pending(self) -> tuple[int, float | None]:
        """Return how many exchanges wait, and when the oldest of them ended (Unix seconds). Raises sqlite3.Error."""
        with self._lock:
            count, oldest = self._connection.execute("SELECT count(*), min(ended_at) FROM endings").fetchone()
        return count, oldest

    def rejected(self) -> int:
        """Return how many exchanges PostgreSQL will never take. Raises sqlite3.Error."""
        with self._lock:
            (count,) = self._connection.execute("SELECT count(*) FROM rejected").fetchone()
        return int(count)

    def require_writable(self) -> None:
        """Write a row and delete it again. Raises sqlite3.Error where the disk does not take it."""
        with self._lock, transaction(self._connection):
            row = self._connection.execute(_BEGIN, (self._process, None, bytes(8192)))
            self._connection.execute("DELETE FROM exchanges WHERE position = ?", (row.lastrowid,))

    def close(self) -> None:
        """Close the file. Exchanges that still wait are delivered after the next start."""
        with self._lock:
            self._connection.close()


def session_key(owner: str, session_id: str) -> str:
    """Return the value that stands for an owner's session in the column ``session``."""
    return f"{owner}\n{session_id}"


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection in autocommit mode. Several threads may share it under a lock of their own."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=NORMAL")
    # The checkpoint thread moves the WAL into the file, so that no request pays for the fsync.
    connection.execute("PRAGMA wal_autocheckpoint=0")
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done in the block, or roll all of it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself where the disk is full
            connection.execute("ROLLBACK")
        raise


def prepare_journal(folder: Path, *, alone: bool) -> Path:
    """Create the journal where it is missing, and return its path.

    ``alone`` says that no other process has the journal open. Then a damaged one is replaced by what can still be read
    of it. Raises OSError or sqlite3.Error where the folder cannot be written.
    """
    path = folder / JOURNAL_FILE
    if alone and path.exists():
        replace_damaged(path, _create)
    _create(path)
    return path


def _create(path: Path) -> None:
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    try:
        # Lets the file shrink after a long outage. SQLite heeds it only before the first table.
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        with transaction(connection):
            if connection.execute("PRAGMA user_version").fetchone() != (VERSION,):
                _create_tables(connection)
    finally:
        connection.close()


def _create_tables(connection: sqlite3.Connection) -> None:
    """Create the tables, and move the rows of a journal of the first version, one payload each, into them."""
    first_version = connection.execute("SELECT 1 FROM pragma_table_info('exchanges') WHERE name = 'payload'").fetchone()
    if first_version:
        connection.execute("DROP INDEX exchanges_session")
        for table in ("exchanges", "rejected"):
            connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in _SCHEMA:
        connection.execute(statement)
    if first_version:
        for statement in _FROM_FIRST_VERSION:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
