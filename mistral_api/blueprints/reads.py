"""Reading PostgreSQL for a view: its failures become a 503 that says so."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from mistral_api.database_errors import cause_of
from mistral_api.errors import Unavailable
from mistral_api.extensions import db
from mistral_api.services import services

log = logging.getLogger(__name__)

RECORDING_DEADLINE_SECONDS = 2.0


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


def require_recorded(owner: str, session_id: str) -> None:
    """Wait until all that was said in a session can be read. Raises Unavailable (``recording_delayed``)."""
    if not services().recorder.wait_for_session(owner, session_id, RECORDING_DEADLINE_SECONDS):
        raise Unavailable(
            "The newest messages of this conversation are recorded but not readable yet.",
            code="recording_delayed",
        )
