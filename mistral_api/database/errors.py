"""Failures of PostgreSQL: as an error for a client, as a line for the log, and whether waiting can help.

SQLAlchemy wraps psycopg2's errors and writes the statement around them. Nothing here shows the statement or its
parameters: they may hold what a user wrote. Error classes are those of PostgreSQL's documentation, appendix A.

An error of a connection that could not be made has no code in psycopg2. What it means is told from its words, which are
those of libpq (fe-connect.c, fe-auth.c), of the server (auth.c, postinit.c, in English) and of the usual poolers.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from collections.abc import Iterator

import psycopg2
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from mistral_api.errors import Unavailable
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

# Data exceptions, whose messages quote the value.
_QUOTING_CLASS = "22"
# Data exceptions, broken constraints, and rows too large for an index or a type.
_ROW_ERROR_CLASSES = (_QUOTING_CLASS, "23", "54")
_QUERY_CANCELED = "57014"
_INSUFFICIENT_PRIVILEGE = "42501"

# Errors that pass: of connections, transactions and their state (read-only), resources, locks, operators and systems.
_PASSING_CLASSES = ("08", "25", "40", "53", "55", "57", "58", "XX")
# By these words of a connection that is refused it is refused for good, until the operator changes something.
_FINAL_WORDS = re.compile(
    r"password authentication failed|no password supplied|authentication failed for user|role \S+ does not exist"
    r"|database \S.* does not exist|permission denied for (?:database|schema)|is not permitted to log in"
    r"|no pg_hba\.conf entry|pg_hba\.conf rejects|invalid (?:dsn|\S+ value|port number|connection option|integer value)"
    r"|no such (?:user|database)\b|Tenant or user not found",
)
# What libpq puts before the reason.
_CONNECTION_TO = re.compile(r"^connection to server .*? failed: ")
# What an operator may look at first. A missing encryption is named by the server (auth.c).
_ADVICE = (
    ("password authentication failed", ", so check user and password, in which a % is written as %25"),
    ("no encryption", ", so add sslmode=require to the URL"),
    ("SSL off", ", so add sslmode=require to the URL"),
)
# The attribute of psycopg2's error that says which database it is of.
_ADDRESS = "database_address"


class DatabaseNotPrepared(psycopg2.OperationalError):
    """The database may not be used yet: it is away since the start, or is not ours. The log has said so already."""


class MigrationFailed(Exception):
    """Alembic cannot migrate the schema: only whoever has changed the migrations can mend that."""


@contextlib.contextmanager
def translate_database_errors() -> Iterator[None]:
    """Raise Unavailable (``database_unavailable``) where PostgreSQL does not answer a statement of the block."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        if not is_known_absence(error):
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


def is_known_absence(error: Exception) -> bool:
    """Return whether the log has already said why the database cannot be used."""
    return isinstance(root_cause(error), DatabaseNotPrepared)


def warn_of_absence(warn: ThrottledWarning, what: str, error: Exception) -> None:
    """Log what waits for the database, and why, unless the log has already said why the database cannot be used."""
    if not is_known_absence(error):
        warn("%s: %s", what, error_summary(error))


def is_final(error: Exception) -> bool:
    """Return whether no waiting would mend a database that cannot be opened or migrated, but only its operator.

    A wrong password, a database or role that is not there and missing rights are final. A server that is not found,
    does not answer, starts, is full or read-only, or with which no TLS can be agreed on, is not.
    """
    code = sqlstate(error)
    if code:
        return code[:2] not in _PASSING_CLASSES
    if isinstance(error, MigrationFailed | ArgumentError):
        return True
    return _FINAL_WORDS.search(str(root_cause(error))) is not None


def error_type(error: Exception) -> str:
    """Return the class of an error and its code in PostgreSQL. It quotes nothing that a user wrote."""
    name, code = type(root_cause(error)).__name__, sqlstate(error)
    return f"{name} ({code})" if code else name


def error_message(error: Exception) -> str:
    """Return which database an error is of, and why, in one line: ``db.example.com:5432/mistral: Connection refused``.

    Instead of a message that quotes what a user wrote it has the class of the error.
    """
    address = getattr(root_cause(error), _ADDRESS, None)
    return f"{address}: {error_reason(error)}" if address else error_reason(error)


def error_reason(error: Exception) -> str:
    """Return why a statement failed, in one line, without the database that it was for."""
    if sqlstate(error).startswith(_QUOTING_CLASS):
        return error_type(error)
    return _reason(str(root_cause(error)))


def unusable_sentence(error: Exception) -> str:
    """Return a sentence that says which database cannot be used, and why."""
    address, reason = getattr(root_cause(error), _ADDRESS, None), error_reason(error)
    advice = next((words for pattern, words in _ADVICE if pattern in reason), "")
    return f"the database {f'{address} ' if address else ''}cannot be used: {reason}{advice}."


def _reason(message: str) -> str:
    """Return the line of a message that says most. The lines after it quote statements and rows.

    Where several addresses of a host were tried, each has a line; what a server has said counts more than that another
    one cannot be reached.
    """
    lines = message.strip().splitlines()
    refusal = next((line for line in lines if "FATAL: " in line), None)
    line = refusal or next(iter(lines), "")
    return _CONNECTION_TO.sub("", line.strip()).removeprefix("FATAL: ").strip().rstrip(".")


def note_address(error: BaseException, address: str) -> None:
    """Have an error of psycopg2 say which database it is of."""
    if not isinstance(error, DatabaseNotPrepared):
        setattr(error, _ADDRESS, address)


def error_summary(error: Exception) -> str:
    """Return the class of an error and the first line of its message, together at most 300 characters."""
    return f"{type(root_cause(error)).__name__}: {error_message(error)}"[:300]


def root_cause(error: Exception) -> BaseException:
    """Return psycopg2's own error where SQLAlchemy has wrapped it, else the error itself."""
    return getattr(error, "orig", None) or error


def sqlstate(error: Exception) -> str:
    """Return PostgreSQL's code of an error (its documentation, appendix "Error Codes"), empty where it has none."""
    return getattr(root_cause(error), "pgcode", None) or ""
