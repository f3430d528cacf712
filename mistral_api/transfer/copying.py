"""Rows from one table into another by COPY, as a stream: fast however far away a server is.

psycopg2 must have made the connections while it had no wait callback (``database.deadlines.blocking_waits``).
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import psycopg2
import psycopg2.extensions
from sqlalchemy import Connection

from mistral_api.transfer.catalogue import StoredTable, quote, read_tables
from mistral_api.transfer.errors import TransferFailed
from mistral_api.transfer.stall_guard import STALL_SECONDS, StallGuard

_CHUNK_BYTES = 1 << 16


class RowStream(Protocol):
    """Rows as COPY's text. ``columns`` are their columns, in order."""

    @property
    def columns(self) -> Sequence[str]:
        """The names of the columns."""

    def read(self, size: int, /) -> bytes:
        """Return about ``size`` bytes, none at the end."""

    def abort(self) -> None:
        """Make a read that waits return. Another thread calls this."""


def copy_into(target: Connection, table: StoredTable, rows: RowStream, advance: Callable[[int], None]) -> None:
    """Copy rows into a table; ``advance`` takes how many more have gone.

    Raises psycopg2.Error, and TransferFailed where nothing moves.
    """
    statement = f"COPY {table.qualified_name} ({_listed(rows.columns)}) FROM STDIN"
    raw = _raw_connection(target)

    def abort() -> None:
        rows.abort()
        _shut_down(raw)

    with StallGuard(abort) as guard, raw.cursor() as cursor:

        def advance_and_tell(count: int) -> None:
            guard.progress()
            advance(count)

        try:
            cursor.copy_expert(statement, _CountedRows(rows, advance_and_tell), _CHUNK_BYTES)
        except psycopg2.Error as error:
            if guard.stalled:
                sentence = f"No row has moved for {STALL_SECONDS:.0f} s, in the table {table.name}."
                raise TransferFailed(sentence) from error
            raise


def copy_tables(source: Connection, target: Connection, names: Sequence[str], advance: Callable[[int], None]) -> None:
    """Copy all rows of tables. Raises psycopg2.Error, OSError, TransferFailed."""
    sources, targets = read_tables(source, names), read_tables(target, names)
    for name in names:
        reader_end, writer_end = os.pipe()
        sender = _Sender(_raw_connection(source), sources[name], writer_end)
        with _PipedRows(sources[name].columns, reader_end, sender.abort) as rows:
            _copy_from_sender(sender, rows, target, targets[name], advance)


def _copy_from_sender(
    sender: _Sender, rows: _PipedRows, target: Connection, table: StoredTable, advance: Callable[[int], None]
) -> None:
    sender.start()
    try:
        copy_into(target, table, rows, advance)
    finally:
        rows.close()  # a sender that still writes gets an error
        sender.join()
    if sender.error is not None:
        raise sender.error


class _CountedRows(io.BufferedIOBase):
    """Counts the rows that are read: in COPY's text a line break stands at the end of a row and nowhere else."""

    def __init__(self, rows: RowStream, advance: Callable[[int], None]) -> None:
        super().__init__()
        self._rows = rows
        self._advance = advance

    def read(self, size: int | None = None, /) -> bytes:
        chunk = self._rows.read(size or _CHUNK_BYTES)
        self._advance(chunk.count(b"\n"))
        return chunk


class _PipedRows(io.FileIO):
    """The rows that a sender writes into a pipe."""

    def __init__(self, columns: Sequence[str], descriptor: int, abort: Callable[[], None]) -> None:
        super().__init__(descriptor, "rb")
        self.columns = columns
        self.abort = abort


class _Sender(threading.Thread):
    """Writes the rows of a table into a pipe. ``error`` is what ended it early."""

    def __init__(self, connection: psycopg2.extensions.connection, table: StoredTable, descriptor: int) -> None:
        super().__init__(name="copy-sender", daemon=True)
        self._statement = f"COPY (SELECT {_listed(table.columns)} FROM {table.qualified_name}) TO STDOUT"
        self._connection = connection
        self._pipe = open(descriptor, "wb")  # noqa: SIM115 - run closes it
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with contextlib.suppress(BrokenPipeError), self._pipe, self._connection.cursor() as cursor:
                cursor.copy_expert(self._statement, self._pipe, _CHUNK_BYTES)
        except (psycopg2.Error, OSError) as error:
            self.error = error

    def abort(self) -> None:
        """Have the source's end of the pipe closed."""
        _shut_down(self._connection)


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(quote(column) for column in columns)


def _raw_connection(connection: Connection) -> psycopg2.extensions.connection:
    """Return psycopg2's own connection."""
    raw: psycopg2.extensions.connection = connection.connection.dbapi_connection  # type: ignore[assignment]
    return raw


def _shut_down(raw: psycopg2.extensions.connection) -> None:
    """End a connection under a call of libpq that waits in another thread."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(raw.fileno())) as stuck:
        stuck.shutdown(socket.SHUT_RDWR)
