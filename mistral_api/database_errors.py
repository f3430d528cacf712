"""What a failure of the database says for itself, without what SQLAlchemy writes around it."""

from __future__ import annotations


def cause_of(error: Exception) -> BaseException:
    """psycopg2's own error in one of SQLAlchemy's, else the error itself."""
    return getattr(error, "orig", None) or error


def first_line_of(error: Exception) -> str:
    """The first line of what it says, without the statement and its parameters."""
    return next(iter(str(cause_of(error)).strip().splitlines()), "")
