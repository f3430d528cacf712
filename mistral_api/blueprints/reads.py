"""Reading PostgreSQL for a view: its failures become a 503 that says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from mistral_api.database_errors import database_needed
from mistral_api.errors import Unavailable
from mistral_api.extensions import db
from mistral_api.services import services


@contextlib.contextmanager
def database_session() -> Iterator[Session]:
    """The request's session. Raises Unavailable (``database_unavailable``) without PostgreSQL."""
    try:
        with database_needed():
            yield db.session()
    except (SQLAlchemyError, Unavailable):
        db.session.rollback()
        raise


def require_recorded(owner: str, session_id: str) -> None:
    """Wait until all that was said in a session can be read. Raises Unavailable (``recording_delayed``)."""
    services().history.require_recorded(owner, session_id)
