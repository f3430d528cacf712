"""Sessions on PostgreSQL whose failures are told as ours."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from mistral_api.database_errors import cause_of
from mistral_api.errors import Unavailable

log = logging.getLogger(__name__)


@contextlib.contextmanager
def told_as_unavailable() -> Iterator[None]:
    """Turn the failures of PostgreSQL into Unavailable (``database_unavailable``)."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        log.warning("the database did not answer: %s", str(cause_of(error)).strip())
        raise Unavailable(
            "The database does not answer; generation goes on and is recorded.", code="database_unavailable"
        ) from error


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session of its own. Raises Unavailable (``database_unavailable``) without PostgreSQL."""
    with told_as_unavailable(), Session(engine) as session:
        yield session
