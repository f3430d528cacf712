"""What PostgreSQL's catalogue says about our tables: columns, partitions, counters, indexes, whether there are rows.

Nothing here lists a column by hand, so that every revision of the schema is carried. ``names`` are tables of ours as
our statements name them, without a schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from sqlalchemy import Connection, text

# Each query takes all names at once: a database may be far away.
_NAMES = "unnest(CAST(:names AS text[])) WITH ORDINALITY AS listed(name, place)"
_OID = "to_regclass(quote_ident(name))"
_EXISTING = text(f"SELECT name FROM {_NAMES} WHERE {_OID} IS NOT NULL ORDER BY place")
_TABLES = text(
    "SELECT name, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS qualified, "
    "ARRAY(SELECT CAST(a.attname AS text) FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 "
    "AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum) AS columns "
    f"FROM {_NAMES} JOIN pg_class AS c ON c.oid = {_OID} JOIN pg_namespace AS n ON n.oid = c.relnamespace "
    "ORDER BY place"
)
# pg_get_expr gives a partition's bounds as CREATE TABLE takes them.
_PARTITIONS = text(
    "SELECT name AS parent, c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds "
    f"FROM {_NAMES} JOIN pg_inherits AS i ON i.inhparent = {_OID} JOIN pg_class AS c ON c.oid = i.inhrelid "
    "WHERE c.relispartition ORDER BY place, c.relname"
)
_SEQUENCES = text(
    "SELECT * FROM (SELECT name, CAST(a.attname AS text) AS column_name, "
    "pg_get_serial_sequence(quote_ident(name), CAST(a.attname AS text)) AS sequence "
    f"FROM {_NAMES} JOIN pg_attribute AS a ON a.attrelid = {_OID} AND a.attnum > 0 AND NOT a.attisdropped) AS columns "
    "WHERE sequence IS NOT NULL ORDER BY name, column_name"
)
# What can be made again after the rows are in, which is faster. The primary key and the unique keys stay, and so do
# the indexes of a partitioned table, which belong to its partitions too.
_FOREIGN_KEYS = text(
    "SELECT name AS table_name, CAST(k.conname AS text) AS name, pg_get_constraintdef(k.oid) AS definition "
    f"FROM {_NAMES} JOIN pg_constraint AS k ON k.conrelid = {_OID} WHERE k.contype = 'f' AND k.conparentid = 0"
)
_INDEXES = text(
    "SELECT CAST(CAST(i.indexrelid AS regclass) AS text) AS name, pg_get_indexdef(i.indexrelid) AS definition "
    f"FROM {_NAMES} JOIN pg_class AS c ON c.oid = {_OID} JOIN pg_index AS i ON i.indrelid = c.oid "
    "WHERE c.relkind = 'r' AND NOT c.relispartition AND NOT i.indisunique "
    "AND NOT EXISTS (SELECT 1 FROM pg_constraint AS k WHERE k.conindid = i.indexrelid)"
)


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table as PostgreSQL has it: its name, the name with its schema, quoted, and its columns.

    Columns that PostgreSQL generates are left out.
    """

    name: str
    qualified_name: str
    columns: list[str]


class Partition(TypedDict):
    """A partition: its table, its own name, and its bounds in the words of CREATE TABLE."""

    parent: str
    name: str
    bounds: str


class Counter(TypedDict):
    """Where the sequence of a column stands. ``called``: whether ``value`` has been given out."""

    table: str
    column: str
    value: int
    called: bool


def quote(name: str) -> str:
    """Return a name as an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def existing_tables(connection: Connection, names: Sequence[str]) -> list[str]:
    """Return those of the tables that exist, in the same order."""
    return list(connection.scalars(_EXISTING, {"names": list(names)}))


def read_tables(connection: Connection, names: Sequence[str]) -> dict[str, StoredTable]:
    """Return the tables that exist, by their names."""
    rows = connection.execute(_TABLES, {"names": list(names)})
    return {row.name: StoredTable(row.name, row.qualified, row.columns) for row in rows}


def filled_tables(connection: Connection, names: Sequence[str]) -> list[str]:
    """Return the names of those tables that exist and have any row."""
    existing = existing_tables(connection, names)
    if not existing:
        return []
    tests = ", ".join(f"EXISTS (SELECT 1 FROM {quote(name)})" for name in existing)
    row = connection.exec_driver_sql(f"SELECT {tests}").one()
    return [name for name, has_rows in zip(existing, row, strict=True) if has_rows]


def read_partitions(connection: Connection, names: Sequence[str]) -> list[Partition]:
    """Return the partitions of the tables."""
    rows = connection.execute(_PARTITIONS, {"names": list(names)})
    return [{"parent": row.parent, "name": row.name, "bounds": row.bounds} for row in rows]


def create_partitions(connection: Connection, partitions: Iterable[Partition]) -> None:
    """Create the partitions that are missing. Bounds that overlap with another partition raise SQLAlchemyError."""
    run_together(
        connection,
        [
            f"CREATE TABLE IF NOT EXISTS {quote(each['name'])} PARTITION OF {quote(each['parent'])} {each['bounds']}"
            for each in partitions
        ],
    )


def read_counters(connection: Connection, names: Sequence[str]) -> list[Counter]:
    """Return where the sequences of all columns stand."""
    counters: list[Counter] = []
    for row in connection.execute(_SEQUENCES, {"names": list(names)}).all():
        value, called = connection.exec_driver_sql(f"SELECT last_value, is_called FROM {row.sequence}").one()
        counters.append({"table": row.name, "column": row.column_name, "value": value, "called": called})
    return counters


def set_counters(connection: Connection, counters: Iterable[Counter]) -> None:
    """Set the sequences of columns."""
    statement = text("SELECT setval(pg_get_serial_sequence(quote_ident(:table), :column), :value, :called)")
    for each in counters:
        connection.execute(statement, dict(each))


def drop_indexes(connection: Connection, names: Sequence[str]) -> list[str]:
    """Drop the foreign keys and the plain indexes of tables. Return the statements that create them again."""
    keys = connection.execute(_FOREIGN_KEYS, {"names": list(names)}).all()
    indexes = connection.execute(_INDEXES, {"names": list(names)}).all()
    drops = [f"ALTER TABLE {quote(key.table_name)} DROP CONSTRAINT {quote(key.name)}" for key in keys]
    run_together(connection, drops + [f"DROP INDEX {index.name}" for index in indexes])
    again = [f"ALTER TABLE {quote(key.table_name)} ADD CONSTRAINT {quote(key.name)} {key.definition}" for key in keys]
    return [index.definition for index in indexes] + again


def run_together(connection: Connection, statements: Sequence[str]) -> None:
    """Run statements without results in one round trip."""
    if statements:
        # A definition may hold a percent sign, which is no place for a parameter.
        connection.exec_driver_sql("; ".join(statements), execution_options={"no_parameters": True})
