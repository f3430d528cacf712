"""Failures of PostgreSQL: as an error for a client, as a line for the log, and whether waiting can help.

SQLAlchemy wraps psycopg2's errors and writes the statement around them. Nothing here shows the statement or its
parameters: they may hold what a user wrote. Error classes are those of PostgreSQL's documentation, appendix A.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from mistral_api.errors import Unavailable

log = logging.getLogger(__name__)

# Data exceptions, whose messages quote the value.
_QUOTING_CLASS = "22"
# Data exceptions, broken constraints, and rows too large for an index or a type.
_ROW_ERROR_CLASSES = (_QUOTING_CLASS, "23", "54")
_QUERY_CANCELED = "57014"
_INSUFFICIENT_PRIVILEGE = "42501"


@contextlib.contextmanager
def translate_database_errors() -> Iterator[None]:
    """Raise Unavailable (``database_unavailable``) where PostgreSQL does not answer a statement of the block."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        log.warning("the database did not answer: %s", error_message(error))
        raise Unavailable(
            "The database does not answer; generation goes on and is recorded.", code="database_unavailable"
        ) from error


def is_row_error(error: Exception) -> bool:
    """Return whether the rows are at fault: no waiting would make PostgreSQL take them.

    That includes every failure of our own code before PostgreSQL has got the rows.
    """
    if isinstance(error, DBAPIError):
        return sqlstate(error)[:2] in _ROW_ERROR_CLASSES
    if isinstance(error, SQLAlchemyError):
        return type(error) is StatementError
    return not isinstance(error, sqlite3.Error | OSError | MemoryError)


def is_statement_timeout(error: Exception) -> bool:
    """Return whether the statement timeout has ended the statement."""
    return sqlstate(error) == _QUERY_CANCELED


def is_permission_error(error: Exception) -> bool:
    """Return whether the role may not do what the statement does."""
    return sqlstate(error) == _INSUFFICIENT_PRIVILEGE


def error_type(error: Exception) -> str:
    """Return the class of an error and its code in PostgreSQL. It quotes nothing that a user wrote."""
    name, code = type(root_cause(error)).__name__, sqlstate(error)
    return f"{name} ({code})" if code else name


def error_message(error: Exception) -> str:
    """Return the first line of an error's message, or its class where that line quotes what a user wrote.

    The lines after it quote statements and rows.
    """
    if sqlstate(error).startswith(_QUOTING_CLASS):
        return error_type(error)
    return next(iter(str(root_cause(error)).strip().splitlines()), "")


def error_summary(error: Exception) -> str:
    """Return the class of an error and the first line of its message, together at most 300 characters."""
    return f"{type(root_cause(error)).__name__}: {error_message(error)}"[:300]


def root_cause(error: Exception) -> BaseException:
    """Return psycopg2's own error where SQLAlchemy has wrapped it, else the error itself."""
    return getattr(error, "orig", None) or error


def sqlstate(error: Exception) -> str:
    """Return PostgreSQL's code of an error (its documentation, appendix "Error Codes"), empty where it has none."""
    return getattr(root_cause(error), "pgcode", None) or ""
