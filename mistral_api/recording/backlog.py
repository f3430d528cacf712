"""The journal, as the writer sees it: what waits for PostgreSQL, oldest first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mistral_api.recording.exchange import UNKNOWN_OUTCOME, Exchange
from mistral_api.recording.journal import connect, transaction

# Removing takes the journal's write lock: a few rows at a time, so that no request waits long for it.
_REMOVED_TOGETHER = 100
_OLDEST = "SELECT position, opening, outcome FROM endings JOIN exchanges USING (position) ORDER BY position LIMIT ?"
_FORGET = tuple(f"DELETE FROM {table} WHERE position = ?" for table in ("endings", "checkpoints", "exchanges"))
_REJECT = "INSERT INTO rejected (reason, rejected_at, opening, outcome) VALUES (?, ?, ?, ?)"
_UNENDED = "FROM exchanges WHERE position NOT IN (SELECT position FROM endings)"
_INTERRUPT = (
    "INSERT INTO endings (position, ended_at, outcome) SELECT position, ?, "
    "coalesce((SELECT outcome FROM checkpoints WHERE checkpoints.position = exchanges.position), ?) "
    f"{_UNENDED} AND process = ?"
)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One exchange that has ended and that PostgreSQL does not have yet."""

    position: int
    opening: bytes
    outcome: bytes

    @property
    def size(self) -> int:
        """Bytes of the journal's form."""
        return len(self.opening) + len(self.outcome)

    def exchange(self) -> Exchange:
        """The exchange itself. Raises ValueError, KeyError or TypeError for a malformed one."""
        return Exchange.from_parts(self.opening, self.outcome)


class Backlog:
    """The writer's own connection to a prepared journal; for one thread at a time. All of it raises sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)

    def oldest(self, limit: int, max_bytes: int) -> list[JournalEntry]:
        """The entries that have waited longest: at most so many, of at most so many bytes, but one at least."""
        entries: list[JournalEntry] = []
        size = 0
        for entry in self._entries(limit):
            size += entry.size
            if entries and size > max_bytes:
                break
            entries.append(entry)
        return entries

    def _entries(self, limit: int) -> Iterator[JournalEntry]:
        cursor = self._connection.execute(_OLDEST, (limit,))
        try:
            for row in cursor:
                yield JournalEntry(*row)
        finally:
            cursor.close()

    def remove(self, entries: Sequence[JournalEntry]) -> None:
        """Forget entries that PostgreSQL has committed."""
        for start in range(0, len(entries), _REMOVED_TOGETHER):
            with transaction(self._connection):
                for statement in _FORGET:
                    self._connection.executemany(
                        statement, [(entry.position,) for entry in entries[start : start + _REMOVED_TOGETHER]]
                    )

    def reject(self, entry: JournalEntry, reason: str) -> None:
        """Set an entry aside that PostgreSQL will never take; it stays readable with the reason."""
        with transaction(self._connection):
            self._connection.execute(_REJECT, (reason, time.time(), entry.opening, entry.outcome))
            for statement in _FORGET:
                self._connection.execute(statement, (entry.position,))

    def end_interrupted(self, is_dead: Callable[[str], bool]) -> int:
        """End every exchange that a dead process has left open, with its last checkpoint; answer how many.

        ``has_ended`` says of a process's name whether it is dead.
        """
        names = [name for (name,) in self._connection.execute(f"SELECT DISTINCT process {_UNENDED}")]
        ended = [name for name in names if is_dead(name)]
        return sum(
            self._connection.execute(_INTERRUPT, (time.time(), UNKNOWN_OUTCOME, name)).rowcount for name in ended
        )

    def shrink(self) -> None:
        """Give back the disk space of an outage that is over."""
        self._connection.execute("PRAGMA incremental_vacuum").fetchall()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
