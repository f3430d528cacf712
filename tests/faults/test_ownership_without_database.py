"""While PostgreSQL is away, a foreign id is answered like an unknown one, and one's own is read from the journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mistral_api.embedded.postgres import start_embedded_postgres
from tests.support.foreign_ids import ID_REQUESTS, answers_alike
from tests.support.owned_api import ADMIN_SECRET, RESPONSES, OwnedApi, Things, make_things, owned_api
from tests.support.prepared_postgres import copy_prepared_postgres
from tests.support.processes import Server, running_api, temporary_data_dir

pytestmark = pytest.mark.slow


@pytest.fixture
def api_without_database(server: Server, data_dir: Path) -> Iterator[tuple[OwnedApi, Things, Things, str]]:
    """An API whose PostgreSQL has been stopped; what Anna has there, what she has in the journal, and Ann's own."""
    with temporary_data_dir() as database_dir:
        copy_prepared_postgres(database_dir)
        database = start_embedded_postgres(database_dir)
        settings = server.model_settings | {"DATABASE_URL": database.url, "ADMIN_API_KEY": ADMIN_SECRET}
        with running_api(data_dir, **settings) as running:
            api = owned_api(running.url)
            delivered = make_things(api.anna, "zebra")
            own = str(api.ann.json("POST", "/v1/conversations")["id"])
            api.wait_until_delivered()
            database.stop()
            asked = {"input": "Say gnu.", "max_output_tokens": 16}
            pending = {
                "response": str(api.anna.json("POST", RESPONSES, asked)["id"]),
                "completion": str(api.anna.chat("Say gnu.", store=True).json()["id"]),
            }
            yield api, delivered, pending, own


def test_foreign_id_is_answered_like_an_unknown_one_while_postgresql_is_away(
    api_without_database: tuple[OwnedApi, Things, Things, str],
) -> None:
    api, delivered, pending, own = api_without_database
    for request in ID_REQUESTS:
        foreign, _ = answers_alike(request, api.ann, delivered | pending, own)
        assert foreign.status_code in (503, request.status), (str(request), foreign.text)
    for path in (f"{RESPONSES}/{pending['response']}", f"/v1/chat/completions/{pending['completion']}"):
        assert api.phone.send("GET", path).status_code == 200
        assert api.ann.send("GET", path).status_code == 503
    assert "gnu" not in api.ann.send("GET", "/v1/conversations").text
