"""A PostgreSQL without a server, for tests of code that works on the database directly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask_migrate import upgrade
from sqlalchemy import Engine

from mistral_api import create_app
from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.services import services_of
from mistral_api.settings import Settings
from tests.support.databases import empty
from tests.support.processes import data_folder


@pytest.fixture(scope="session")
def database_engine() -> Iterator[Engine]:
    """An application's engine on its own PostgreSQL, with the schema created."""
    with data_folder() as data_dir:
        running = start_embedded_postgres(data_dir)
        app = create_app(Settings(database_url=running.url, data_dir=data_dir))
        with app.app_context():
            upgrade()
        yield services_of(app.extensions).engine
        services_of(app.extensions).close()
        running.stop()


@pytest.fixture
def engine(database_engine: Engine) -> Engine:
    """The same database, emptied."""
    empty(database_engine)
    return database_engine
