"""What waits in the journal, for readers: finished exchanges that PostgreSQL does not have yet.

Readers lay these over PostgreSQL's rows, and must look here first: an exchange is removed from the journal only after
PostgreSQL has committed it, so a reader who looks here and then there misses none. One on its way is seen in both
places, and is known by its id.

All processes on one ``DATA_DIR`` see the same, for all of it is read from the journal's file. Only exchanges that the
disk did not take are in the memory of the process that answered them.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mistral_api.recording.exchange import Exchange, belongs_to_conversation
from mistral_api.recording.journal import connect, session_key
from mistral_api.recording.stored_object import object_key, object_key_of
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

# The decoded exchanges that stay in memory, by their size in the journal. The objects take a few times as much.
MAX_CACHED_BYTES = 16 << 20
# From so many decoded exchanges on, those that have been delivered are looked for.
LEAST_SWEPT = 64
# So many stored objects of an owner are laid over PostgreSQL's list.
MAX_LISTED_OBJECTS = 1000

_OF_SESSIONS = (
    "SELECT position FROM endings WHERE session IN (SELECT value FROM json_each(?)) ORDER BY ended_at, position"
)
_OF_OBJECT = "SELECT position FROM endings WHERE object = ? ORDER BY ended_at DESC LIMIT 1"
_OBJECTS = "SELECT position FROM endings WHERE object >= ? AND object < ? ORDER BY ended_at DESC LIMIT ?"
_ENDED = "SELECT position FROM endings LIMIT ?"
_OF_OWNER = "FROM endings WHERE session >= ? AND session < ?"
_NEWEST = f"SELECT position {_OF_OWNER} ORDER BY ended_at DESC, position DESC LIMIT ?"
_SESSIONS = f"SELECT session {_OF_OWNER} GROUP BY session ORDER BY max(ended_at) DESC LIMIT ?"
_FIRST = "SELECT min(position) FROM endings"
_BLOBS = "SELECT opening, outcome FROM endings JOIN exchanges USING (position) WHERE position = ?"


class PendingExchanges:
    """Reads the journal on a connection of its own, so that no request waits for a reader. Threads may share it.

    A row that cannot be decoded is left out. Where the file cannot be read, only what is in memory is pending.
    """

    def __init__(self, unwritten: Callable[[], Sequence[Exchange]], max_bytes: int = MAX_CACHED_BYTES) -> None:
        """``unwritten`` returns what the disk did not take, oldest first."""
        self._unwritten = unwritten
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._cache = _DecodedExchanges(max_bytes)
        self._warn = ThrottledWarning(log)

    def open(self, path: Path) -> None:
        """Read the journal at a path from now on. Raises sqlite3.Error."""
        with self._lock:
            self._connection = connect(path)

    def close(self) -> None:
        """Close the journal's file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def of_session(self, owner: str, *session_ids: str) -> list[Exchange]:
        """Return the exchanges that will be appended to a conversation, in the order in which they ended.

        Several session ids may lead to it.
        """
        keys = json.dumps([session_key(owner, each) for each in session_ids])
        in_memory = self._in_memory(lambda exchange: exchange.owner == owner and exchange.session_id in session_ids)
        found = self._read(lambda connection: self._exchanges(connection, _OF_SESSIONS, (keys,)))
        return [exchange for exchange in _distinct(found + in_memory) if belongs_to_conversation(exchange)]

    def stored_object(self, kind: str, owner: str, object_id: str) -> Exchange | None:
        """Return the exchange that is stored as an owner's object with an id, or None.

        ``kind`` is a value of ``Exchange.storing["object"]``.
        """
        key = object_key(kind, owner, object_id)
        found = self._in_memory(lambda exchange: object_key_of(exchange) == key)
        found = found or self._read(lambda connection: self._exchanges(connection, _OF_OBJECT, (key,)))
        return found[-1] if found else None

    def stored_objects(self, kind: str, owner: str) -> list[Exchange]:
        """Return the newest MAX_LISTED_OBJECTS exchanges that are stored as an owner's objects of a kind."""
        prefix = object_key(kind, owner, "")
        bounds = (*_bounds(prefix), MAX_LISTED_OBJECTS)
        in_memory = self._in_memory(lambda exchange: (object_key_of(exchange) or "").startswith(prefix))
        return _distinct(self._read(lambda connection: self._exchanges(connection, _OBJECTS, bounds)) + in_memory)

    def sessions(self, owner: str, limit: int) -> list[str]:
        """Return the ids of an owner's sessions with pending exchanges, the last used first, at most ``limit``.

        Whether an exchange becomes part of a conversation shows only when it is decoded: :meth:`of_session` may
        return none for some of them.
        """
        found = [exchange.session_id for exchange in reversed(self._in_memory(lambda each: each.owner == owner))]
        found += self._read(lambda connection: _sessions(connection, owner, limit))
        return list(dict.fromkeys(session_id for session_id in found if session_id))[:limit]

    def newest(self, owner: str, limit: int) -> list[Exchange]:
        """Return an owner's newest exchanges that belong to conversations, at most ``limit``, the newest first."""
        found = self._in_memory(lambda exchange: exchange.owner == owner)[::-1]
        bounds = (*_bounds(session_key(owner, "")), limit)
        found += self._read(lambda connection: self._exchanges(connection, _NEWEST, bounds))
        return [exchange for exchange in _distinct(found) if belongs_to_conversation(exchange)][:limit]

    def all_ended(self, most: int) -> list[Exchange] | None:
        """Return all exchanges that have ended, in no order, or None where there are more than ``most``."""
        found = self._in_memory(lambda _: True)
        found += self._read(lambda connection: self._exchanges(connection, _ENDED, (most + 1,)))
        return _distinct(found) if len(found) <= most else None

    def _exchanges(self, connection: sqlite3.Connection, select: str, parameters: Sequence[Any]) -> list[Exchange]:
        positions = [position for (position,) in connection.execute(select, parameters)]
        return list(self._decode(connection, positions))

    def _decode(self, connection: sqlite3.Connection, positions: Iterable[int]) -> Iterator[Exchange]:
        for position in positions:
            exchange = self._cache.get(position)
            if exchange is None:
                blobs = connection.execute(_BLOBS, (position,)).fetchone()
                # It may have been delivered in the meantime: PostgreSQL has it now.
                exchange = None if blobs is None else self._cache.add(position, *blobs)
            if exchange is not None:
                yield exchange
        if self._cache.is_due:
            (first,) = connection.execute(_FIRST).fetchone()
            self._cache.drop_before(first)

    def _read(self, read: Callable[[sqlite3.Connection], list[Any]]) -> list[Any]:
        with self._lock:
            if self._connection is None:
                return []
            try:
                return read(self._connection)
            except sqlite3.Error as error:
                self._warn("the journal cannot be read; readers see what PostgreSQL has: %s", error)
                return []

    def _in_memory(self, is_wanted: Callable[[Exchange], bool]) -> list[Exchange]:
        """Return what the disk did not take, oldest first, in the form that the journal would give it.

        Call this before the journal is read: an exchange that the disk takes late is in the file before it leaves the
        memory.
        """
        return [Exchange.from_parts(each.opening(), each.outcome()) for each in self._unwritten() if is_wanted(each)]


