"""Each API process says the same of the whole server."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from mistral_api.embedded.postgres import EmbeddedHealth
from mistral_api.ipc.peer import Peer
from mistral_api.ipc.siblings import ALONE, Hub, Siblings
from mistral_api.observability import server_health
from mistral_api.observability.server_health import ProcessesHealth, ServerHealthReader
from tests.support.event_loops import running_loop


def _embedded() -> EmbeddedHealth:
    return {"state": "running", "restarts": 3}


def _processes() -> ProcessesHealth:
    return {"status": "ok", "configured": 2, "running": 2, "last_error": None}


@pytest.fixture
def readers() -> Iterator[tuple[ServerHealthReader, ServerHealthReader, Peer]]:
    """The first process's, another one's, and the first one's way to that."""
    ours, theirs = socket.socketpair()
    hub, to_other, to_first = Hub(), Peer(ours, "API process 2"), Peer(theirs, "the first API process")
    first = ServerHealthReader(Siblings(hub=hub), _embedded)
    first.processes = _processes
    other = ServerHealthReader(Siblings(first=to_first), lambda: None)
    with running_loop() as loop:
        hub.join(to_other)
        to_first.start(loop)
        to_other.start(loop)
        yield first, other, to_other
        to_first.close()
        to_other.close()


def test_other_process_says_what_the_first_one_knows(
    readers: tuple[ServerHealthReader, ServerHealthReader, Peer],
) -> None:
    first, other, _ = readers
    said = other.read()
    assert (said["processes"], said["embedded_postgres"]) == (_processes(), _embedded())
    assert said["uptime_seconds"] <= first.read()["uptime_seconds"]


def test_other_process_says_that_the_first_one_does_not_answer(
    readers: tuple[ServerHealthReader, ServerHealthReader, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, other, to_other = readers
    monkeypatch.setattr(server_health, "ANSWER_SECONDS", 0.05)
    to_other.handle(server_health.ASK, lambda: time.sleep(0.3))
    processes = other.read()["processes"]
    assert processes is not None
    assert (processes["status"], processes["last_error"]) == (
        "attention",
        "the first API process did not answer in time",
    )


def test_nobody_counts_processes_under_another_web_server() -> None:
    said = ServerHealthReader(ALONE, lambda: None).read()
    assert (said["processes"], said["embedded_postgres"]) == (None, None)
