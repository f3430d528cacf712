"""What a failure to deliver means: wrong rows, or a database that cannot take any now.

Error classes: PostgreSQL's documentation, appendix A.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from mistral_api.database_errors import first_line_of, root_message

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


def took_too_long(error: Exception) -> bool:
    """Whether the statement timeout ended it."""
    return _code(error) == _QUERY_CANCELED


def kind_of(error: Exception) -> str:
    """The name of an error, and its code in PostgreSQL; nothing that a user wrote."""
    name, code = type(root_message(error)).__name__, _code(error)
    return f"{name} ({code})" if code else name


def first_line(error: Exception) -> str:
    """One line, without the statement's parameters."""
    return f"{type(root_message(error)).__name__}: {first_line_of(error)}"[:300]


def _code(error: Exception) -> str:
    return getattr(root_message(error), "pgcode", None) or ""
