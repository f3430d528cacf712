"""Completing the search of a database that is older than its columns, or had no pg_trgm, in the background.

Rows that were stored before ``search_text`` and ``search_grams`` were there are filled in batch by batch, the newest
first. Each batch is a short transaction that also notes how far it came (``search_backfill``), so another process or
the next start goes on there. Until its turn a row is found by its words (``search_conditions.has_former_column``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from psycopg2.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import DBAPIError, OperationalError

from mistral_api.conversations.search_text import MAX_SEARCHED_CHARACTERS, search_columns
from mistral_api.database.deadlines import without_session_deadline
from mistral_api.database.errors import error_summary
from mistral_api.database.tables.base import recordset, rows_as_json
from mistral_api.database.tables.conversations import Conversation, Message

log = logging.getLogger(__name__)

BATCH = 200
# Between two batches, so that other work has the database too.
PAUSE_SECONDS, LOCKED_SECONDS = 0.05, 1.0
# Shorter than PostgreSQL takes to see a deadlock: it is never the writer that has to give way.
LOCK_TIMEOUT_MS = 500

# As searchable_text does it. Here, since attachments need not come along.
_MESSAGE_TEXT = (
    "left(CASE jsonb_typeof(content) WHEN 'string' THEN content #>> '{}' "
    "WHEN 'array' THEN (SELECT string_agg(part ->> 'text', ' ' ORDER BY number) "
    "FROM jsonb_array_elements(content) WITH ORDINALITY AS parts(part, number) "
    f"WHERE jsonb_typeof(part -> 'text') = 'string') END, {MAX_SEARCHED_CHARACTERS})"
)
_SOURCES = {"messages": (Message, _MESSAGE_TEXT), "conversations": (Conversation, "title")}

# Another process that fills the same table holds its row.
_NEXT_TABLE = text(
    "SELECT table_name, done_from FROM search_backfill ORDER BY table_name LIMIT 1 FOR UPDATE SKIP LOCKED"
)
_SET_POSITION = text("UPDATE search_backfill SET done_from = :done_from WHERE table_name = :table_name")
_FINISH = text("DELETE FROM search_backfill WHERE table_name = :table_name")

_TRIGRAM_SCHEMA = text(
    "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace "
    "WHERE extname = 'pg_trgm'"
)
_INDEX_STATE = text(
    "SELECT indisvalid AS valid, EXISTS (SELECT FROM pg_stat_progress_create_index AS building "
    "WHERE building.index_relid = pg_index.indexrelid) AS in_progress "
    "FROM pg_index WHERE indexrelid = to_regclass(:name)"
)


class SearchCompletion:
    """Fills in the columns and builds the indexes that the search lacks. Used by one thread."""

    def __init__(self, engine: Engine, wait: Callable[[float], bool]) -> None:
        """``wait`` waits for so many seconds and returns whether the work shall end."""
        self._engine = engine
        self._wait = wait
        self._told = False

    def run(self) -> None:
        """Do what is left to do, until all is done or the work shall end. Raises sqlalchemy.exc.SQLAlchemyError."""
        self._build_indexes()
        filled = 0
        while (count := self._fill_batch()) is not None:
            filled += count
            if self._wait(PAUSE_SECONDS if count else LOCKED_SECONDS):
                return
        if filled:
            log.info("search: %d rows that were stored by a former version are now found by any part of them", filled)

    def _fill_batch(self) -> int | None:
        """Return how many rows were filled in, 0 where others hold them, None where there is nothing left."""
        try:
            with self._engine.begin() as connection:
                return fill_batch(connection)
        except OperationalError as error:
            if isinstance(error.orig, LockNotAvailable):
                return 0
            raise

    def _build_indexes(self) -> None:
        """Build the trigram indexes where they are missing: the extension may have come after the migration."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            try:
                ensure_trigram_indexes(connection)
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                self._tell_once(error)

    def _tell_once(self, error: DBAPIError) -> None:
        if not self._told:
            log.warning("search works, but slowly, since pg_trgm cannot be used: %s", error_summary(error))
        self._told = True


def fill_batch(connection: Connection) -> int | None:
    """Fill in the next rows, in the connection's transaction. Return how many, None where there is nothing left.

    Raises sqlalchemy.exc.OperationalError (LockNotAvailable) where others hold a row for long.
    """
    connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
    position = connection.execute(_NEXT_TABLE).one_or_none()
    if position is None:
        return None
    rows = _read_batch(connection, position.table_name, position.done_from)
    if not rows:
        connection.execute(_FINISH, {"table_name": position.table_name})
        return fill_batch(connection)
    _write_batch(connection, position.table_name, rows)
    connection.execute(_SET_POSITION, {"table_name": position.table_name, "done_from": rows[-1].id})
    return len(rows)


def _read_batch(connection: Connection, table: str, done_from: UUID | None) -> Sequence[Row[Any]]:
    source = _SOURCES[table][1]
    below = "" if done_from is None else "AND id < :done_from "
    query = f"SELECT id, {source} AS words FROM {table} WHERE search IS NOT NULL {below}"
    batch = {"done_from": done_from, "batch": BATCH}
    return connection.execute(text(f"{query} ORDER BY id DESC LIMIT :batch FOR NO KEY UPDATE"), batch).all()


def _write_batch(connection: Connection, table: str, rows: Sequence[Row[Any]]) -> None:
    columns = [{"id": row.id, **search_columns(row.words or None)} for row in rows]
    new_rows = recordset(_SOURCES[table][0], ["id", "search_text", "search_grams"])
    statement = (
        f"UPDATE {table} SET search_text = new_rows.search_text, search_grams = new_rows.search_grams, search = NULL "
        f"FROM {new_rows} WHERE {table}.id = new_rows.id"
    )
    connection.execute(text(statement), {"rows": rows_as_json(columns)})


def ensure_trigram_indexes(connection: Connection) -> None:
    """Build the indexes of pg_trgm that are missing, without a lock that others would wait for.

    The connection is in AUTOCOMMIT. Raises sqlalchemy.exc.DBAPIError where the extension cannot be used.
    """
    schema = connection.scalar(_TRIGRAM_SCHEMA)
    if schema is None:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
        schema = connection.scalar(_TRIGRAM_SCHEMA)
    for table in _SOURCES:
        state = connection.execute(_INDEX_STATE, {"name": f"ix_{table}_search_text"}).one_or_none()
        if state is None or not (state.valid or state.in_progress):
            _build_index(connection, table, schema)


def _build_index(connection: Connection, table: str, schema: str) -> None:
    name = f"ix_{table}_search_text"
    with without_session_deadline(connection):
        # One whose building was cut short stays behind and helps no query.
        connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
        connection.execute(
            text(
                f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {table} "
                f"USING gin (search_text {schema}.gin_trgm_ops) WHERE search_text IS NOT NULL"
            )
        )
    log.info("search: the index %s has been built", name)
