"""A server whose database is away when it starts answers all the same, and uses the database as soon as it is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from mistral_api.api_keys.key_mirror import FILE_NAME
from mistral_api.database.address import shown_address
from mistral_api.database.revisions import newest_revision
from tests.support.databases import open_cursor
from tests.support.processes import Server, running_api, temporary_data_dir, wait_for
from tests.support.stoppable_database import StoppableDatabase

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database() -> Iterator[StoppableDatabase]:
    """An empty database: no migration has run yet."""
    with temporary_data_dir() as folder:
        made = StoppableDatabase(folder)
        yield made
        made.stop()


def _ask(api: Server, session_id: str, **headers: str) -> requests.Response:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "session_id": session_id}
    return requests.post(f"{api.url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def _database_health(api: Server) -> dict[str, Any]:
    health: dict[str, Any] = api.health()["database"]
    return health


def test_server_answers_and_uses_the_database_when_it_comes(
    server: Server, database: StoppableDatabase, data_dir: Path
) -> None:
    database.stop()
    address = shown_address(database.url)
    with running_api(data_dir, DATABASE_URL=database.url, **server.model_settings) as api:
        # It is the first start: nobody knows of keys, and nothing that is stored can be read.
        assert _ask(api, "away").status_code == 200
        assert _ask(api, "away", Authorization="Bearer no-key-of-ours").status_code == 200
        health = api.health()
        assert (health["status"], health["database"]["status"]) == ("degraded", "unavailable")
        assert health["database"]["last_error"].startswith(f"{address}: ")
        assert health["recording"]["pending"] == 2
        assert requests.get(f"{api.url}/v1/stats", timeout=10).json()["error"]["code"] == "database_unavailable"
        assert requests.get(f"{api.url}/v1/keys", timeout=10).status_code == 403
        database.start()
        wait_for(lambda: _database_health(api)["status"] == "ok", "the database", 30)
        wait_for(lambda: api.health()["recording"]["pending"] == 0, "the delivery", 30)
        assert _database_health(api)["schema"] == "current"
        assert requests.get(f"{api.url}/v1/stats", timeout=10).json()["requests"]["total"] == 2
        assert requests.get(f"{api.url}/v1/keys", timeout=10).status_code == 200
        said = [line for line in api.log().splitlines() if "database is away" in line]
        assert len(said) == 1
        assert address in said[0]
        assert "Traceback" not in api.log()
    with open_cursor(database.url) as cursor:
        cursor.execute("SELECT version_num FROM alembic_version")
        assert cursor.fetchall() == [(newest_revision(),)]


def test_nobody_is_let_in_without_the_database_where_keys_may_have_been_in_use(
    server: Server, database: StoppableDatabase, data_dir: Path
) -> None:
    (data_dir / "journal").mkdir(parents=True)
    assert not (data_dir / FILE_NAME).exists()
    database.stop()
    try:
        with running_api(data_dir, DATABASE_URL=database.url, **server.model_settings) as api:
            refused = _ask(api, "away")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_unavailable")
            assert "/health" in refused.json()["error"]["message"]
            health = api.health()
            assert (health["status"], "last_error" in health["database"]) == ("degraded", False)
            database.start()
            wait_for(lambda: _ask(api, "back").status_code == 200, "an answer", 30)
    finally:
        database.start()
