"""The schema of our tables: DATABASE_SCHEMA, or where that is not set, the first of the role's own search path.

Every statement in this program names its tables without a schema. With DATABASE_SCHEMA, each statement is sent with a
``SET LOCAL search_path`` before it, in the same message, so that it costs no round trip. The other ways fail behind a
connection pooler that gives each transaction another server connection (pgbouncer, ``pool_mode=transaction``):
``SET search_path`` would be lost there, and would reach the transactions of other clients, and ``options`` in a
connection string is refused (pgbouncer's documentation, ``ignore_startup_parameters``). ``SET LOCAL`` ends with the
transaction, a transaction of one message included.

Two kinds of statements go without it. Savepoints need no schema, and a failed transaction takes nothing but the return
to one; ``VACUUM`` is for the whole database. And PostgreSQL builds an index ``CONCURRENTLY`` only in a message of its
own: there, the name of the table or index gets its schema.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg2.extensions
from sqlalchemy import Connection, Engine, event

# The execution option of an engine that holds the name of the schema.
_OPTION = "database_schema"
_CONCURRENTLY = re.compile(
    r"(\s*(?:CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?\S+\s+ON\s+"
    r"|DROP\s+INDEX\s+CONCURRENTLY\s+(?:IF\s+EXISTS\s+)?|REINDEX\s+(?:INDEX|TABLE)\s+CONCURRENTLY\s+))",
    re.IGNORECASE,
)
_SETTING = re.compile(r'SET LOCAL search_path TO "[^"]*"; ')
_WITHOUT_SCHEMA = re.compile(r"\s*(SAVEPOINT|ROLLBACK|RELEASE|VACUUM)\b", re.IGNORECASE)


def use_schema(engine: Engine, schema: str | None) -> None:
    """Have every statement of an engine find and create its tables in a schema, and no other. None changes nothing.

    The schema need not exist yet. Its name is a plain identifier, as the setting DATABASE_SCHEMA allows it.
    """
    if schema is None:
        return
    engine.update_execution_options(**{_OPTION: schema})
    setting = search_path_setting(schema)

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def _send_with_setting(
        _connection: Connection,
        cursor: psycopg2.extensions.cursor,
        statement: str,
        parameters: Any,
        _context: object,
        _executemany: bool,
    ) -> tuple[str, Any]:
        if _CONCURRENTLY.match(statement):
            return _CONCURRENTLY.sub(rf'\1"{schema}".', statement, count=1), parameters
        if _WITHOUT_SCHEMA.match(statement):
            return statement, parameters
        if cursor.name is None:
            return setting + statement, parameters
        # psycopg2 puts DECLARE before the statement of a server-side cursor, so the setting goes first.
        with cursor.connection.cursor() as plain:
            plain.execute(setting)
        return statement, parameters


def search_path_setting(schema: str) -> str:
    """Return what goes before a statement in its message, so that its tables are found in the schema."""
    return f'SET LOCAL search_path TO "{schema}"; '


def without_search_path(statement: str) -> str:
    """Return a statement, as it was sent, without the setting before it."""
    setting = _SETTING.match(statement)
    return statement if setting is None else statement[setting.end() :]


def schema_of(connection: Connection) -> str | None:
    """Return the schema that the connection's engine was given, or None where it was given none."""
    schema: str | None = connection.get_execution_options().get(_OPTION)
    return schema


def create_schema(connection: Connection) -> None:
    """Create the schema of the connection's engine where it is missing. Raises sqlalchemy.exc.SQLAlchemyError.

    It is looked for first: CREATE SCHEMA IF NOT EXISTS needs the right to create one also where it exists.
    """
    schema = schema_of(connection)
    if schema is None:
        return
    if connection.exec_driver_sql("SELECT to_regnamespace(%s)", (f'"{schema}"',)).scalar() is None:
        connection.exec_driver_sql(f'CREATE SCHEMA "{schema}"')
