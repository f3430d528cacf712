"""A damaged journal: what can still be read of it goes into a new one, and the log says what cannot.

A file that was cut off has lost some pages; every other page is whole, and the rows on it are read
by their position. ``writable_schema`` is what lets SQLite open a file that is shorter than its header
says (``lockBtree`` in btree.c).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from typing import Any

import orjson

log = logging.getLogger(__name__)

# Tables and their columns, the integer key first.
TABLES = {
    "exchanges": ("position", "process", "session", "opening"),
    "checkpoints": ("position", "outcome"),
    "endings": ("position", "ended_at", "outcome"),
    "rejected": ("id", "reason", "rejected_at", "opening", "outcome"),
}
_SPAN = 256
# Where the last key cannot be read, rows are looked for this far beyond the last one found: more than a lost
# page of the tree leads to.
_REACH = 10_000

JournalRow = tuple[Any, ...]


def replace_damaged(path: Path, make: Callable[[Path], None]) -> None:
    """Put a new journal in the place of a damaged one, with every row that can be read; keep the old file.

    ``make`` makes an empty journal. A whole one is left alone. Nobody else may have it open. Raises OSError
    or sqlite3.Error.
    """
    reason = find_damage(path)
    if reason is None:
        return
    log.error("the journal %s is damaged (%s); what can be read of it is being saved", path, reason)
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    make(fresh)
    saved, lost = _copy(path, fresh)
    kept = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1_000_000}")
    for suffix in ("", "-wal", "-shm"):
        side = path.with_name(path.name + suffix)
        if side.exists():
            os.replace(side, kept.with_name(kept.name + suffix))
    os.replace(fresh, path)
    log.error("saved of the damaged journal: %s; at least %d rows are lost, the file is kept as %s", saved, lost, kept)


def find_damage(path: Path) -> str | None:
    """What is wrong with a journal, or None. Raises sqlite3.OperationalError where it cannot be looked at."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        try:
            found: list[tuple[str]] = connection.execute("PRAGMA quick_check(1)").fetchall()
        except sqlite3.OperationalError:  # locked, or the disk fails: no sign of damage
            raise
        except sqlite3.DatabaseError as error:
            return str(error)
    return None if found == [("ok",)] else found[0][0].splitlines()[-1]


def _copy(damaged: Path, fresh: Path) -> tuple[str, int]:
    """Copy every row that is whole; answer how many of which table, and how many are known to be lost."""
    counts, lost = [], 0
    with closing(sqlite3.connect(damaged, isolation_level=None)) as source, closing(sqlite3.connect(fresh)) as target:
        if not _open_damaged(source):
            return "nothing", 0
        for table, columns in TABLES.items():
            places = ", ".join("?" * len(columns))
            rows = list(_rows(source, table, columns))
            whole = [row for row in rows if row is not None]
            # A row of zeros breaks the constraints of the new table.
            saved = target.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", whole).rowcount
            counts.append(f"{max(0, saved)} {table}")
            lost += _lost(rows)
        target.commit()
    return ", ".join(counts), lost


def _open_damaged(source: sqlite3.Connection) -> bool:
    """Whether the file is a database at all."""
    try:
        source.execute("PRAGMA writable_schema=ON")
        return source.execute("SELECT count(*) FROM sqlite_master").fetchone() is not None
    except sqlite3.DatabaseError:
        return False


def _lost(rows: list[JournalRow | None]) -> int:
    """The unreadable keys before the last readable one; behind it nobody knows whether there was anything."""
    behind = sum(1 for _ in takewhile(lambda row: row is None, reversed(rows)))
    return rows.count(None) - behind


def _rows(source: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> Iterator[JournalRow | None]:
    """The rows of a table by key; None for each key whose row cannot be read."""
    select = f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED WHERE {columns[0]} BETWEEN ? AND ?"
    low, high = _bounds(source, table, columns[0])
    found = low
    while low <= (high if high is not None else found + _REACH):
        for row in _span(source, select, low, low + _SPAN - 1):
            found = max(found, row[0]) if row else found
            yield row
        low += _SPAN


def _bounds(source: sqlite3.Connection, table: str, key: str) -> tuple[int, int | None]:
    """The first and the last key, as far as they can be read."""
    bounds: list[int | None] = []
    for end in ("min", "max"):
        try:
            (value,) = source.execute(f"SELECT {end}({key}) FROM {table} NOT INDEXED").fetchone()
            bounds.append(value or 0)
        except sqlite3.DatabaseError:
            bounds.append(None)
    return bounds[0] or 1, bounds[1]


def _span(source: sqlite3.Connection, select: str, low: int, high: int) -> Iterator[JournalRow | None]:
    """The rows of some keys; where reading fails, each key by itself."""
    try:
        rows = source.execute(select, (low, high)).fetchall()
    except sqlite3.DatabaseError:
        if low == high:
            yield None
        else:
            for key in range(low, high + 1):
                yield from _span(source, select, key, key)
    else:
        yield from (row if _is_whole(row) else None for row in rows)


def _is_whole(row: JournalRow) -> bool:
    """Where a page was cut in two, SQLite reads zeros: that is no JSON."""
    try:
        for value in row:
            if isinstance(value, bytes):
                orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True
