"""Reading PostgreSQL for a view: its failures become a 503 that says so."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from mistral_api.database_errors import cause_of
from mistral_api.errors import NotFound, Unavailable
from mistral_api.extensions import db
from mistral_api.services import services

log = logging.getLogger(__name__)

RECORDING_DEADLINE_SECONDS = 2.0

T = TypeVar("T")


@contextlib.contextmanager
def database_session() -> Iterator[Session]:
    """The request's session. Raises Unavailable (``database_unavailable``) without PostgreSQL."""
    try:
        yield db.session()
    except (DBAPIError, PoolTimeoutError) as error:
        db.session.rollback()
        log.warning("the database did not answer: %s", str(cause_of(error)).strip())
        raise Unavailable(
            "The database does not answer; generation goes on and is recorded.", code="database_unavailable"
        ) from error
    except SQLAlchemyError:
        db.session.rollback()
        raise


def require_all_recorded() -> None:
    """Wait until every exchange that has ended can be read. Raises Unavailable (``recording_delayed``)."""
    if not services().recorder.wait_for_all(RECORDING_DEADLINE_SECONDS):
        raise Unavailable("The newest records are kept but not readable yet.", code="recording_delayed")


def found_once_recorded(find: Callable[[], T]) -> T:
    """What ``find`` finds: at once, or when everything that has ended can be read.

    Raises NotFound, and Unavailable (``recording_delayed``).
    """
    try:
        return find()
    except NotFound:
        require_all_recorded()
        return find()


def require_recorded(owner: str, session_id: str) -> None:
    """Wait until all that was said in a session can be read. Raises Unavailable (``recording_delayed``)."""
    if not services().recorder.wait_for_session(owner, session_id, RECORDING_DEADLINE_SECONDS):
        raise Unavailable(
            "The newest messages of this conversation are recorded but not readable yet.",
            code="recording_delayed",
        )
