"""API processes get ``kill -9`` at any instant of a stream: no text that a client received is lost or stored twice.

Five processes share one DATA_DIR, so the survivors record what the dead ones left in the journal.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
import psycopg2.extras
import pytest
import requests

from tests.support.killed_apis import ApiProcesses, all_delivered, api_processes, kill_at_random
from tests.support.processes import Server, libpq_url, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and fork")]

PROCESSES, KILLS = 5, 50
# Streams take some seconds, and are killed after some.
MOST_TOKENS, KILLED_WITHIN = 150, 4.0
# What a client received so long before the kill is always stored, and the newer text as a rule: a checkpoint is
# written twice a second, a little later on a busy machine.
SURELY_STORED, MOSTLY_STORED = 3.0, 1.0


@dataclass
class ReceivedStream:
    """What a client received of one stream: pieces of text with their times, and whether it ended."""

    request_id: str
    pieces: list[tuple[float, str]] = field(default_factory=list)
    opened: bool = False
    done: bool = False
    broken_at: float = 0.0

    def text(self, until: float = float("inf")) -> str:
        return "".join(piece for moment, piece in self.pieces if moment <= until)


class StreamingClient:
    """A client that streams one completion after another from one process until it is stopped."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self._stop = threading.Event()
        self.port = port
        self.streams: list[ReceivedStream] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            seen = ReceivedStream(f"killed-{self.port}-{len(self.streams)}")
            self.streams.append(seen)
            try:
                self._stream(seen)
            except requests.RequestException:
                seen.broken_at = time.monotonic()
                if not seen.opened:
                    self._stop.wait(0.05)

    def _stream(self, seen: ReceivedStream) -> None:
        body = {
            "messages": [{"role": "user", "content": f"Count upwards. {seen.request_id}"}],
            "max_tokens": random.choice([1, 5, MOST_TOKENS]),
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
        }
        headers = {"X-Request-Id": seen.request_id}
        with requests.post(self._url, json=body, headers=headers, stream=True, timeout=60) as answer:
            for line in answer.iter_lines(chunk_size=1):
                seen.opened = True
                if line == b"data: [DONE]":
                    seen.done = True
                elif line.startswith(b"data: {"):
                    for choice in json.loads(line[6:]).get("choices", []):
                        seen.pieces.append((time.monotonic(), choice["delta"].get("content") or ""))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=90)
        assert not self._thread.is_alive()


@pytest.fixture
def apis(server: Server, database_url: str, data_dir: Path) -> Iterator[ApiProcesses]:
    """The API processes in front of the shared model server."""
    with api_processes(server, database_url, data_dir, PROCESSES) as processes:
        yield processes


def test_every_request_is_recorded_once_although_api_processes_are_killed(
    apis: ApiProcesses, database_url: str
) -> None:
    clients = [StreamingClient(port) for port in apis.ports]
    kill_at_random(
        apis,
        clients,
        lambda client: sum(bool(seen.pieces) for seen in client.streams),
        KILLS // PROCESSES,
        KILLED_WITHIN,
    )
    url = f"http://127.0.0.1:{apis.ports[0]}"
    wait_for(lambda: all_delivered(url), "the delivery of everything", 30)
    rows = wait_for(lambda: _recorded_rows(database_url, clients), "the end of what was interrupted", 30)
    _assert_recorded(rows, clients, apis)


def _recorded_rows(url: str, clients: list[StreamingClient]) -> dict[str, list[dict[str, object]]] | None:
    """Return the recorded rows by request id once every request with received text has one, else None."""
    connection = psycopg2.connect(libpq_url(url))
    with connection, connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
        cursor.execute(
            "SELECT u.client_request_id, u.status, u.error_code, u.completion_tokens, m.status AS answer_status, "
            "m.content FROM api_usage AS u LEFT JOIN messages AS m "
            "ON m.request_id = u.client_request_id AND m.role = 'assistant'"
        )
        found: dict[str, list[dict[str, object]]] = {}
        for row in cursor.fetchall():
            found.setdefault(row["client_request_id"], []).append(dict(row))
    connection.close()
    opened = {seen.request_id for client in clients for seen in client.streams if seen.pieces}
    return found if opened <= set(found) else None


def _assert_recorded(
    rows: dict[str, list[dict[str, object]]], clients: list[StreamingClient], apis: ApiProcesses
) -> None:
    assert {number for found in rows.values() if (number := len(found)) != 1} == set()
    answered = cut_off = late = 0
    for client in clients:
        for seen in client.streams:
            if not seen.pieces:
                continue
            (row,) = rows[seen.request_id]
            if seen.done:
                answered += 1
                assert (row["status"], row["answer_status"], row["content"]) == (200, "complete", seen.text())
            else:
                cut_off += 1
                killed = max(moment for moment in apis.kills[client.port] if moment <= seen.broken_at)
                late += not _is_stored_in_time(row, seen, killed)
    # The numbers depend on the machine's speed; both cases must have occurred.
    assert min(answered, cut_off) >= 10
    assert late <= cut_off / 4


def _is_stored_in_time(row: dict[str, object], seen: ReceivedStream, killed: float) -> bool:
    """Check what is stored of a stream, and return whether that is all that it should be as a rule.

    The end may be stored and not have arrived.
    """
    stored = str(row["content"] or "")
    if row["status"] == 200:
        assert stored.startswith(seen.text())
        return True
    assert (row["status"], row["error_code"]) == (500, "interrupted")
    old = seen.text(until=killed - SURELY_STORED)
    assert stored.startswith(old), (stored, old)
    assert row["answer_status"] == ("interrupted" if stored else None)
    return stored.startswith(seen.text(until=killed - MOSTLY_STORED))