def _sessions(connection: sqlite3.Connection, owner: str, limit: int) -> list[str]:
    """Return an owner's session ids, the last used first, each once."""
    prefix = session_key(owner, "")
    return [key[len(prefix) :] for (key,) in connection.execute(_SESSIONS, (*_bounds(prefix), limit))]


def _bounds(prefix: str) -> tuple[str, str]:
    """Return the first key with a prefix that ends with a line break, and the first one behind all such keys."""
    return prefix, f"{prefix[:-1]}\v"


def _distinct(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """Return each exchange once: one that the disk takes late may be found in memory and in the file."""
    return list({exchange.id: exchange for exchange in exchanges}.values())


class _DecodedExchanges:
    """The exchanges that were read last, by position; the rows of ended exchanges never change. Not thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[int, tuple[Exchange | None, int]] = OrderedDict()
        self._bytes = 0
        self._swept_at = LEAST_SWEPT

    @property
    def is_due(self) -> bool:
        """Whether twice as many have come as stayed at the last :meth:`drop_before`."""
        return len(self._entries) >= self._swept_at

    def drop_before(self, first: int | None) -> None:
        """Drop those before the first position that the journal still has (None: it has none)."""
        for position in [each for each in self._entries if first is None or each < first]:
            _, freed = self._entries.pop(position)
            self._bytes -= freed
        self._swept_at = max(LEAST_SWEPT, 2 * len(self._entries))

    def get(self, position: int) -> Exchange | None:
        if position not in self._entries:
            return None
        self._entries.move_to_end(position)
        return self._entries[position][0]

    def add(self, position: int, opening: bytes, outcome: bytes) -> Exchange | None:
        """Decode an exchange. Return None for one that cannot be decoded."""
        exchange, size = _decode(opening, outcome), len(opening) + len(outcome)
        self._entries[position] = exchange, size
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self._bytes -= freed
        return exchange


def _decode(opening: bytes, outcome: bytes) -> Exchange | None:
    """Return the exchange of a row, or None for one that PostgreSQL will not take either."""
    try:
        exchange = Exchange.from_parts(opening, outcome)
    except (ValueError, KeyError, TypeError):
        return None
    messages, answers = exchange.messages or [], exchange.answers or []
    whole = all(isinstance(each, dict) and isinstance(each.get("role"), str) for each in messages)
    return exchange if whole and all(isinstance(each, dict) for each in answers) else None
