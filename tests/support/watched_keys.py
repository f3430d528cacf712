"""Keys as an API process has them: a ring and its watcher on a database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.api_keys.key_mirror import KeyMirror
from mistral_api.api_keys.key_store import MadeKey, NewKey, create_key
from mistral_api.api_keys.key_watcher import KeyWatcher
from mistral_api.database.engine import create_thread_engine
from mistral_api.security.key_ring import KeyRing
from mistral_api.settings import Settings
from tests.support.processes import SCHEMA


@contextlib.contextmanager
def watched_ring(engine: Engine, data_dir: Path, database: str = "test") -> Iterator[KeyRing]:
    """Give a ring whose watcher runs, and has asked the database once."""
    ring = KeyRing()
    own = create_thread_engine(engine, Settings(database_schema=SCHEMA))
    watcher = KeyWatcher(ring, own, KeyMirror(data_dir, database))
    watcher.start()
    try:
        watcher.wait_until_loaded()
        yield ring
    finally:
        watcher.close()


def make_key(engine: Engine, name: str = "laptop", **fields: object) -> MadeKey:
    """Make a key in the database."""
    with Session(engine) as session:
        return create_key(session, NewKey(name, **fields))  # type: ignore[arg-type]
