"""The journal: a local SQLite file that holds every exchange until PostgreSQL has it.

SQLite runs in WAL mode (sqlite.org/wal.html): a committed row survives ``kill -9`` of the process at any instant, and
several processes may share the file. With JOURNAL_SYNC=normal a power failure may cost the last moments, for commits
without fsync; with full it costs nothing that a client has seen the end of.

Requests write through :class:`Journal`, those of the same moment in one transaction (``recording.group_commit``). The
writer reads through ``recording.backlog``.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from mistral_api.recording.exchange import Exchange
from mistral_api.recording.group_commit import BUSY_TIMEOUT_SECONDS, Change, GroupCommit, transaction
from mistral_api.recording.journal_repair import replace_damaged
from mistral_api.recording.stored_object import object_key_of

JOURNAL_FILE = "journal.sqlite3"
# Beside it: held by the process that delivers.
WRITER_LOCK_FILE = "writer.lock"
VERSION = 3
MAX_IDLE_WAL_BYTES = 64 << 20

# exchanges: the opening of each request. AUTOINCREMENT never uses a position twice, so that a late write cannot reach
# another request. checkpoints: the outcome so far of a request that is being streamed. endings: the outcome; an
# exchange with an ending waits for PostgreSQL, in the order of ``ended_at``. rejected: what PostgreSQL will never take.
# ``session`` and ``object`` are the keys by which readers find what is pending. They stand before the blobs: SQLite
# then need not read a blob to get at a key.
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS exchanges "
    "(position INTEGER PRIMARY KEY AUTOINCREMENT, process TEXT NOT NULL, session TEXT, opening BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS checkpoints (position INTEGER PRIMARY KEY, outcome BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS endings "
    "(position INTEGER PRIMARY KEY, ended_at REAL NOT NULL, session TEXT, object TEXT, outcome BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS endings_ended_at ON endings (ended_at)",
    "CREATE INDEX IF NOT EXISTS endings_session ON endings (session, ended_at) WHERE session IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS endings_object ON endings (object, ended_at) WHERE object IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS rejected "
    "(id INTEGER PRIMARY KEY, reason TEXT NOT NULL, rejected_at REAL NOT NULL, opening BLOB NOT NULL, "
    "outcome BLOB NOT NULL)",
)
_FROM_FIRST_VERSION = (
    "INSERT INTO exchanges SELECT position, '', session, payload FROM old_exchanges",
    "INSERT INTO endings SELECT position, written_at, session, NULL, payload FROM old_exchanges",
    "INSERT INTO rejected SELECT position, reason, rejected_at, payload, payload FROM old_rejected",
    "DROP TABLE old_exchanges",
    "DROP TABLE old_rejected",
)
_FROM_SECOND_VERSION = (
    "INSERT INTO endings (position, ended_at, outcome) SELECT position, ended_at, outcome FROM old_endings",
    "DROP TABLE old_endings",
)
# The keys of endings that were written without them; ``object`` as by stored_object.object_key_of.
_FILL_KEYS = (
    "UPDATE endings SET session = (SELECT session FROM exchanges WHERE exchanges.position = endings.position), object ="
    " (SELECT json_extract(opening, '$.storing.object') || char(10) || "
    "json_extract(opening, '$.owner') || char(10) || json_extract(ending, '$.stored.id') FROM "
    "(SELECT CAST(exchanges.opening AS TEXT) AS opening, CAST(endings.outcome AS TEXT) AS ending FROM exchanges "
    "WHERE exchanges.position = endings.position) WHERE json_valid(opening) AND json_valid(ending)) "
    "WHERE session IS NULL AND object IS NULL"
)

# The moment of an ending that is later than all that wait: the order in which exchanges ended, also after the clock was
# set back. (Unix seconds; a float tells microseconds apart.)
ENDED_AT = "max(?, coalesce((SELECT max(ended_at) + 0.000001 FROM endings), 0))"

_BEGIN = "INSERT INTO exchanges (process, session, opening) VALUES (?, ?, ?)"
_END = f"INSERT INTO endings (position, ended_at, session, object, outcome) VALUES (?, {ENDED_AT}, ?, ?, ?)"
# Only while the exchange is open: it may have ended, and even have been delivered, in the meantime.
_CHECKPOINT = (
    "INSERT OR REPLACE INTO checkpoints (position, outcome) SELECT position, ? FROM exchanges WHERE position = ? "
    "AND NOT EXISTS (SELECT 1 FROM endings WHERE endings.position = exchanges.position)"
)
_DELETE_OPENING = "DELETE FROM exchanges WHERE position = ?"
_PENDING_SESSION = "SELECT 1 FROM endings WHERE session = ? LIMIT 1"
_PENDING_OBJECT = "SELECT 1 FROM endings WHERE object = ? LIMIT 1"
_LAST_PENDING = "SELECT max(ended_at) FROM endings"
_PENDING_UP_TO = "SELECT 1 FROM endings WHERE ended_at <= ? LIMIT 1"


class Journal:
    """The journal's file, for requests. Several threads and several processes may use it at once."""

    def __init__(self, path: Path, process: str, *, synced: bool = False) -> None:
        """Open a prepared journal; ``process`` is the name of this process. Raises sqlite3.Error.

        ``synced``: what is written is on the disk when a method returns, and survives a power failure. Otherwise it
        survives the end of the process.
        """
        self._process = process
        self.path = path
        self.synced = synced
        self._writes = GroupCommit(connect(path, synced=synced), synced=synced)
        self._lock = threading.Lock()
        # For reading: no reader waits for a write, and none holds one up.
        self._connection = connect(path)

    def begin(self, exchange: Exchange) -> int:
        """Write the opening of an exchange and return its position. It is durable when this returns.

        Raises sqlite3.Error.
        """
        opening = self._opening_of(exchange)
        return self._writes.write(_insert_opening(opening), size=len(opening[-1]))

    def _opening_of(self, exchange: Exchange) -> tuple[str, str | None, bytes]:
        return self._process, _session_key_of(exchange), exchange.opening()

    def end(self, position: int, exchange: Exchange) -> None:
        """Write the outcome of an exchange. It is durable when this returns. Raises sqlite3.Error."""
        row = _ending(position, exchange)

        def insert(connection: sqlite3.Connection) -> int:
            connection.execute(_END, row)
            return position

        self._writes.write(insert, size=len(row[-1]))

    def add(self, exchange: Exchange) -> None:
        """Write an exchange that has ended already, both parts or none. Raises sqlite3.Error."""
        opening, ending = self._opening_of(exchange), _ending(None, exchange)
        begin = _insert_opening(opening)

        def insert(connection: sqlite3.Connection) -> int:
            position = begin(connection)
            connection.execute(_END, (position, *ending[1:]))
            return position

        self._writes.write(insert, single=False, size=len(opening[-1]) + len(ending[-1]))

    def write_checkpoints(self, outcomes: Sequence[tuple[int, bytes]]) -> None:
        """Write outcomes so far, each with its position. Raises sqlite3.Error."""
        rows = [(outcome, position) for position, outcome in outcomes]
        self._writes.write(lambda connection: connection.executemany(_CHECKPOINT, rows).rowcount, single=False)

    def has_pending_session(self, owner: str, session_id: str) -> bool:
        """Return whether a finished exchange of a session waits for PostgreSQL. Raises sqlite3.Error."""
        with self._lock:
            row = self._connection.execute(_PENDING_SESSION, (session_key(owner, session_id),)).fetchone()
        return row is not None

    def has_pending_object(self, key: str) -> bool:
        """Return whether a stored object waits for PostgreSQL; ``key`` is its ``object_key``. Raises sqlite3.Error."""
        with self._lock:
            return self._connection.execute(_PENDING_OBJECT, (key,)).fetchone() is not None

    def last_ending(self) -> float | None:
        """Return when the newest exchange that waits ended (Unix seconds), or None. Raises sqlite3.Error."""
        with self._lock:
            (ended_at,) = self._connection.execute(_LAST_PENDING).fetchone()
        return None if ended_at is None else float(ended_at)

    def has_pending_up_to(self, ended_at: float) -> bool:
        """Return whether an exchange that ended by then waits for PostgreSQL. Raises sqlite3.Error."""
        with self._lock:
            return self._connection.execute(_PENDING_UP_TO, (ended_at,)).fetchone() is not None

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
        begin = _insert_opening((self._process, None, bytes(8192)))
        self._writes.write(
            lambda connection: connection.execute(_DELETE_OPENING, (begin(connection),)).rowcount, single=False
        )

    def close(self) -> None:
        """Close the file. Exchanges that still wait are delivered after the next start."""
        self._writes.close()
        with self._lock:
            self._connection.close()


