"""The target of a transfer: its tables are emptied, filled and checked in one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import Connection

from mistral_api.database.migration import migrate_down, migrate_to
from mistral_api.database.revisions import newest_revision, read_revision
from mistral_api.database.tables import table_names
from mistral_api.transfer.catalogue import (
    create_partitions,
    drop_indexes,
    existing_tables,
    filled_tables,
    quote,
    run_together,
    set_counters,
)
from mistral_api.transfer.checksums import differing_tables, read_sums
from mistral_api.transfer.description import Description
from mistral_api.transfer.errors import TransferFailed
from mistral_api.transfer.progress import Progress


def tables_with_rows(connection: Connection) -> list[str]:
    """Return the names of our tables that have any row."""
    return filled_tables(connection, table_names())


@contextlib.contextmanager
def filling(connection: Connection, description: Description, progress: Progress) -> Iterator[None]:
    """Give the database empty tables of the description's revision; the block fills them; then check what is there.

    All of it happens in the connection's transaction, which the caller commits. Raises TransferFailed where the tables
    are not what the description says, and sqlalchemy.exc.SQLAlchemyError.
    """
    names = list(description["tables"])
    _prepare(connection, description["revision"])
    create_partitions(connection, description["partitions"])
    definitions = drop_indexes(connection, names)
    yield
    progress.step("Building indexes")
    run_together(connection, definitions)
    set_counters(connection, description["counters"])
    differing = differing_tables(description["tables"], read_sums(connection, names, progress))
    if differing:
        raise TransferFailed(f"After the transfer these tables differ: {', '.join(differing)}.")
    if description["revision"] != newest_revision():
        migrate_to(connection, newest_revision())
    connection.exec_driver_sql(f"ANALYZE {', '.join(quote(name) for name in existing_tables(connection, names))}")


def _prepare(connection: Connection, revision: str) -> None:
    """Have all tables empty and of a revision, whatever was there."""
    existing = existing_tables(connection, table_names())
    if existing:
        # Without CASCADE: it would empty tables of other programs that refer to ours.
        connection.exec_driver_sql(f"TRUNCATE {', '.join(quote(name) for name in existing)}")
    present = read_revision(connection)
    if present == revision:
        return
    if present is not None:
        migrate_down(connection)
    migrate_to(connection, revision)
