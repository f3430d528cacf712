"""Reading PostgreSQL for a view: its failures become a 503 that says so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from mistral_api.database_sessions import told_as_unavailable
from mistral_api.errors import NotFound, Unavailable
from mistral_api.extensions import db
from mistral_api.services import services

RECORDING_DEADLINE_SECONDS = 2.0

T = TypeVar("T")


@contextlib.contextmanager
def database_session() -> Iterator[Session]:
    """The request's session. Raises Unavailable (``database_unavailable``) without PostgreSQL."""
    with told_as_unavailable():
        try:
            yield db.session()
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
