"""The connections of a model server to its workers: their local ends, and whether a worker has hung up."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from mistral_api.control.rpc_workers import WorkerAddress

LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection to a worker: this machine's end, and whether the worker has closed its side."""

    local_endpoint: str
    worker_has_closed: bool


class WorkerConnections:
    """Looks at one model server's connections, every LOOK_SECONDS, without a word to the workers."""

    def __init__(self, pid: int, workers: Iterable[WorkerAddress]) -> None:
        """``pid``: the server's process, which may be a script that has started the server."""
        self._pid = pid
        self._workers = tuple(workers)
        self._looked_at = float("-inf")
        self._hosts = {worker: _ipv4_of(worker.host) for worker in self._workers}

    def look(self) -> dict[WorkerAddress, Connection]:
        """Return the connection to each worker that has one."""
        ends = {(self._hosts[worker], worker.port): worker for worker in self._workers}
        return {ends[remote]: found for remote, found in _tcp_connections(self._pid) if remote in ends}

    def lost_worker(self) -> WorkerAddress | None:
        """Return a worker that has ended its side of the connection, now and then; None between looks.

        The engine notices that only at its next request, which would then fail.
        """
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return None
        self._looked_at = now
        return next((worker for worker, found in self.look().items() if found.worker_has_closed), None)


def _ipv4_of(host: str) -> str | None:
    try:
        return socket.gethostbyname(host)
    except OSError:
        return None


def _tcp_connections(pid: int) -> list[tuple[tuple[str | None, int], Connection]]:
    """Return the TCP connections of a process and of those it has started, with the address and port of the other end.

    There are none where they may not be seen.
    """
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        entries = [
            entry for each in (process, *process.children(recursive=True)) for entry in each.net_connections("tcp4")
        ]
        return [
            (
                (entry.raddr.ip, entry.raddr.port),
                Connection(f"{entry.laddr.ip}:{entry.laddr.port}", entry.status == psutil.CONN_CLOSE_WAIT),
            )
            for entry in entries
            if entry.raddr
        ]
    return []
