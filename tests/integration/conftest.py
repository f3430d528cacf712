"""Fixtures of the integration tests: a PostgreSQL without a server, and states of the shared server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from openai import OpenAI
from sqlalchemy import Engine

from mistral_api import create_app
from mistral_api.application import prepare_database
from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.recording.exchange import Exchange
from mistral_api.services import services_of
from mistral_api.settings import Settings
from tests.support.databases import empty_tables
from tests.support.event_loops import run_as_task, running_loop
from tests.support.model_server_requests import Run
from tests.support.prepared_postgres import copy_prepared_postgres
from tests.support.processes import SCHEMA, Server, temporary_data_dir, wait_for


@pytest.fixture(scope="session")
def database_engine() -> Iterator[Engine]:
    """An application's engine on its own PostgreSQL, with the schema created."""
    with temporary_data_dir() as data_dir:
        copy_prepared_postgres(data_dir)
        running = start_embedded_postgres(data_dir)
        app = create_app(Settings(database_url=running.url, database_schema=SCHEMA, data_dir=data_dir))
        prepare_database(app)
        yield services_of(app.extensions).engine
        services_of(app.extensions).close()
        running.stop()


@pytest.fixture
def engine(database_engine: Engine) -> Engine:
    """The same database, emptied."""
    empty_tables(database_engine)
    return database_engine


@pytest.fixture
def postgres_dir(data_dir: Path) -> Path:
    """A DATA_DIR for one test, with an embedded PostgreSQL that was made before, and that does not run."""
    copy_prepared_postgres(data_dir)
    return data_dir


@pytest.fixture
def delivery(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds delivery to PostgreSQL back until it is set."""
    released = threading.Event()
    insert = BatchInserter.insert

    def held_back(self: BatchInserter, exchanges: Sequence[Exchange]) -> None:
        released.wait(30)
        insert(self, exchanges)

    monkeypatch.setattr(BatchInserter, "insert", held_back)
    yield released
    released.set()


@pytest.fixture
def model(client: OpenAI) -> str:
    """The id of the served model."""
    return client.models.list().data[0].id


@pytest.fixture
def idle_slots(server: Server) -> Iterator[None]:
    """Wait until no slot is busy, before and after the test."""
    wait_for(lambda: server.slots_busy() == 0, "idle slots")
    yield
    wait_for(lambda: server.slots_busy() == 0, "idle slots")


@pytest.fixture(params=["thread", "task"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """What calls a function: on this thread, and as a task of an event loop."""
    if request.param == "thread":
        yield lambda function: function()
        return
    with running_loop() as loop:
        yield lambda function: run_as_task(loop, function)
