"""The backlog: finished exchanges that wait in the journal for PostgreSQL, in the order in which they ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mistral_api.recording.exchange import UNKNOWN_OUTCOME, Exchange
from mistral_api.recording.group_commit import transaction
from mistral_api.recording.journal import ENDED_AT, connect

# Removing rows takes the journal's write lock: few at a time, so that no request waits long for it.
_REMOVE_BATCH = 100
_SELECT_OLDEST = (
    "SELECT position, opening, outcome FROM endings JOIN exchanges USING (position) ORDER BY ended_at, position LIMIT ?"
)
_DELETE = tuple(f"DELETE FROM {table} WHERE position = ?" for table in ("endings", "checkpoints", "exchanges"))
_REJECT = "INSERT INTO rejected (reason, rejected_at, opening, outcome) VALUES (?, ?, ?, ?)"
_OPEN_EXCHANGES = "FROM exchanges WHERE position NOT IN (SELECT position FROM endings)"
# A response is stored as it was begun (stored_object.stored_response), under the key stored_object.object_key.
_INTERRUPTED_RESPONSE = (
    "(SELECT object || char(10) || json_extract(text, '$.owner') || char(10) || "
    "json_extract(text, '$.storing.body.id') FROM (SELECT text, json_extract(text, '$.storing.object') AS object FROM "
    "(SELECT CAST(opening AS TEXT) AS text) WHERE json_valid(text)) WHERE object = 'response')"
)
# It ended before what was begun after it, which may continue it: its client went on with another process.
_INTERRUPTED_AT = (
    f"coalesce((SELECT min(ended_at) - 0.000001 FROM endings WHERE endings.position > exchanges.position), {ENDED_AT})"
)
_END_INTERRUPTED = (
    "INSERT INTO endings (position, ended_at, session, object, outcome) "
    f"SELECT position, {_INTERRUPTED_AT}, session, {_INTERRUPTED_RESPONSE}, "
    "coalesce((SELECT outcome FROM checkpoints WHERE checkpoints.position = exchanges.position), ?) "
    f"{_OPEN_EXCHANGES} AND process IN (SELECT value FROM json_each(?)) ORDER BY position"
)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One finished exchange that PostgreSQL does not have yet."""

    position: int
    opening: bytes
    outcome: bytes

    @property
    def size(self) -> int:
        """Its size in the journal, in bytes."""
        return len(self.opening) + len(self.outcome)

    def exchange(self) -> Exchange:
        """Return the exchange. Raises ValueError, KeyError or TypeError for a malformed one."""
        return Exchange.from_parts(self.opening, self.outcome)


class Backlog:
    """The writer's own connection to a prepared journal. One thread uses it at a time.

    Every method raises sqlite3.Error.
    """

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)

    def oldest_entries(self, limit: int, max_bytes: int) -> list[JournalEntry]:
        """Return the oldest entries: at most ``limit``, together at most ``max_bytes``, but at least one."""
        entries: list[JournalEntry] = []
        size = 0
        for entry in self._entries(limit):
            size += entry.size
            if entries and size > max_bytes:
                break
            entries.append(entry)
        return entries

    def _entries(self, limit: int) -> Iterator[JournalEntry]:
        cursor = self._connection.execute(_SELECT_OLDEST, (limit,))
        try:
            for row in cursor:
                yield JournalEntry(*row)
        finally:
            cursor.close()

    def remove(self, entries: Sequence[JournalEntry]) -> None:
        """Delete entries that PostgreSQL has committed."""
        for start in range(0, len(entries), _REMOVE_BATCH):
            positions = [(entry.position,) for entry in entries[start : start + _REMOVE_BATCH]]
            with transaction(self._connection):
                for statement in _DELETE:
                    self._connection.executemany(statement, positions)

    def reject(self, entry: JournalEntry, reason: str) -> None:
        """Move an entry that PostgreSQL will never take into the table ``rejected``, with the reason."""
        with transaction(self._connection):
            self._connection.execute(_REJECT, (reason, time.time(), entry.opening, entry.outcome))
            for statement in _DELETE:
                self._connection.execute(statement, (entry.position,))

    def end_interrupted(self, is_dead: Callable[[str], bool]) -> int:
        """End every exchange that a dead process left open, with its last checkpoint. Return how many.

        They stand in the order in which they were begun, and before all that was begun later. ``is_dead`` takes the
        name of a process.
        """
        names = [name for (name,) in self._connection.execute(f"SELECT DISTINCT process {_OPEN_EXCHANGES}")]
        dead = [name for name in names if is_dead(name)]
        if not dead:
            return 0
        return self._connection.execute(_END_INTERRUPTED, (time.time(), UNKNOWN_OUTCOME, json.dumps(dead))).rowcount

    def shrink(self) -> None:
        """Give back the disk space that a long backlog has taken."""
        self._connection.execute("PRAGMA incremental_vacuum").fetchall()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
