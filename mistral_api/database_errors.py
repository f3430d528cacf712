"""What a failure of the database says for itself, without what SQLAlchemy writes around it, and says to a client."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from mistral_api.errors import Unavailable

log = logging.getLogger(__name__)


def root_message(error: Exception) -> BaseException:
    """psycopg2's own error in one of SQLAlchemy's, else the error itself."""
    return getattr(error, "orig", None) or error


def first_line_of(error: Exception) -> str:
    """The first line of what it says, without the statement and its parameters."""
    return next(iter(str(root_message(error)).strip().splitlines()), "")


@contextlib.contextmanager
def translate_database_errors() -> Iterator[None]:
    """For what cannot be answered without PostgreSQL. Raises Unavailable (``database_unavailable``) without it."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        log.warning("the database did not answer: %s", str(root_message(error)).strip())
        raise Unavailable(
            "The database does not answer; generation goes on and is recorded.", code="database_unavailable"
        ) from error
