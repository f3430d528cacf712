"""Failures of the database in our words; row at fault or database away.

What a failure of the database says for itself, without what SQLAlchemy writes around it, and says to a client.

What a failure to deliver means: wrong rows, or a database that cannot take any now.

Error classes: PostgreSQL's documentation, appendix A.
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


def root_cause(error: Exception) -> BaseException:
    """psycopg2's own error in one of SQLAlchemy's, else the error itself."""
    return getattr(error, "orig", None) or error


def error_message(error: Exception) -> str:
    """The first line of what it says, without the statement and its parameters."""
    return next(iter(str(root_cause(error)).strip().splitlines()), "")


@contextlib.contextmanager
def translate_database_errors() -> Iterator[None]:
    """For what cannot be answered without PostgreSQL. Raises Unavailable (``database_unavailable``) without it."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        log.warning("the database did not answer: %s", str(root_cause(error)).strip())
        raise Unavailable(
            "The database does not answer; generation goes on and is recorded.", code="database_unavailable"
        ) from error


# Data exceptions, broken constraints, and rows too large for an index or a type.
_ROW_CLASSES = ("22", "23", "54")
_QUERY_CANCELED = "57014"


def is_row_error(error: Exception) -> bool:
    """Whether the rows are at fault: no waiting would make the database take them.

    That includes whatever fails here, before the database has seen anything.
    """
    if isinstance(error, DBAPIError):
        return _code(error)[:2] in _ROW_CLASSES
    if isinstance(error, SQLAlchemyError):
        return type(error) is StatementError
    return not isinstance(error, sqlite3.Error | OSError | MemoryError)


def is_statement_timeout(error: Exception) -> bool:
    """Whether the statement timeout ended it."""
    return _code(error) == _QUERY_CANCELED


def error_type(error: Exception) -> str:
    """The name of an error, and its code in PostgreSQL; nothing that a user wrote."""
    name, code = type(root_cause(error)).__name__, _code(error)
    return f"{name} ({code})" if code else name


def error_summary(error: Exception) -> str:
    """One line, without the statement's parameters."""
    return f"{type(root_cause(error)).__name__}: {error_message(error)}"[:300]


def _code(error: Exception) -> str:
    return getattr(root_cause(error), "pgcode", None) or ""