def _insert_opening(row: tuple[str, str | None, bytes]) -> Change:
    """Return the change that inserts an opening; its result is the position."""

    def insert(connection: sqlite3.Connection) -> int:
        position = connection.execute(_BEGIN, row).lastrowid
        assert position is not None  # noqa: S101 - an INSERT always has one
        return position

    return insert


def _ending(position: int | None, exchange: Exchange) -> tuple[int | None, float, str | None, str | None, bytes]:
    return position, time.time(), _session_key_of(exchange), object_key_of(exchange), exchange.outcome()


def _session_key_of(exchange: Exchange) -> str | None:
    """Return the key of an exchange's session, or None: without text it is no part of a conversation."""
    in_conversation = exchange.session_id and exchange.messages is not None
    return session_key(exchange.owner, exchange.session_id or "") if in_conversation else None


def session_key(owner: str, session_id: str) -> str:
    """Return the value that stands for an owner's session in the column ``session``."""
    return f"{owner}\n{session_id}"


def connect(path: Path, *, synced: bool = False) -> sqlite3.Connection:
    """Open a connection in autocommit mode. Several threads may share it under a lock of their own.

    ``synced``: each commit waits for the disk (sqlite.org/pragma.html#pragma_synchronous; in WAL mode EXTRA is FULL).
    """
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
    if synced:
        connection.execute("PRAGMA fullfsync=1")  # macOS: an fsync that the disk's own cache heeds
    # The checkpoint thread moves the WAL into the file, so that no request pays for the fsync.
    connection.execute("PRAGMA wal_autocheckpoint=0")
    # The WAL's file keeps its size when it is begun anew, but for what is beyond this.
    connection.execute(f"PRAGMA journal_size_limit={MAX_IDLE_WAL_BYTES}")
    return connection


