"""The database session of a view: PostgreSQL's failures become 503, and no view holds a connection while it waits.

The API has a small pool of connections (``DATABASE_POOL_SIZE``). A view opens a session for its queries alone, and
closes it before it waits for the journal to be delivered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session

from mistral_api.database.errors import translate_database_errors
from mistral_api.database.tables.base import Base
from mistral_api.errors import NotFound
from mistral_api.web.request import services

# Made without an application; the factory binds both to one.
db = SQLAlchemy(model_class=Base)
migrate = Migrate()

T = TypeVar("T")


@contextlib.contextmanager
def database_session() -> Iterator[Session]:
    """Yield a session whose connection goes back to the pool at the end of the block.

    Rows are detached from the session then, so render them within the block. Raises Unavailable
    (``database_unavailable``) without PostgreSQL.
    """
    try:
        with translate_database_errors():
            yield db.session()
    finally:
        db.session.close()


def find_recorded(find: Callable[[Session], T]) -> T:
    """Return what ``find`` finds in a session: at once, or after every finished exchange has been delivered.

    Each attempt has a session of its own; none is open during the wait. Raises NotFound, and Unavailable
    (``database_unavailable``).
    """

    def attempt() -> T:
        with database_session() as session:
            return find(session)

    try:
        return attempt()
    except NotFound:
        services().recorder.require_all_delivered()
        return attempt()


def require_recorded(owner: str, session_id: str) -> None:
    """Wait until PostgreSQL has all messages of a session. Raises Unavailable (``database_unavailable``)."""
    services().recorder.require_delivered(owner, session_id)
