"""Flask-SQLAlchemy session of a view; its failures become 503.

The Flask extensions, made without an application and bound to one by the factory.

Reading PostgreSQL for a view: its failures become a 503 that says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from mistral_api.database.errors import translate_database_errors
from mistral_api.database.tables.base import Base
from mistral_api.errors import Unavailable
from mistral_api.recording import recorder
from mistral_api.web.request import services

db = SQLAlchemy(model_class=Base)
migrate = Migrate()


T = TypeVar("T")


@contextlib.contextmanager
def database_session() -> Iterator[Session]:
    """The request's session. Raises Unavailable (``database_unavailable``) without PostgreSQL."""
    try:
        with translate_database_errors():
            yield db.session()
    except (SQLAlchemyError, Unavailable):
        db.session.rollback()
        raise


def found_once_recorded(find: Callable[[], T]) -> T:
    """What ``find`` finds: at once, or when everything that has ended can be read.

    Raises NotFound, and Unavailable (``recording_delayed``).
    """
    return recorder.retry_until_recorded(services().recorder, find)


def require_recorded(owner: str, session_id: str) -> None:
    """Wait until all that was said in a session can be read. Raises Unavailable (``recording_delayed``)."""
    recorder.require_session_recorded(services().recorder, owner, session_id)