def prepare_journal(folder: Path, *, alone: bool) -> Path:
    """Create the journal where it is missing, and return its path.

    ``alone`` says that no other process has the journal open. Then a damaged one is replaced by what can still be read
    of it. Raises OSError or sqlite3.Error where the folder cannot be written.
    """
    path = folder / JOURNAL_FILE
    if alone and path.exists() and replace_damaged(path, _create):
        with closing(connect(path)) as connection:
            connection.execute(_FILL_KEYS)
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
    """Create the tables, and move the rows of a journal of an earlier version into them.

    The first version had one payload for each exchange, the second no keys in ``endings``.
    """
    earlier = _earlier_version(connection)
    if earlier == 1:
        connection.execute("DROP INDEX exchanges_session")
        _rename_tables(connection, "exchanges", "rejected")
    elif earlier == 2:
        connection.execute("DROP INDEX endings_ended_at")
        connection.execute("DROP INDEX exchanges_session")
        _rename_tables(connection, "endings")
    for statement in _SCHEMA:
        connection.execute(statement)
    for statement in {1: _FROM_FIRST_VERSION, 2: _FROM_SECOND_VERSION}.get(earlier, ()):
        connection.execute(statement)
    connection.execute(_FILL_KEYS)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _earlier_version(connection: sqlite3.Connection) -> int:
    """Return the version of the tables that are there, 0 where there are none. The first one did not note its own."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    payload = connection.execute("SELECT 1 FROM pragma_table_info('exchanges') WHERE name = 'payload'").fetchone()
    return 1 if payload else int(version)


def _rename_tables(connection: sqlite3.Connection, *tables: str) -> None:
    for table in tables:
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
