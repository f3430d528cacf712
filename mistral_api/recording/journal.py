"""The journal: exchanges on the local disk until PostgreSQL has them.

SQLite in WAL mode (sqlite.org/wal.html): a committed row survives ``kill -9`` of the process at any
instant, and several processes may share the file. ``synchronous=NORMAL`` trades the last moments
before a power failure for a commit without fsync.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from mistral_api.exchange import Exchange

_SCHEMA = """
CREATE TABLE IF NOT EXISTS exchanges (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    session TEXT,
    written_at REAL NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS exchanges_session ON exchanges (session);
CREATE TABLE IF NOT EXISTS rejected (
    position INTEGER PRIMARY KEY,
    reason TEXT NOT NULL,
    rejected_at REAL NOT NULL,
    payload BLOB NOT NULL
);
"""

BUSY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One journaled exchange that PostgreSQL does not have yet."""

    position: int
    payload: bytes


def session_key(owner: str, session_id: str) -> str:
    """How a session of an owner is written in the journal."""
    return f"{owner}\n{session_id}"


class Journal:
    """The exchanges that wait for PostgreSQL, oldest first. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        """Open the journal, making the folder if need be. Raises OSError or sqlite3.Error."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / "journal.sqlite3"
        path.touch(mode=0o600)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(_SCHEMA)

    def append(self, exchange: Exchange) -> None:
        """Add an exchange; it is safe when this returns. Raises sqlite3.Error."""
        session = session_key(exchange.owner, exchange.session_id) if exchange.session_id else None
        with self._lock:
            self._connection.execute(
                "INSERT INTO exchanges (session, written_at, payload) VALUES (?, ?, ?)",
                (session, time.time(), exchange.to_bytes()),
            )

    def oldest(self, limit: int) -> list[Entry]:
        """The entries that have waited longest."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT position, payload FROM exchanges ORDER BY position LIMIT ?", (limit,)
            ).fetchall()
        return [Entry(position, payload) for position, payload in rows]

    def remove(self, entries: list[Entry]) -> None:
        """Forget entries that PostgreSQL has committed."""
        with self._lock:
            self._connection.execute("BEGIN")
            self._connection.executemany(
                "DELETE FROM exchanges WHERE position = ?", [(entry.position,) for entry in entries]
            )
            self._connection.execute("COMMIT")

    def reject(self, entry: Entry, reason: str) -> None:
        """Set an entry aside that PostgreSQL will never take; it stays readable with the reason."""
        with self._lock:
            self._connection.execute("BEGIN")
            self._connection.execute(
                "INSERT OR IGNORE INTO rejected (position, reason, rejected_at, payload) VALUES (?, ?, ?, ?)",
                (entry.position, reason, time.time(), entry.payload),
            )
            self._connection.execute("DELETE FROM exchanges WHERE position = ?", (entry.position,))
            self._connection.execute("COMMIT")

    def has_session(self, owner: str, session_id: str) -> bool:
        """Whether anything of a session still waits."""
        with self._lock:
            row = self._connection.execute(
                "SELECT 1 FROM exchanges WHERE session = ? LIMIT 1", (session_key(owner, session_id),)
            ).fetchone()
        return row is not None

    def pending(self) -> tuple[int, float | None]:
        """How many entries wait, and since when the oldest does (Unix seconds)."""
        with self._lock:
            count, oldest = self._connection.execute("SELECT count(*), min(written_at) FROM exchanges").fetchone()
        return count, oldest

    def close(self) -> None:
        """Close the file. What still waits is delivered after the next start."""
        with self._lock:
            self._connection.close()
