"""The usage that is recorded of a request."""

from __future__ import annotations

from typing import Any

import psycopg2.extras

from mistral_api.embedded.postgres import start_embedded_postgres
from tests.support.databases import open_cursor
from tests.support.processes import Server, wait_for


def recorded_usage(server: Server, request_id: str) -> dict[str, Any]:
    """Wait until a request is recorded. Return its row in ``api_usage``; ``request_id``: its ``X-Request-Id``."""
    embedded = start_embedded_postgres(server.data_dir)
    with open_cursor(embedded.url, psycopg2.extras.RealDictCursor) as cursor:

        def row() -> Any:
            cursor.execute("SELECT * FROM api_usage WHERE client_request_id = %s", (request_id,))
            return cursor.fetchone()

        return dict(wait_for(row, "the usage of a request"))
