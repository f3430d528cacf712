"""Repair of a damaged journal: every row that can be read is copied into a new file, and the log says what is lost.

A file that was cut off has lost some pages. Every other page is whole, and the rows on it are read by their key.
``writable_schema`` lets SQLite open a file that is shorter than its header says (``lockBtree`` in btree.c).
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from typing import Any

import orjson

from mistral_api.system.files import move_file, remove_file

log = logging.getLogger(__name__)

# Tables and their columns, the integer key first. The keys in ``endings`` are made from the others afterwards.
TABLES = {
    "exchanges": ("position", "process", "session", "opening"),
    "checkpoints": ("position", "outcome"),
    "endings": ("position", "ended_at", "outcome"),
    "rejected": ("id", "reason", "rejected_at", "opening", "outcome"),
}
_KEYS_PER_QUERY = 256
# Where the last key cannot be read, rows are looked for this far beyond the last one that was found: a lost page of
# the tree leads to fewer keys.
_SEARCHED_KEYS = 10_000

JournalRow = tuple[Any, ...]


def replace_damaged(path: Path, create: Callable[[Path], None]) -> bool:
    """Replace a damaged journal by a new one with every row that can be read, and keep the old file.

    ``create`` creates an empty journal. A journal without damage is left alone: then return False. No other process
    may have it open. Raises OSError or sqlite3.Error.
    """
    reason = find_damage(path)
    if reason is None:
        return False
    log.error("the journal %s is damaged (%s); what can be read of it is being saved", path, reason)
    fresh = path.with_name(f"{path.name}.new")
    remove_file(fresh)
    create(fresh)
    saved, lost = _copy(path, fresh)
    backup = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1_000_000}")
    for suffix in ("", "-wal", "-shm"):
        side = path.with_name(path.name + suffix)
        if side.exists():
            move_file(side, backup.with_name(backup.name + suffix))
    move_file(fresh, path)
    log.error(
        "saved of the damaged journal: %s; at least %d rows are lost, the file is kept as %s", saved, lost, backup
    )
    return True


def find_damage(path: Path) -> str | None:
    """Return what is wrong with a journal, or None. Raises sqlite3.OperationalError where it cannot be read now."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        try:
            result: list[tuple[str]] = connection.execute("PRAGMA quick_check(1)").fetchall()
        except sqlite3.OperationalError:  # locked, or the disk fails: no sign of damage
            raise
        except sqlite3.DatabaseError as error:
            return str(error)
    return None if result == [("ok",)] else result[0][0].splitlines()[-1]


def _copy(damaged: Path, fresh: Path) -> tuple[str, int]:
    """Copy every whole row. Return how many of each table, and how many rows are known to be lost."""
    counts, lost = [], 0
    with closing(sqlite3.connect(damaged, isolation_level=None)) as source, closing(sqlite3.connect(fresh)) as target:
        if not _open_damaged(source):
            return "nothing", 0
        for table, columns in TABLES.items():
            placeholders = ", ".join("?" * len(columns))
            rows = list(_rows(source, table, columns))
            whole = [row for row in rows if row is not None]
            # A row of zeros breaks the constraints of the new table.
            saved = target.executemany(
                f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({placeholders})", whole
            ).rowcount
            counts.append(f"{max(0, saved)} {table}")
            lost += _count_lost(rows)
        target.commit()
    return ", ".join(counts), lost


def _open_damaged(source: sqlite3.Connection) -> bool:
    """Return whether the file is a database at all."""
    try:
        source.execute("PRAGMA writable_schema=ON")
        return source.execute("SELECT count(*) FROM sqlite_master").fetchone() is not None
    except sqlite3.DatabaseError:
        return False


def _count_lost(rows: list[JournalRow | None]) -> int:
    """Count the unreadable keys before the last readable one. Behind that one there may never have been a row."""
    after_last = sum(1 for _ in takewhile(lambda row: row is None, reversed(rows)))
    return rows.count(None) - after_last


def _rows(source: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> Iterator[JournalRow | None]:
    """Yield the rows of a table by key, and None for each key whose row cannot be read."""
    select = f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED WHERE {columns[0]} BETWEEN ? AND ?"
    low, high = _key_bounds(source, table, columns[0])
    last_found = low
    while low <= (high if high is not None else last_found + _SEARCHED_KEYS):
        for row in _rows_between(source, select, low, low + _KEYS_PER_QUERY - 1):
            last_found = max(last_found, row[0]) if row else last_found
            yield row
        low += _KEYS_PER_QUERY


def _key_bounds(source: sqlite3.Connection, table: str, key: str) -> tuple[int, int | None]:
    """Return the first key, 1 where it cannot be read, and the last one, None where it cannot be read."""
    bounds: list[int | None] = []
    for function in ("min", "max"):
        try:
            (value,) = source.execute(f"SELECT {function}({key}) FROM {table} NOT INDEXED").fetchone()
            bounds.append(value or 0)
        except sqlite3.DatabaseError:
            bounds.append(None)
    return bounds[0] or 1, bounds[1]


def _rows_between(source: sqlite3.Connection, select: str, low: int, high: int) -> Iterator[JournalRow | None]:
    """Yield the rows of a range of keys. Where reading fails, each key is read by itself."""
    try:
        rows = source.execute(select, (low, high)).fetchall()
    except sqlite3.DatabaseError:
        if low == high:
            yield None
        else:
            for key in range(low, high + 1):
                yield from _rows_between(source, select, key, key)
    else:
        yield from (row if _is_whole(row) else None for row in rows)


def _is_whole(row: JournalRow) -> bool:
    """Return whether every blob of a row is JSON. Where a page was cut in two, SQLite reads zeros."""
    try:
        for value in row:
            if isinstance(value, bytes):
                orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True
