"""A server of several API processes (API_PROCESSES), and clients of each of them.

::

    with misbehaving_server() as engine, running_siblings(data_dir, MODEL_SERVER_URL=engine) as server:
        with client_of(server, 1) as one, client_of(server, 2) as two:
            status, body = one.ask("POST", "/v1/chat/completions", {"model": "fine", "messages": [...]})

Which process has accepted a connection is what the system says: no header of the server tells it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import psutil

from tests.support.processes import START_SECONDS, Server, running_server, wait_for

MODULE = "mistral_api.serving.api_process"
# Connections that are opened until the wanted process has accepted one.
MOST_TRIES = 200


@contextlib.contextmanager
def running_siblings(data_dir: Path, count: int = 2, **settings: str) -> Iterator[Server]:
    """Run ``bin/serve`` with so many API processes, and yield it when all of them serve."""
    with running_server(data_dir, API_PROCESSES=str(count), **settings) as server:
        wait_until_all_serve(server, count)
        yield server


def wait_until_all_serve(server: Server, count: int = 2) -> None:
    """Wait until so many API processes serve."""
    wait_for(lambda: server.health()["processes"]["running"] == count, "all API processes", START_SECONDS)


def sibling(server: Server, number: int) -> psutil.Process:
    """Return an API process: 1 is that of ``bin/serve``, the others are its children."""
    first = psutil.Process(server.process.pid)
    return first if number == 1 else _children(first)[number]


def _children(first: psutil.Process) -> dict[int, psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for child in first.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one, too
            command = child.cmdline()
            if MODULE in command:
                found[int(command[command.index(MODULE) + 1])] = child
    return found


class SiblingClient:
    """A connection to one API process, which stays open from one request to the next."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Send a request. Return the status, and the JSON of the answer."""
        answer = self.open(method, path, body, **headers)
        return answer.status, json.loads(answer.read())

    def open(self, method: str, path: str, body: Any = None, **headers: str) -> HTTPResponse:
        """Send a request, and return the answer, which is still to be read, to its end, before the next request."""
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {"Content-Type": "application/json"} | headers)
        return self._connection.getresponse()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextlib.contextmanager
def client_of(server: Server, number: int, seconds: float = 30.0) -> Iterator[SiblingClient]:
    """Yield a client of an API process. ``seconds``: its deadline for each answer."""
    process = sibling(server, number)
    with contextlib.ExitStack() as stack:  # the others stay open meanwhile, so that the next one goes elsewhere
        for _ in range(MOST_TRIES):
            connection = HTTPConnection("127.0.0.1", server.api_port, timeout=seconds)
            stack.callback(connection.close)
            connection.request("GET", "/health/live")
            connection.getresponse().read()
            if _has_accepted(process, connection):
                yield SiblingClient(connection)
                return
    raise AssertionError(f"API process {number} accepts no connection")


def _has_accepted(process: psutil.Process, connection: HTTPConnection) -> bool:
    port = connection.sock.getsockname()[1]
    return any(each.raddr and each.raddr.port == port for each in process.net_connections("tcp"))


def connections_of(server: Server, number: int) -> list[Any]:
    """Return the open connections of clients to an API process."""
    opened = sibling(server, number).net_connections("tcp")
    return [each for each in opened if each.raddr and each.laddr.port == server.api_port]
