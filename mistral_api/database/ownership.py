"""Whose tables a database has: ours, nobody's yet, or those of another program that uses the same names.

A database may serve several programs, and ``conversations`` or ``messages`` are names that others use too. Alembic's
table ``alembic_version`` says nothing by itself: other programs use Alembic, and number their revisions as we do. A
table is ours where its primary key has the name and the columns that our migrations give it. In a schema of the
newest revision it must have every column of ours as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Table, text

from mistral_api.database.revisions import VERSION_TABLE, all_revisions
from mistral_api.database.search_path import schema_of
from mistral_api.database.tables import all_tables
from mistral_api.errors import StartError

# A schema name for the way out, where the operator has chosen none.
SUGGESTED_SCHEMA = "mistral_api"

# Names are looked up as our statements find them: along the search path.
_FOUND_NAMES = text(
    "SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE to_regclass(quote_ident(name)) IS NOT NULL"
)
_PRIMARY_KEYS = text(
    "SELECT name, k.conname, array_agg(CAST(a.attname AS text) ORDER BY array_position(k.conkey, a.attnum)) "
    "FROM unnest(CAST(:names AS text[])) AS name JOIN pg_constraint AS k "
    "ON k.conrelid = to_regclass(quote_ident(name)) AND k.contype = 'p' "
    "JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = ANY(k.conkey) GROUP BY name, k.conname"
)
_COLUMNS = text(
    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(:name)) AND attnum > 0 "
    "AND NOT attisdropped"
)


def require_own_tables(connection: Connection) -> None:
    """Refuse a database in which another program has tables of our names. Raises StartError, which names one.

    A database without any, and one of a newer version of this program, are not refused.
    """
    foreign = find_foreign_table(connection)
    if foreign is not None:
        raise StartError(_sentence(foreign, schema_of(connection)))


def _sentence(table: str, schema: str | None) -> str:
    if schema is not None:
        return f"DATABASE_SCHEMA: in the schema '{schema}' another program has a table '{table}': choose another name."
    return (
        f"DATABASE_URL: in this database another program has a table '{table}': set "
        f"DATABASE_SCHEMA={SUGGESTED_SCHEMA}, and our tables get a schema of their own."
    )


def find_foreign_table(connection: Connection) -> str | None:
    """Return the name of a table that has a name of ours and is another program's, or None where there is none."""
    tables = all_tables()
    found = set(connection.scalars(_FOUND_NAMES, {"names": [VERSION_TABLE, *(table.name for table in tables)]}))
    ours = [table for table in tables if table.name in found]
    if VERSION_TABLE not in found:
        return ours[0].name if ours else None
    if "version_num" not in _column_names(connection, VERSION_TABLE):
        return VERSION_TABLE
    return _find_foreign(connection, ours)


def _find_foreign(connection: Connection, found: Sequence[Table]) -> str | None:
    """Judge the tables by the revisions that stand in ``alembic_version``."""
    stored = set(connection.scalars(text(f"SELECT version_num FROM {VERSION_TABLE}")))
    if not stored:  # migrated down to nothing
        return found[0].name if found else None
    known = all_revisions()
    if not stored <= set(known):
        # A newer version of ours, or another program's numbers.
        return None if _has_our_key(connection, found) else VERSION_TABLE
    if not found:
        return VERSION_TABLE
    return next((table.name for table in found if not _is_ours(connection, table, newest=known[0] in stored)), None)


def _has_our_key(connection: Connection, tables: Sequence[Table]) -> bool:
    return any(_is_ours(connection, table, newest=False) for table in tables)


def _is_ours(connection: Connection, table: Table, *, newest: bool) -> bool:
    keys = [(name, list(columns)) for _, name, columns in connection.execute(_PRIMARY_KEYS, {"names": [table.name]})]
    if keys != [(table.primary_key.name, [column.name for column in table.primary_key])]:
        return False
    return not newest or {column.name for column in table.columns} <= _column_names(connection, table.name)


def _column_names(connection: Connection, table: str) -> set[str]:
    return set(connection.scalars(_COLUMNS, {"name": table}))
