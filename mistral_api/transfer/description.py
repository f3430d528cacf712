"""What a database holds, in figures: what another one must hold after a transfer."""

from __future__ import annotations

from typing import TypedDict

from sqlalchemy import Connection

from mistral_api.database.revisions import newest_revision
from mistral_api.database.tables import table_names
from mistral_api.transfer.catalogue import Counter, Partition, read_counters, read_partitions
from mistral_api.transfer.checksums import TableSum, read_sums
from mistral_api.transfer.progress import Progress


class Description(TypedDict):
    """A database of one revision: the sums of its tables, its partitions, and where its sequences stand."""

    revision: str
    tables: dict[str, TableSum]
    partitions: list[Partition]
    counters: list[Counter]


def describe(connection: Connection, progress: Progress) -> Description:
    """Describe a database of the newest revision, as the connection's transaction sees it."""
    names = table_names()
    return {
        "revision": newest_revision(),
        "tables": read_sums(connection, names, progress),
        "partitions": read_partitions(connection, names),
        "counters": read_counters(connection, names),
    }


def count_rows(description: Description) -> int:
    """Return how many rows all tables have together."""
    return sum(table["rows"] for table in description["tables"].values())
