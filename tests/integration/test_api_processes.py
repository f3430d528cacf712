"""``bin/serve`` with two API processes (API_PROCESSES=2): one port, one server, and the end of one harms no other."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from mistral_api.doctor.machine import check_ports
from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.payload_types.completions import Delta
from mistral_api.serving.web_server import bind_listener
from mistral_api.settings import Settings
from tests.support.databases import open_cursor
from tests.support.metric_samples import scrape, value
from tests.support.misbehaving_server import misbehaving_server
from tests.support.processes import (
    STOP_SECONDS,
    Server,
    processes_of,
    programs_of,
    temporary_data_dir,
    wait_for,
)
from tests.support.recorded_usage import recorded_usage
from tests.support.scripted_engine import say, scripted_engine
from tests.support.sibling_processes import (
    SiblingClient,
    client_of,
    connections_of,
    running_siblings,
    sibling,
    wait_until_all_serve,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems")
CHAT = "/v1/chat/completions"


@dataclass
class Gate:
    """A script of the engine: what asks to be held is answered when the test lets it."""

    open: threading.Event = field(default_factory=threading.Event)
    waiting: list[str] = field(default_factory=list)

    def answer(self, body: dict[str, Any]) -> list[Delta]:
        """Answer at once, or once the gate is open."""
        asked = body["messages"][-1]["content"]
        if asked.startswith("hold"):
            self.waiting.append(asked)
            assert self.open.wait(60)
        return say("Well done")


@pytest.fixture(scope="module")
def gate() -> Gate:
    """The gate of all held requests."""
    return Gate()


@pytest.fixture(scope="module")
def server(gate: Gate) -> Iterator[Server]:
    """Two processes before an engine that holds what it is told to hold. The last test stops them."""
    with (
        scripted_engine(gate.answer) as engine,
        temporary_data_dir() as data_dir,
        running_siblings(
            data_dir, MODEL_SERVER_URL=engine.url, SHUTDOWN_SECONDS="60", DATABASE_POOL_SIZE="20"
        ) as running,
    ):
        yield running
        gate.open.set()


def _ask(client: SiblingClient, text: str, request_id: str) -> int:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 8}
    return client.ask("POST", CHAT, body, **{"X-Request-Id": request_id})[0]


def test_each_process_answers_and_says_the_same_of_the_server(server: Server) -> None:
    with client_of(server, 1) as one, client_of(server, 2) as two:
        assert [_ask(client, "go", "both") for client in (one, two)] == [200, 200]
        health = [client.ask("GET", "/health")[1] for client in (one, two)]
    assert health[0]["processes"] == {"status": "ok", "configured": 2, "running": 2, "last_error": None}
    assert health[0]["embedded_postgres"] == {"state": "running", "restarts": 0, "last_error": None}
    for name in ("processes", "embedded_postgres", "status", "version"):
        assert health[0][name] == health[1][name]
    assert 0 <= health[1]["uptime_seconds"] - health[0]["uptime_seconds"] < 30
    wait_for(lambda: len(list((server.data_dir / "logs").glob("api*.log"))) == 2, "a log of each process")


def test_metrics_are_those_of_all_processes(server: Server) -> None:
    with client_of(server, 1) as one, client_of(server, 2) as two:
        for client in (one, two, two):
            assert _ask(client, "go", "counted") == 200
    labels = {"route": CHAT, "method": "POST", "status": "200"}
    wait_for(lambda: (value(scrape(server.url), "requests_total", **labels) or 0) >= 5, "the sum of both")
    for _ in range(4):  # whichever process answers
        wait_for(lambda: value(scrape(server.url), "processes") == 2, "the number of processes")


def test_embedded_postgresql_has_connections_for_all_processes(server: Server) -> None:
    with open_cursor(start_embedded_postgres(server.data_dir).url) as cursor:
        cursor.execute("SHOW max_connections")
        assert cursor.fetchall() == [(str(2 * (20 + 2) + 15),)]


def test_doctor_says_how_many_processes_serve(server: Server) -> None:
    settings = Settings(data_dir=server.data_dir, api_port=server.api_port, model_server_url="http://127.0.0.1:9")
    said = [finding.text for finding in check_ports(settings)]
    assert said == [f"API on 127.0.0.1:{server.api_port}: our API answers there, 2 of 2 processes"]


def test_health_of_another_process_answers_while_the_first_one_hangs(server: Server) -> None:
    with client_of(server, 2) as two:
        first = sibling(server, 1)
        first.suspend()
        try:
            status, health = two.ask("GET", "/health")
        finally:
            first.resume()
        assert (status, health["status"], health["processes"]["status"]) == (200, "degraded", "attention")
        wait_for(lambda: two.ask("GET", "/health")[1]["status"] == "ok", "both")


def test_burst_of_connections_is_spread_over_the_processes(server: Server) -> None:
    """Each takes some of every burst, unless the system gave one of them no processor meanwhile: then of the next."""

    def is_spread() -> bool:
        with ExitStack() as stack:
            for _ in range(16):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.api_port), timeout=20))
            counts = wait_for(lambda: _counts(server, 16), "all connections accepted")
            return bool(min(counts) >= 4)

    wait_for(is_spread, "a burst of which each process takes its share")


def _counts(server: Server, expected: int) -> list[int] | None:
    counts = [len(connections_of(server, number)) for number in (1, 2)]
    return counts if sum(counts) >= expected else None


def test_killed_process_is_replaced_and_no_request_of_the_other_is_lost(server: Server, gate: Gate) -> None:
    with client_of(server, 1) as one, client_of(server, 2) as two, ThreadPoolExecutor() as pool:
        kept = pool.submit(_ask, one, "hold kept", "kept")
        lost = pool.submit(_ask, two, "hold lost", "lost")
        wait_for(lambda: {"hold kept", "hold lost"} <= set(gate.waiting), "both at the engine")
        killed = sibling(server, 2)
        killed.kill()
        with pytest.raises(ConnectionError):
            lost.result(timeout=30)
        assert wait_for(lambda: _problem(server), "what is said of it").startswith("API process 2 ended")
        with client_of(server, 1) as another:
            assert _ask(another, "go", "meanwhile") == 200
        wait_until_all_serve(server)
        assert sibling(server, 2) != killed
        gate.open.set()
        assert kept.result(timeout=30) == 200
    with client_of(server, 2) as again:
        assert _ask(again, "go", "again") == 200
    rows = [recorded_usage(server, name) for name in ("kept", "lost", "meanwhile", "again")]
    assert [(row["status"], row["error_code"]) for row in rows] == [
        (200, None), (500, "interrupted"), (200, None), (200, None),
    ]  # fmt: skip
    wait_for(lambda: value(scrape(server.url), "processes") == 2, "the metrics of the living")
    gate.open.clear()
    gate.waiting.clear()


def _problem(server: Server) -> str | None:
    """Return why a process does not serve."""
    health = server.health()
    attention = health["processes"]["status"] == "attention" and health["status"] == "degraded"
    return str(health["processes"]["last_error"]) if attention else None


def test_process_that_is_told_to_end_lets_its_requests_finish_and_is_replaced(server: Server, gate: Gate) -> None:
    with client_of(server, 2) as two, ThreadPoolExecutor() as pool:
        held = pool.submit(_ask, two, "hold end", "end")
        wait_for(lambda: gate.waiting, "the request at the engine")
        told = sibling(server, 2)
        told.terminate()
        with client_of(server, 1) as one:  # the other takes no connection any more
            assert _ask(one, "go", "first") == 200
        assert not held.done()
        gate.open.set()
        assert held.result(timeout=30) == 200
    told.wait(20)
    wait_until_all_serve(server)
    gate.open.clear()
    gate.waiting.clear()


def test_stop_lets_the_requests_of_all_finish_and_records_them(server: Server, gate: Gate) -> None:
    with client_of(server, 1) as one, client_of(server, 2) as two, ThreadPoolExecutor() as pool:
        held = [pool.submit(_ask, each, f"hold {number}", "stop") for number, each in enumerate((one, two))]
        wait_for(lambda: len(gate.waiting) == 2, "both at the engine")
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not _accepts(server), "no more connections")
        assert not any(each.done() for each in held)
        gate.open.set()
        assert [each.result(timeout=30) for each in held] == [200, 200]
    assert server.process.wait(timeout=STOP_SECONDS) == 0
    assert not processes_of(server.data_dir)
    assert _statuses(server.data_dir, "stop") == [(200,), (200,)]


def _accepts(server: Server) -> bool:
    try:
        requests.get(f"{server.url}/health/live", timeout=5)
    except requests.ConnectionError:
        return False
    return True


def _statuses(data_dir: Path, request_id: str) -> list[tuple[Any, ...]]:
    """Return the statuses of requests in the database, which is started for that."""
    running = start_embedded_postgres(data_dir)
    try:
        with open_cursor(running.url) as cursor:
            cursor.execute("SELECT status FROM api_usage WHERE client_request_id = %s", (request_id,))
            return list(cursor.fetchall())
    finally:
        running.stop()


@pytest.mark.slow
def test_death_of_the_first_process_ends_all_frees_the_port_and_loses_no_record(data_dir: Path) -> None:
    body = {"model": "silent-stream", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with misbehaving_server() as engine:
        with (
            running_siblings(data_dir, 3, MODEL_SERVER_URL=engine) as server,
            client_of(server, 2) as two,
            client_of(server, 3) as three,
        ):
            answers = [each.open("POST", CHAT, body, **{"X-Request-Id": "cut"}) for each in (two, three)]
            assert all(answer.readline() for answer in answers)
            server.process.kill()
            server.process.wait(timeout=20)
            wait_for(lambda: not _serving(data_dir), "the end of all API processes", 20)
            bind_listener("127.0.0.1", server.api_port).close()
        with running_siblings(data_dir, 2, MODEL_SERVER_URL=engine) as server:
            wait_for(lambda: server.health()["recording"]["pending"] == 0, "delivery", 30)
            assert _count_of(data_dir, "cut") == 2


def _count_of(data_dir: Path, request_id: str) -> int:
    with open_cursor(start_embedded_postgres(data_dir).url) as cursor:
        cursor.execute("SELECT count(*) FROM api_usage WHERE client_request_id = %s", (request_id,))
        return int(cursor.fetchall()[0][0])


def _serving(data_dir: Path) -> list[list[str]]:
    return [each.command for each in programs_of(data_dir) if any("mistral_api." in word for word in each.command)]
