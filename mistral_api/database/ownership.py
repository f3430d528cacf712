"""Whose tables a database has: ours, nobody's yet, or those of another program that uses the same names.

A database may serve several programs, and ``conversations`` or ``messages`` are names that others use too. Alembic's
table ``alembic_version`` says nothing by itself: other programs use Alembic, and number their revisions as we do. A
table is ours where its primary key has the name and the columns that our migrations give it. In a schema of the
newest revision it must have every column of ours as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, text

from mistral_api.database.address import shown_address
from mistral_api.database.revisions import VERSION_TABLE, all_revisions
from mistral_api.database.search_path import schema_of
from mistral_api.database.tables import all_tables, table_names
from mistral_api.errors import StartError

# A schema name for the way out, where the operator has chosen none.
SUGGESTED_SCHEMA = "mistral_api"

# Names are looked up as our statements find them: along the search path. One round trip for all of them, since the
# database may be far away.
_RELATIONS = text(
    "SELECT name, k.conname AS key_name, "
    "ARRAY(SELECT CAST(a.attname AS text) FROM unnest(k.conkey) WITH ORDINALITY AS part(number, place) "
    "JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = part.number ORDER BY place) AS key_columns, "
    "ARRAY(SELECT CAST(a.attname AS text) FROM pg_attribute AS a WHERE a.attrelid = to_regclass(quote_ident(name)) "
    "AND a.attnum > 0 AND NOT a.attisdropped) AS columns "
    "FROM unnest(CAST(:names AS text[])) AS name "
    "LEFT JOIN pg_constraint AS k ON k.conrelid = to_regclass(quote_ident(name)) AND k.contype = 'p' "
    "WHERE to_regclass(quote_ident(name)) IS NOT NULL"
)


@dataclass(frozen=True, slots=True)
class _Relation:
    """A relation that has a name of ours."""

    key_name: str | None
    key_columns: list[str]
    columns: set[str]


def require_own_tables(connection: Connection) -> None:
    """Refuse a database in which another program has tables of our names. Raises StartError, which names one.

    A database without any, and one of a newer version of this program, are not refused.
    """
    foreign = find_foreign_table(connection)
    if foreign is not None:
        raise StartError(_sentence(foreign, schema_of(connection), shown_address(connection.engine.url)))


def _sentence(table: str, schema: str | None, address: str) -> str:
    if schema is not None:
        return (
            f"DATABASE_SCHEMA: in the schema '{schema}' of {address} another program has a table '{table}': choose "
            "another name."
        )
    return (
        f"DATABASE_URL: in the database {address} another program has a table '{table}': set "
        f"DATABASE_SCHEMA={SUGGESTED_SCHEMA}, and our tables get a schema of their own."
    )


def find_foreign_table(connection: Connection) -> str | None:
    """Return the name of a table that has a name of ours and is another program's, or None where there is none."""
    tables = all_tables()
    rows = connection.execute(_RELATIONS, {"names": [VERSION_TABLE, *table_names()]})
    found = {row.name: _Relation(row.key_name, row.key_columns, set(row.columns)) for row in rows}
    ours = [table for table in tables if table.name in found]
    if VERSION_TABLE not in found:
        return str(ours[0].name) if ours else None
    if "version_num" not in found[VERSION_TABLE].columns:
        return VERSION_TABLE
    stored = set(connection.scalars(text(f"SELECT version_num FROM {VERSION_TABLE}")))
    return _find_foreign(ours, found, stored)


def _find_foreign(ours: Sequence[Table], found: Mapping[str, _Relation], stored: set[str]) -> str | None:
    """Judge the tables that have our names by the revisions that are stored in ``alembic_version``."""
    if not stored:  # migrated down to nothing
        return str(ours[0].name) if ours else None
    known = all_revisions()
    keyed = [table for table in ours if _has_our_key(table, found[table.name])]
    if not stored <= set(known):
        # A newer version of ours, or another program's numbers.
        return None if keyed else VERSION_TABLE
    if not ours:
        return VERSION_TABLE
    newest = known[0] in stored
    foreign = [table for table in ours if table not in keyed or (newest and _lacks_columns(table, found[table.name]))]
    return str(foreign[0].name) if foreign else None


def _has_our_key(table: Table, relation: _Relation) -> bool:
    columns = [column.name for column in table.primary_key]
    return (relation.key_name, relation.key_columns) == (table.primary_key.name, columns)


def _lacks_columns(table: Table, relation: _Relation) -> bool:
    return not {column.name for column in table.columns} <= relation.columns
