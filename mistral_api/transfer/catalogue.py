"""What PostgreSQL's catalogue says about our tables: columns, partitions, counters, indexes, whether there are rows.

Nothing here lists a column by hand, so that every revision of the schema is carried. ``names`` are tables of ours as
our statements name them, without a schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

from sqlalchemy import Connection, text

_COLUMNS = text(
    "SELECT CAST(attname AS text) FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(:name)) AND attnum > 0 "
    "AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
)
_QUALIFIED = text(
    "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class AS c "
    "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(quote_ident(:name))"
)
_EXISTING = text(
    "SELECT name FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS listed(name, place) "
    "WHERE to_regclass(quote_ident(name)) IS NOT NULL ORDER BY place"
)
# pg_get_expr gives a partition's bounds as CREATE TABLE takes them.
_PARTITIONS = text(
    "SELECT p.relname AS parent, c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds "
    "FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid JOIN pg_class AS p ON p.oid = i.inhparent "
    "WHERE c.relispartition AND p.oid IN "
    "(SELECT to_regclass(quote_ident(name)) FROM unnest(CAST(:names AS text[])) AS name) ORDER BY p.relname, c.relname"
)
_COUNTED_COLUMNS = text(
    "SELECT CAST(a.attname AS text) AS column_name, "
    "pg_get_serial_sequence(quote_ident(:name), CAST(a.attname AS text)) AS sequence "
    "FROM pg_attribute AS a WHERE a.attrelid = to_regclass(quote_ident(:name)) AND a.attnum > 0 AND NOT a.attisdropped "
    "AND pg_get_serial_sequence(quote_ident(:name), CAST(a.attname AS text)) IS NOT NULL ORDER BY a.attnum"
)
# What can be made again after the rows are in, which is faster. The primary key and the unique keys stay, and so do
# the indexes of a partitioned table, which belong to its partitions too.
_FOREIGN_KEYS = text(
    "SELECT CAST(k.conname AS text) AS name, pg_get_constraintdef(k.oid) AS definition FROM pg_constraint AS k "
    "WHERE k.conrelid = to_regclass(quote_ident(:name)) AND k.contype = 'f' AND k.conparentid = 0"
)
_INDEXES = text(
    "SELECT CAST(CAST(i.indexrelid AS regclass) AS text) AS name, pg_get_indexdef(i.indexrelid) AS definition "
    "FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid "
    "WHERE c.oid = to_regclass(quote_ident(:name)) AND c.relkind = 'r' AND NOT c.relispartition AND NOT i.indisunique "
    "AND NOT EXISTS (SELECT 1 FROM pg_constraint AS k WHERE k.conindid = i.indexrelid)"
)


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


def column_names(connection: Connection, name: str) -> list[str]:
    """Return the columns of a table that are stored, without those that PostgreSQL generates."""
    return list(connection.scalars(_COLUMNS, {"name": name}))


def qualified_name(connection: Connection, name: str) -> str:
    """Return a table's name with its schema, quoted, for a statement that has no search path."""
    return str(connection.scalars(_QUALIFIED, {"name": name}).one())


def has_rows(connection: Connection, name: str) -> bool:
    """Return whether a table has any row."""
    return bool(connection.scalar(text(f"SELECT EXISTS (SELECT 1 FROM {quote(name)})")))


def read_partitions(connection: Connection, names: Sequence[str]) -> list[Partition]:
    """Return the partitions of the tables."""
    rows = connection.execute(_PARTITIONS, {"names": list(names)})
    return [{"parent": row.parent, "name": row.name, "bounds": row.bounds} for row in rows]


def create_partitions(connection: Connection, partitions: Iterable[Partition]) -> None:
    """Create the partitions that are missing. Bounds that overlap with another partition raise SQLAlchemyError."""
    for each in partitions:
        connection.exec_driver_sql(
            f"CREATE TABLE IF NOT EXISTS {quote(each['name'])} PARTITION OF {quote(each['parent'])} {each['bounds']}"
        )


def read_counters(connection: Connection, names: Iterable[str]) -> list[Counter]:
    """Return where the sequences of all columns stand."""
    counters: list[Counter] = []
    for name in names:
        for column, sequence in connection.execute(_COUNTED_COLUMNS, {"name": name}).all():
            value, called = connection.exec_driver_sql(f"SELECT last_value, is_called FROM {sequence}").one()
            counters.append({"table": name, "column": column, "value": value, "called": called})
    return counters


def set_counters(connection: Connection, counters: Iterable[Counter]) -> None:
    """Set the sequences of columns."""
    statement = text("SELECT setval(pg_get_serial_sequence(quote_ident(:table), :column), :value, :called)")
    for each in counters:
        connection.execute(statement, dict(each))


def drop_indexes(connection: Connection, names: Iterable[str]) -> list[str]:
    """Drop the foreign keys and the plain indexes of tables. Return the statements that create them again."""
    again: list[str] = []
    keys: list[str] = []
    for name in names:
        for key in connection.execute(_FOREIGN_KEYS, {"name": name}).all():
            connection.exec_driver_sql(f"ALTER TABLE {quote(name)} DROP CONSTRAINT {quote(key.name)}")
            keys.append(f"ALTER TABLE {quote(name)} ADD CONSTRAINT {quote(key.name)} {key.definition}")
        for index in connection.execute(_INDEXES, {"name": name}).all():
            connection.exec_driver_sql(f"DROP INDEX {index.name}")
            again.append(index.definition)
    return again + keys
