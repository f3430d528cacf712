"""Reads from PostgreSQL, each in one round trip: no BEGIN, no ROLLBACK, and no check of a connection in use.

A database may be far away, so that round trips are what a read costs. psycopg2 sends BEGIN before the first statement
of a transaction and ROLLBACK at its end, each by itself; in autocommit it sends neither. A read changes nothing, so it
is simply sent again where its connection turns out to be dead.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg2.extensions
from sqlalchemy import Connection, Engine, Executable, Row
from sqlalchemy.exc import DBAPIError, OperationalError

from mistral_api.database.deadlines import ANSWER_TIMEOUT_SECONDS, answer_within
from mistral_api.database.engine import unchecked_connections
from mistral_api.database.errors import is_statement_timeout, translate_database_errors
from mistral_api.errors import Unavailable

# A connection that was idle for longer may have been closed by what stands between: it is checked before use.
CHECKED_AFTER_SECONDS = 60.0
# A read is sent again where its connection was found dead within this time.
_RETRY_WITHIN_SECONDS = 2.0
# How long a reader who can do without PostgreSQL waits for it, and for how long it does without it after a failure.
SHORT_ANSWER_SECONDS, AWAY_SECONDS = 8.0, 2.0


class DatabaseReads:
    """The read side of an engine. Safe to use from many threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._failed_at = float("-inf")

    def rows(
        self, statement: Executable, parameters: Mapping[str, Any], seconds: float = ANSWER_TIMEOUT_SECONDS
    ) -> Sequence[Row[Any]]:
        """Return the rows of a query. Raises Unavailable (``database_unavailable``).

        PostgreSQL has ``seconds`` for its answer.
        """
        with translate_database_errors(), unchecked_connections(CHECKED_AFTER_SECONDS), answer_within(seconds):
            return self._rows(statement, parameters)

    def _rows(self, statement: Executable, parameters: Mapping[str, Any]) -> Sequence[Row[Any]]:
        began = time.monotonic()
        try:
            return self._execute(statement, parameters)
        except DBAPIError as error:
            if not error.connection_invalidated or time.monotonic() - began > _RETRY_WITHIN_SECONDS:
                raise
            return self._execute(statement, parameters)

    def _execute(self, statement: Executable, parameters: Mapping[str, Any]) -> Sequence[Row[Any]]:
        try:
            with self._engine.connect() as connection, _autocommit(connection):
                return connection.execute(statement, parameters).all()
        except OperationalError as error:
            if not is_statement_timeout(error):
                self._failed_at = time.monotonic()
            raise

    def rows_if_reachable(self, statement: Executable, parameters: Mapping[str, Any]) -> Sequence[Row[Any]] | None:
        """Return the rows of a query for a reader who can do without, or None where PostgreSQL is away.

        It is not asked again within AWAY_SECONDS after it did not answer.
        """
        if time.monotonic() - self._failed_at < AWAY_SECONDS:
            return None
        try:
            return self.rows(statement, parameters, SHORT_ANSWER_SECONDS)
        except Unavailable:
            return None


@contextlib.contextmanager
def _autocommit(connection: Connection) -> Iterator[None]:
    """Let psycopg2 send nothing but the statements of the block.

    SQLAlchemy's option ``isolation_level`` would cost a round trip each time: it names the level to go back to
    afterwards, and psycopg2 then tells the server.
    """
    raw = connection.connection.dbapi_connection
    assert isinstance(raw, psycopg2.extensions.connection)  # noqa: S101 - for mypy
    # Where a level is set, psycopg2 tells the server at each change of autocommit; SQLAlchemy sets it when a connection
    # comes back that was used with the option.
    raw.isolation_level = None
    raw.autocommit = True
    try:
        yield
    finally:
        if not raw.closed:
            raw.autocommit = False
