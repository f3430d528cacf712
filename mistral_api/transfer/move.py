"""A database moves to another PostgreSQL: its tables are read under a lock and fill those of the target."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from mistral_api.database.revisions import newest_revision, read_revision
from mistral_api.database.tables import table_names
from mistral_api.transfer.catalogue import quote
from mistral_api.transfer.checksums import TableSum, differing_tables, read_sums
from mistral_api.transfer.copying import copy_tables
from mistral_api.transfer.description import Description, count_rows, describe
from mistral_api.transfer.errors import TransferRefused
from mistral_api.transfer.loading import filling, tables_with_rows
from mistral_api.transfer.progress import Progress
from mistral_api.transfer.requirements import (
    are_same_database,
    require_newest_revision,
    require_no_server,
    require_usable,
)
from mistral_api.transfer.session import transfer_transaction

SOURCE, TARGET = "DATABASE_URL", "--to"
LOCK_SECONDS = 15


@dataclass(frozen=True, slots=True)
class MoveOptions:
    """``replace``: what the target holds may go. ``ignore_connections``: servers may seem to be connected."""

    replace: bool = False
    ignore_connections: bool = False


@dataclass(frozen=True, slots=True)
class MoveResult:
    """The sums that both databases have, and whether the target had them before."""

    tables: dict[str, TableSum]
    was_there: bool


def move_database(source: Engine, target: Engine, options: MoveOptions, progress: Progress) -> MoveResult:
    """Carry everything to the target and compare both. The source stays as it is.

    It is one transaction of the target: an interrupted move has changed nothing there. One that was finished already
    is found to be. Raises TransferRefused, TransferFailed, psycopg2.Error and sqlalchemy.exc.SQLAlchemyError.
    """
    _check(source, target, options)
    with _locked_source(source) as reading, transfer_transaction(target) as writing:
        progress.step("Reading the source")
        description = describe(reading, progress)
        if tables_with_rows(writing):
            progress.step("Reading the target")
            if _holds(writing, description, progress):
                return MoveResult(description["tables"], was_there=True)
            _require_replace(writing, options)
        _fill(reading, writing, description, progress)
    return MoveResult(description["tables"], was_there=False)


def _check(source: Engine, target: Engine, options: MoveOptions) -> None:
    with source.begin() as reading, target.begin() as writing:
        require_usable(reading, SOURCE)
        require_newest_revision(reading, SOURCE)
        require_usable(writing, TARGET)
        if are_same_database(reading, writing):
            raise TransferRefused(f"{TARGET}: this is the database in use.")
        if not options.ignore_connections:
            require_no_server(reading, SOURCE)
            require_no_server(writing, TARGET)


@contextlib.contextmanager
def _locked_source(source: Engine) -> Iterator[Connection]:
    """Give a transaction in which nothing changes; others can read meanwhile, and not write."""
    repeatable = source.execution_options(isolation_level="REPEATABLE READ")
    names = ", ".join(quote(name) for name in table_names())
    with transfer_transaction(repeatable) as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        connection.execute(text(f"LOCK TABLE {names} IN SHARE MODE"))
        yield connection


def _holds(target: Connection, description: Description, progress: Progress) -> bool:
    """Return whether the target has the same rows already."""
    if read_revision(target) != newest_revision():
        return False
    return not differing_tables(description["tables"], read_sums(target, list(description["tables"]), progress))


def _require_replace(target: Connection, options: MoveOptions) -> None:
    if not options.replace:
        raise TransferRefused(
            f"{TARGET}: the target has data of ours already ({', '.join(tables_with_rows(target))}): "
            "choose an empty database, or add --replace to delete them."
        )


def _fill(source: Connection, target: Connection, description: Description, progress: Progress) -> None:
    with (
        filling(target, description, progress),
        progress.counting("Carrying rows", count_rows(description)) as advance,
    ):
        copy_tables(source, target, list(description["tables"]), advance)
