"""PostgreSQL fails in every way a hosted one does: requests are served, and each is recorded once."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.support.processes import Server, running_api, temporary_data_dir, wait_for
from tests.support.stoppable_database import StoppableDatabase

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture
def database() -> Iterator[StoppableDatabase]:
    """The database with its schema."""
    with temporary_data_dir() as folder:
        made = StoppableDatabase(folder)
        yield made
        made.stop()


@contextmanager
def _api(server: Server, database: StoppableDatabase, data_dir: Path) -> Iterator[Server]:
    with running_api(data_dir, DATABASE_URL=database.url, **server.model_settings) as api:
        yield api


def _ask(api: Server, request_id: str) -> requests.Response:
    body = {"messages": [{"role": "user", "content": request_id}], "max_tokens": 1, "session_id": request_id}
    headers = {"X-Request-Id": request_id}
    return requests.post(f"{api.url}/v1/chat/completions", json=body, headers=headers, timeout=60)


class Load:
    """A few clients that send requests without a pause; ``answered`` lists the ids of successful ones."""

    def __init__(self, api: Server, clients: int = 3) -> None:
        self._api = api
        self._stop = threading.Event()
        self.succeeded: list[str] = []
        self.refused: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self, client: int) -> None:
        number = 0
        while not self._stop.is_set():
            answer = _ask(self._api, f"load-{client}-{number}")
            (self.succeeded if answer.status_code == 200 else self.refused).append(answer.headers["X-Request-Id"])
            number += 1

    def wait_for_requests(self, more: int) -> None:
        """Wait until this many more requests succeeded: they do not wait for the database."""
        target = len(self.succeeded) + more
        wait_for(lambda: len(self.succeeded) >= target, f"{more} more answers", 30)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)


def _wait_until_delivered(api: Server) -> None:
    wait_for(lambda: api.health()["recording"]["pending"] == 0, "the delivery of everything", 40)
    assert api.health()["recording"]["rejected"] == 0


@pytest.mark.slow
def test_nothing_is_lost_when_the_database_restarts_and_drops_connections_under_load(
    server: Server, database: StoppableDatabase, data_dir: Path
) -> None:
    with _api(server, database, data_dir) as api:
        load = Load(api)
        load.wait_for_requests(10)
        database.stop()
        load.wait_for_requests(20)
        database.start()
        for _ in range(5):
            load.wait_for_requests(5)
            database.reset_connections()
        database.stop()
        database.start()
        load.wait_for_requests(10)
        database.signal(signal.SIGKILL)
        load.wait_for_requests(10)
        database.start()
        load.stop()
        assert load.refused == []
        _wait_until_delivered(api)
        assert api.health()["status"] == "ok"
    assert database.recorded() == dict.fromkeys(load.succeeded, 1)


def test_exchanges_are_delivered_by_the_next_api_process_when_the_database_was_down(
    server: Server, database: StoppableDatabase, data_dir: Path
) -> None:
    with _api(server, database, data_dir) as api:
        assert _ask(api, "before").status_code == 200  # from now on it is known that there are no API keys
        _wait_until_delivered(api)
    database.stop()
    with _api(server, database, data_dir) as api:
        ids = [_ask(api, f"away-{number}").headers["X-Request-Id"] for number in range(5)]
        health = api.health()
        assert (health["status"], health["recording"]["pending"]) == ("degraded", 5)
    database.start()
    assert database.recorded() == {"before": 1}
    with _api(server, database, data_dir) as api:
        _wait_until_delivered(api)
    assert database.recorded() == dict.fromkeys(["before", *ids], 1)


@pytest.mark.slow
def test_hanging_database_delays_only_requests_that_read_it(
    server: Server, database: StoppableDatabase, data_dir: Path
) -> None:
    with _api(server, database, data_dir) as api:
        assert _ask(api, "before").status_code == 200
        _wait_until_delivered(api)
        database.signal(signal.SIGSTOP)
        try:
            assert _ask(api, "meanwhile").status_code == 200
            began = time.monotonic()
            answer = requests.get(f"{api.url}/v1/conversations/meanwhile", timeout=20)
            assert answer.status_code == 200
            assert answer.json()["messages"][0]["content"] == "meanwhile"
            assert api.health()["status"] == "degraded"
            assert time.monotonic() - began < 15
        finally:
            database.signal(signal.SIGCONT)
        _wait_until_delivered(api)
        read = requests.get(f"{api.url}/v1/conversations/meanwhile", timeout=20).json()
        assert read["messages"][0]["content"] == "meanwhile"
    assert database.recorded() == {"before": 1, "meanwhile": 1}
