"""The journal: tables, connections, writes of a request.

The journal's file: its tables, how connections to it behave, and what happens when it is damaged.

SQLite in WAL mode (sqlite.org/wal.html): a committed row survives ``kill -9`` of the process at any
instant, and several processes may share the file. ``synchronous=NORMAL`` trades the last moments
before a power failure for a commit without fsync.

The journal, as requests see it: what they were asked, how far they are, how they ended.
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


def prepare_journal(folder: Path, *, alone: bool) -> Path:
    """Make the journal where it is missing; replace a damaged one by what can be read of it, if ``alone``.

    ``alone``: no other process has it open. Answers its path. Raises OSError or sqlite3.Error where the
    folder cannot be written.
    """
    path = folder / JOURNAL_FILE
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


_BEGIN = "INSERT INTO exchanges (process, session, opening) VALUES (?, ?, ?)"
_END = "INSERT INTO endings (position, ended_at, outcome) VALUES (?, ?, ?)"
# Only while the exchange is open: it may have ended, and even have been delivered, in the meantime.
_CHECKPOINT = (
    "INSERT OR REPLACE INTO checkpoints (position, outcome) SELECT position, ? FROM exchanges WHERE position = ? "
    "AND NOT EXISTS (SELECT 1 FROM endings WHERE endings.position = exchanges.position)"
)
_WAITING = (
    "SELECT 1 FROM exchanges JOIN endings ON endings.position = exchanges.position WHERE exchanges.session = ? LIMIT 1"
)

_LAST = "SELECT max(position) FROM endings"
_UP_TO = "SELECT 1 FROM endings WHERE position <= ? LIMIT 1"


def session_key(owner: str, session_id: str) -> str:
    """How a session of an owner is written in the journal."""
    return f"{owner}\n{session_id}"


class Journal:
    """The journal's file, for requests. Safe to use from several threads and several processes."""

    def __init__(self, path: Path, process: str) -> None:
        """Open a prepared journal for the process of that name. Raises sqlite3.Error."""
        self._process = process
        self._lock = threading.Lock()
        self._connection = connect(path)

    def begin(self, exchange: Exchange) -> int:
        """Write down what a request asks for; answer its position. It is safe when this returns.

        Raises sqlite3.Error.
        """
        row = self._begin_parameters(exchange)
        with self._lock:
            position = self._connection.execute(_BEGIN, row).lastrowid
        assert position is not None  # noqa: S101 - an INSERT always has one
        return position

    def _begin_parameters(self, exchange: Exchange) -> tuple[str, str | None, bytes]:
        """The parameters of ``_BEGIN``."""
        session = session_key(exchange.owner, exchange.session_id) if exchange.session_id else None
        return self._process, session, exchange.opening()

    def end(self, position: int, exchange: Exchange) -> None:
        """Write down how a request ended. It is safe when this returns. Raises sqlite3.Error."""
        row = (position, time.time(), exchange.outcome())
        with self._lock:
            self._connection.execute(_END, row)

    def add(self, exchange: Exchange) -> None:
        """Write down, all or nothing, a request that has ended already. Raises sqlite3.Error."""
        opening, outcome = self._begin_parameters(exchange), exchange.outcome()
        with self._lock, transaction(self._connection):
            position = self._connection.execute(_BEGIN, opening).lastrowid
            self._connection.execute(_END, (position, time.time(), outcome))

    def checkpoint(self, outcomes: Sequence[tuple[int, bytes]]) -> None:
        """Write down how far requests are, by position. Raises sqlite3.Error."""
        with self._lock, transaction(self._connection):
            self._connection.executemany(_CHECKPOINT, [(outcome, position) for position, outcome in outcomes])

    def has_pending_session(self, owner: str, session_id: str) -> bool:
        """Whether anything that was said in a session waits for PostgreSQL. Raises sqlite3.Error."""
        with self._lock:
            row = self._connection.execute(_WAITING, (session_key(owner, session_id),)).fetchone()
        return row is not None

    def last_pending_position(self) -> int | None:
        """The highest position among those that wait for PostgreSQL, if any does. Raises sqlite3.Error."""
        with self._lock:
            (position,) = self._connection.execute(_LAST).fetchone()
        return None if position is None else int(position)

    def has_pending_up_to(self, position: int) -> bool:
        """Whether anything up to a position waits for PostgreSQL. Raises sqlite3.Error."""
        with self._lock:
            return self._connection.execute(_UP_TO, (position,)).fetchone() is not None

    def pending(self) -> tuple[int, float | None]:
        """How many ended exchanges wait, and since when the oldest does (Unix seconds). Raises sqlite3.Error."""
        with self._lock:
            count, oldest = self._connection.execute("SELECT count(*), min(ended_at) FROM endings").fetchone()
        return count, oldest

    def rejected(self) -> int:
        """How many exchanges are set aside. Raises sqlite3.Error."""
        with self._lock:
            (count,) = self._connection.execute("SELECT count(*) FROM rejected").fetchone()
        return int(count)

    def require_writable(self) -> None:
        """Write something that changes nothing. Raises sqlite3.Error where the disk does not take it."""
        with self._lock, transaction(self._connection):
            row = self._connection.execute(_BEGIN, (self._process, None, bytes(8192)))
            self._connection.execute("DELETE FROM exchanges WHERE position = ?", (row.lastrowid,))

    def close(self) -> None:
        """Close the file. What still waits is delivered after the next start."""
        with self._lock:
            self._connection.close()
