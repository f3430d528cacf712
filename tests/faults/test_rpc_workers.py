"""A model server whose workers are not there yet, or cannot be used: it waits for them, and says which."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from mistral_api.control.rpc_workers import WorkerAddress
from mistral_api.control.status import ModelServerStatus, State, read_status
from mistral_api.supervisor.rpc_connections import WorkerConnections
from tests.support.processes import wait_for
from tests.support.rpc_worker import StandInWorker, stand_in_worker
from tests.support.supervisor_process import (
    MisbehavingEngine,
    run_supervisor_to_end,
    running_supervisor,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and scripts")


def waiting_for(data_dir: Path, words: str) -> ModelServerStatus:
    """Wait until the supervisor waits for this reason."""

    def found() -> ModelServerStatus | None:
        status = read_status(data_dir)
        waits = status is not None and status.state is State.BACKOFF and words in (status.last_error or "")
        return status if waits else None

    status: ModelServerStatus = wait_for(found, f"a supervisor that waits: {words}", 30)
    return status


def test_worker_that_is_away_is_waited_for_and_used_once_it_is_there(data_dir: Path, engine: MisbehavingEngine) -> None:
    worker = StandInWorker()
    try:
        with running_supervisor(data_dir, **engine.settings("fine"), LLAMA_ARG_RPC=worker.address) as running:
            waiting = waiting_for(data_dir, f"worker {worker.address} does not answer: connection refused")
            assert waiting.rpc_workers[0]["state"] == "away"
            worker.listen()
            status = running.wait_ready()
            shown = run_supervisor_to_end(data_dir, "status").stdout
    finally:
        worker.close()
    assert status.rpc_workers[0]["total_bytes"] == 8 << 30
    assert f"worker   {worker.address} in use, 1 device, 7.00 GiB of 8.00 GiB offered, protocol 7.0.0" in shown
    assert "no protection" not in shown  # nobody else reaches it
    assert len(engine.starts()) == 1


def test_workers_of_another_build_are_waited_for_and_a_server_without_workers_is_not_started(
    data_dir: Path, engine: MisbehavingEngine
) -> None:
    worker = StandInWorker()
    worker.listen()
    try:
        done = run_supervisor_to_end(data_dir, **engine.settings("without-rpc"), LLAMA_ARG_RPC=worker.address)
        with running_supervisor(data_dir, **engine.settings("other-rpc"), LLAMA_ARG_RPC=worker.address):
            waiting_for(
                data_dir, "the workers speak version 7.0.0 of ggml's RPC protocol and this llama-server another"
            )
    finally:
        worker.close()
    assert done.returncode == 2
    assert "was built without workers; set LLAMA_SERVER_BIN" in done.stderr
    assert not engine.starts()


def test_connection_that_a_worker_has_ended_is_noticed() -> None:
    with stand_in_worker() as standing, socket.create_connection(("127.0.0.1", standing.port)) as connection:
        address = WorkerAddress("127.0.0.1", standing.port)
        host, port = connection.getsockname()
        (found,) = WorkerConnections(os.getpid(), [address]).look().values()
        assert (found.local_endpoint, found.worker_has_closed) == (f"{host}:{port}", False)
        connection.sendall(b"\xff" + bytes(8))  # no command: a worker ends the connection
        wait_for(lambda: WorkerConnections(os.getpid(), [address]).lost_worker() == address, "a lost worker")
