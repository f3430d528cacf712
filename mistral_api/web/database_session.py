"""The database session of a view that changes something, or asks for statistics: PostgreSQL's failures become 503.

The API has a small pool of connections (``DATABASE_POOL_SIZE``). A view opens a session for its queries alone, after it
has waited for the delivery of what it changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session

from mistral_api.database.errors import translate_database_errors
from mistral_api.database.tables.base import Base

# Made without an application; the factory binds it to one.
db = SQLAlchemy(model_class=Base)


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
