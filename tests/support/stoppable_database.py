"""A PostgreSQL that a test can stop, start, stop answering, and look into."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

from mistral_api.embedded.postgres import EmbeddedPostgres, start_embedded_postgres
from tests.support.databases import open_cursor
from tests.support.prepared_postgres import copy_prepared_postgres
from tests.support.processes import postgres_processes


class StoppableDatabase:
    """A PostgreSQL for one test that can be stopped and started."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        copy_prepared_postgres(data_dir)
        self._running: EmbeddedPostgres = start_embedded_postgres(data_dir)
        self.url = self._running.url

    def stop(self) -> None:
        """Stop it, as its operator does."""
        self._running.stop()

    def start(self) -> None:
        """Start it again."""
        self._running = start_embedded_postgres(self._data_dir)

    def signal(self, number: int) -> None:
        """Send a signal to the server and its children."""
        for process in postgres_processes(self._data_dir):
            with suppress(psutil.NoSuchProcess):
                os.kill(process.pid, number)

    def reset_connections(self) -> None:
        """Close the connections of all clients."""
        with open_cursor(self.url) as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

    def recorded(self) -> dict[str, int]:
        """Return the number of usage rows of each request id."""
        with open_cursor(self.url) as cursor:
            cursor.execute("SELECT client_request_id, count(*) FROM api_usage GROUP BY client_request_id")
            return dict(cursor.fetchall())
