"""API processes on one DATA_DIR that a test kills, and that are replaced at once (``tests.support.forking_api``)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support.processes import ROOT, Server, clean_environment, free_port, wait_for


class ApiProcesses:
    """The API processes, and the times at which each was killed."""

    def __init__(self, environment: dict[str, str], log: Path, number: int) -> None:
        """Start ``number`` processes."""
        self.ports = [free_port() for _ in range(number)]
        command = [sys.executable, "-m", "tests.support.forking_api", *map(str, self.ports)]
        self._log = log.open("w")
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


@contextmanager
def api_processes(server: Server, database_url: str, data_dir: Path, number: int) -> Iterator[ApiProcesses]:
    """Yield API processes in front of the model server of another stack; they are ended with the block."""
    environment = clean_environment(
        DATABASE_URL=database_url, DATA_DIR=str(data_dir), MODEL_SERVER_PORT=str(server.model_port)
    )
    with closing(ApiProcesses(environment, data_dir.parent / "apis.log", number)) as processes:
        yield processes
