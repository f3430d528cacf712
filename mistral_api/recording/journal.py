"""The journal, as requests see it: what they were asked, how far they are, how they ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from mistral_api.exchange import Exchange
from mistral_api.recording.journal_file import connect, transaction

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
        row = self._opening(exchange)
        with self._lock:
            position = self._connection.execute(_BEGIN, row).lastrowid
        assert position is not None  # noqa: S101 - an INSERT always has one
        return position

    def _opening(self, exchange: Exchange) -> tuple[str, str | None, bytes]:
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
        opening, outcome = self._opening(exchange), exchange.outcome()
        with self._lock, transaction(self._connection):
            position = self._connection.execute(_BEGIN, opening).lastrowid
            self._connection.execute(_END, (position, time.time(), outcome))

    def checkpoint(self, outcomes: Sequence[tuple[int, bytes]]) -> None:
        """Write down how far requests are, by position. Raises sqlite3.Error."""
        with self._lock, transaction(self._connection):
            self._connection.executemany(_CHECKPOINT, [(outcome, position) for position, outcome in outcomes])

    def has_session(self, owner: str, session_id: str) -> bool:
        """Whether anything that was said in a session waits for PostgreSQL. Raises sqlite3.Error."""
        with self._lock:
            row = self._connection.execute(_WAITING, (session_key(owner, session_id),)).fetchone()
        return row is not None

    def last_ended(self) -> int | None:
        """The highest position among those that wait for PostgreSQL, if any does. Raises sqlite3.Error."""
        with self._lock:
            (position,) = self._connection.execute(_LAST).fetchone()
        return None if position is None else int(position)

    def has_up_to(self, position: int) -> bool:
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
