"""The number of rows of a table and a checksum of them, by which two databases are compared.

PostgreSQL computes the checksum, so that no row crosses the network for it: of each row the SHA-256 of its text, and
of all rows the sums of the first and the second eight bytes of these, which come out the same in any order. The
columns stand in the order of their names, and the settings that shape the text of a value are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from sqlalchemy import Connection, text

from mistral_api.transfer.catalogue import StoredTable, quote, read_tables, run_together
from mistral_api.transfer.progress import Progress

_TEXT_SETTINGS = (
    "SET LOCAL TimeZone = 'UTC'",
    "SET LOCAL DateStyle = 'ISO, YMD'",
    "SET LOCAL IntervalStyle = 'postgres'",
    "SET LOCAL bytea_output = 'hex'",
    # The shortest text that gives the same number back.
    "SET LOCAL extra_float_digits = 1",
)
# The sums are of signed numbers of 64 bits, and shown as unsigned ones.
_WRAP = 1 << 64


class TableSum(TypedDict):
    """The number of rows of a table, and their checksum."""

    rows: int
    checksum: str


def read_sums(connection: Connection, names: Sequence[str], progress: Progress) -> dict[str, TableSum]:
    """Return the sum of each table. It reads every row, within the connection's transaction."""
    run_together(connection, _TEXT_SETTINGS)
    tables = read_tables(connection, names)
    sums: dict[str, TableSum] = {}
    with progress.counting("Checking tables", len(names)) as advance:
        for name in names:
            sums[name] = _read_sum(connection, tables[name])
            advance(1)
    return sums


def _read_sum(connection: Connection, table: StoredTable) -> TableSum:
    columns = ", ".join(quote(column) for column in sorted(table.columns))
    digests = f"SELECT sha256(convert_to(CAST(ROW({columns}) AS text), 'UTF8')) AS digest FROM {table.qualified_name}"
    statement = (
        f"SELECT count(*), coalesce(sum({_eight_bytes(1)}), 0), coalesce(sum({_eight_bytes(9)}), 0) "
        f"FROM ({digests}) AS rows"
    )
    rows, first, second = connection.execute(text(statement)).one()
    return {"rows": rows, "checksum": f"{int(first) % _WRAP:016x}{int(second) % _WRAP:016x}"}


def _eight_bytes(start: int) -> str:
    return f"CAST(CAST('x' || encode(substr(digest, {start}, 8), 'hex') AS bit(64)) AS bigint)"


def differing_tables(first: Mapping[str, TableSum], second: Mapping[str, TableSum]) -> list[str]:
    """Return the names of the tables that are not the same in both."""
    return [name for name in sorted({*first, *second}) if first.get(name) != second.get(name)]
