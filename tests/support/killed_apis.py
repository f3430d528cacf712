"""API processes on one DATA_DIR that a test kills, and that are replaced at once (``tests.support.forking_api``)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import requests

from tests.support.processes import ROOT, Server, assert_no_traceback, clean_environment, free_port, wait_for


class ApiProcesses:
    """The API processes, and the times at which each was killed."""

    def __init__(self, environment: dict[str, str], log: Path, number: int) -> None:
        """Start ``number`` processes."""
        self.ports = [free_port() for _ in range(number)]
        command = [sys.executable, "-m", "tests.support.forking_api", *map(str, self.ports)]
        self._log_path, self._log = log, log.open("w")
        self._process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self._pids: dict[int, int] = {}
        self.kills: dict[int, list[float]] = {port: [] for port in self.ports}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_for(lambda: len(self._pids) == number, "the API processes")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            port, pid = map(int, line.split())
            self._pids[port] = pid

    def kill(self, port: int) -> None:
        """Kill the process of a port, and wait for the next one."""
        pid = self._pids[port]
        self.kills[port].append(time.monotonic())
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self._pids[port] != pid, "the next API process")

    def close(self) -> None:
        """End all processes."""
        self._process.terminate()
        self._process.wait(timeout=20)
        self._reader.join(timeout=20)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()
        assert_no_traceback(self._log_path)


class KilledClient(Protocol):
    """A client of the API process on a port."""

    port: int

    def stop(self) -> None:
        """Ask for nothing more, and wait for the end of what was asked."""


ClientT = TypeVar("ClientT", bound=KilledClient)


def kill_at_random(
    apis: ApiProcesses,
    clients: Sequence[ClientT],
    progress: Callable[[ClientT], int],
    kills: int,
    within_seconds: float = 2.0,
) -> None:
    """Kill the process of each client ``kills`` times, then stop the clients.

    A process is killed at a random instant of the first ``within_seconds`` after its client's ``progress`` has grown.
    """
    killers = [
        threading.Thread(target=_kill_one, args=(apis, client, progress, kills, within_seconds)) for client in clients
    ]
    for killer in killers:
        killer.start()
    for killer in killers:
        killer.join(timeout=400)
        assert not killer.is_alive()
    for client in clients:
        client.stop()
    assert sum(map(len, apis.kills.values())) == kills * len(clients)


def _kill_one(
    apis: ApiProcesses, client: ClientT, progress: Callable[[ClientT], int], kills: int, within_seconds: float
) -> None:
    pause, chance = threading.Event(), random.Random()
    for _ in range(kills):
        begun = progress(client)
        wait_for(lambda begun=begun: progress(client) > begun, "an answer", 60)  # type: ignore[misc]
        pause.wait(chance.uniform(0, within_seconds))
        apis.kill(client.port)


def all_delivered(url: str) -> bool:
    """Return whether PostgreSQL has everything, and has refused nothing."""
    recording = requests.get(f"{url}/health", timeout=10).json()["recording"]
    assert recording["rejected"] == 0
    return bool(recording["pending"] == 0)


@contextmanager
def api_processes(server: Server, database_url: str, data_dir: Path, number: int) -> Iterator[ApiProcesses]:
    """Yield API processes in front of the model server of another stack; they are ended with the block."""
    environment = clean_environment(DATABASE_URL=database_url, DATA_DIR=str(data_dir), **server.model_settings)
    with closing(ApiProcesses(environment, data_dir.parent / "apis.log", number)) as processes:
        yield processes


@contextmanager
def killed_deliverers(database_url: str, data_dir: Path, within_seconds: float = 4.0) -> Iterator[list[int]]:
    """Have a process beside the API processes that delivers, and is killed and replaced again and again until the end
    of the block. Yield the numbers of those so far."""
    environment = clean_environment(DATABASE_URL=database_url, DATA_DIR=str(data_dir))
    command = [str(Path(sys.executable).parent / "mistral-api"), "deliver"]
    pids: list[int] = []
    ended = threading.Event()

    def run() -> None:
        with (data_dir.parent / "deliverers.log").open("w") as log:
            while not ended.is_set():
                process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
                pids.append(process.pid)
                ended.wait(random.uniform(1.0, within_seconds))
                process.kill()
                process.wait()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield pids
    finally:
        ended.set()
        thread.join(timeout=20)
    assert_no_traceback(data_dir.parent / "deliverers.log")
