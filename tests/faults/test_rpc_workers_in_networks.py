"""A model on two machines (network namespaces with a real ``ggml-rpc-server`` each), one of which is lost."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import requests

from mistral_api.control.rpc_workers import WorkerAddress
from mistral_api.supervisor.rpc_protocol import greet
from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server, running_server, temporary_data_dir, wait_for
from tests.support.rpc_networks import NetworkedWorker, missing_for_networks, networked_workers
from tests.support.rpc_worker import StandInWorker

MISSING = missing_for_networks()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]
ASKED = {"messages": [{"role": "user", "content": "Count to ten."}], "max_tokens": 24, "temperature": 0}
SETTINGS = {
    "LLAMA_SERVER_BIN": os.environ.get("LLAMA_SERVER_BIN", ""),
    "PARALLEL": "1",
    "THREADS": "1",
    "CONTEXT_SIZE": "1024",
    "SLOT_SAVE_SECONDS": "0",
    "HANG_SECONDS": "4",
}


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NetworkedWorker]]:
    with networked_workers(tmp_path_factory.mktemp("workers"), 2) as running:
        yield running


@pytest.fixture(scope="module")
def alone() -> str:
    """What the model answers where one machine computes alone."""
    with temporary_data_dir() as data_dir, running_server(data_dir, **SETTINGS, GPU_LAYERS="0") as running:
        return _answer(running)


@pytest.fixture(scope="module")
def server(workers: list[NetworkedWorker], alone: str) -> Iterator[Server]:
    named = ",".join(worker.address for worker in workers)
    settings = SETTINGS | {"GPU_LAYERS": "99", "LLAMA_ARG_RPC": named}
    with temporary_data_dir() as data_dir, running_server(data_dir, **settings) as running:
        yield running


def _answer(server: Server) -> str:
    answer = requests.post(f"{server.url}/v1/chat/completions", json=ASKED, timeout=120)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def _model_server(server: Server) -> dict[str, Any]:
    health: dict[str, Any] = server.health()["model_server"]
    return health


def _wait_for_worker(server: Server, worker: NetworkedWorker, state: str) -> None:
    """Wait until the server waits for a worker in this state, and says so."""

    def waits() -> bool:
        health = _model_server(server)
        named = {each["address"]: each["state"] for each in health["workers"]}
        return (
            health["state"] == "backoff" and named[worker.address] == state and worker.address in health["last_error"]
        )

    wait_for(waits, f"a server that waits for {worker.address}, {state}", 60)


def _wait_until_used(server: Server) -> None:
    def used() -> bool:
        health = _model_server(server)
        return health["state"] == "ready" and {each["state"] for each in health["workers"]} == {"in use"}

    wait_for(used, "a server that uses its workers", 90)


def _require_same_answer(server: Server, alone: str) -> None:
    """Wait until the workers are used, and check that the answer is that of one machine alone."""
    _wait_until_used(server)
    assert _answer(server) == alone


def _lose_while_generating(server: Server, session: str, lose: Any) -> None:
    """Begin a stream, lose a worker, and see the stream's end and its record."""
    body = ASKED | {"stream": True, "max_tokens": 900, "ignore_eos": True, "session_id": session}
    with requests.post(f"{server.url}/v1/chat/completions", json=body, stream=True, timeout=120) as answer:
        pieces = answer.iter_content(None)
        received = next(pieces) + next(pieces)
        lose()
        received += b"".join(pieces)
    last = received.strip().split(b"\n\n")[-1]
    assert_error_shape(orjson.loads(last.removeprefix(b"data: ")), code="model_server_error")
    stored = requests.get(f"{server.url}/v1/conversations/{session}", timeout=10).json()["messages"]
    assert [message["status"] for message in stored] == ["complete", "interrupted"]


def test_stand_in_says_what_a_real_worker_says(workers: list[NetworkedWorker]) -> None:
    def spoken(host: str, port: int) -> bytes:
        """Return the bytes of the answers, without the memory itself."""
        said = b""
        with socket.create_connection((host, port), timeout=10) as connection, connection.makefile("rwb") as stream:
            for command, body in ((14, bytes(24)), (15, b""), (11, bytes(4))):
                stream.write(struct.pack("<BQ", command, len(body)) + body)
                stream.flush()
                length = stream.read(8)
                content = stream.read(struct.unpack("<Q", length)[0])
                said += length + (content if command != 11 else b"")
        return said

    real = greet(WorkerAddress(workers[0].host, 50052), 5.0)
    standing = StandInWorker(real.version, real.memory)
    standing.listen()
    try:
        assert spoken("127.0.0.1", standing.port) == spoken(workers[0].host, 50052)
        assert greet(WorkerAddress("127.0.0.1", standing.port), 5.0) == real
    finally:
        standing.close()


def test_two_machines_answer_as_one_and_are_shown(server: Server, workers: list[NetworkedWorker], alone: str) -> None:
    _require_same_answer(server, alone)
    shown = {each["address"]: each["protocol"] for each in _model_server(server)["workers"]}
    assert shown.keys() == {worker.address for worker in workers}
    assert "a worker's port has no protection" in server.log()


def test_worker_that_is_killed_is_waited_for(server: Server, workers: list[NetworkedWorker], alone: str) -> None:
    _lose_while_generating(server, "killed-worker", workers[0].kill)
    _wait_for_worker(server, workers[0], "away")
    workers[0].start()
    _require_same_answer(server, alone)


def test_worker_that_dies_while_nobody_asks_is_noticed(
    server: Server, workers: list[NetworkedWorker], alone: str
) -> None:
    workers[1].kill()
    _wait_for_worker(server, workers[1], "away")
    workers[1].start()
    _require_same_answer(server, alone)


def test_worker_behind_a_cut_cable_is_a_hang_and_used_again(
    server: Server, workers: list[NetworkedWorker], alone: str
) -> None:
    _lose_while_generating(server, "cut-worker", workers[1].cut_cable)
    _wait_for_worker(server, workers[1], "away")
    workers[1].connect_cable()
    _require_same_answer(server, alone)


def test_worker_that_is_stopped_is_a_hang_and_used_again(
    server: Server, workers: list[NetworkedWorker], alone: str
) -> None:
    _lose_while_generating(server, "stopped-worker", lambda: workers[0].signal(signal.SIGSTOP))
    _wait_for_worker(server, workers[0], "busy")
    workers[0].signal(signal.SIGCONT)
    _require_same_answer(server, alone)
