"""A grammar or JSON schema that the model server hangs with is refused from then on, and nothing else is."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from mistral_api.control.quarantine import read_quarantine
from mistral_api.control.status import State, read_status
from mistral_api.security.audit import read_events
from mistral_api.system.processes import run_command
from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server, clean_environment, running_server, temporary_data_dir, wait_for
from tests.support.raw_requests import send_request
from tests.support.supervisor_process import MisbehavingEngine, install_misbehaving_engine

CHAT = "/v1/chat/completions"
FINE = 'root ::= "fine"'


@pytest.fixture(scope="module")
def stack() -> Iterator[tuple[Server, dict[str, str]]]:
    """A stack whose engine hangs with whatever is evil, and its settings. It may restart once for other reasons."""
    with temporary_data_dir() as data_dir:
        engine = install_misbehaving_engine(data_dir.parent / f"{data_dir.name}-engine")
        settings = engine.settings("hangs-on-evil") | {"HANG_SECONDS": "1", "THREADS": "2", "MAX_RESTARTS": "1"}
        with running_server(data_dir, **settings) as running:
            yield running, settings


def _body(grammar: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}], "grammar": grammar}


def _ask(server: Server, grammar: str) -> requests.Response:
    return requests.post(server.url + CHAT, json=_body(grammar), timeout=60)


def _evil(name: str) -> str:
    return f'root ::= "evil {name}"'


def _wait_ready(server: Server, restarts: int) -> None:
    def ready() -> bool:
        status = read_status(server.data_dir)
        return status is not None and status.state is State.READY and status.restarts == restarts

    wait_for(ready, f"a model server ready after {restarts} restarts", 30)


def test_hang_quarantines_what_was_in_use_and_no_restart_is_counted(stack: tuple[Server, dict[str, str]]) -> None:
    server, _ = stack
    assert _ask(server, FINE).status_code == 200
    restarts = server.health()["model_server"]["restarts"]
    for number, name in enumerate(("one", "two", "three"), 1):
        proven = threading.Thread(target=_ask, args=(server, FINE))
        answer = threading.Thread(target=_ask, args=(server, _evil(name)))
        answer.start()
        proven.start()
        _wait_ready(server, restarts + number)
        answer.join()
        proven.join()
        refused = _ask(server, _evil(name))
        assert refused.status_code == 400
        assert_error_shape(refused.json(), code="constraint_quarantined", param="grammar")
        # It was in use as well, but had worked before.
        assert _ask(server, FINE).status_code == 200
    assert len(read_quarantine(server.data_dir).until) == 3


def test_client_that_has_left_the_hang_is_blamed_too(stack: tuple[Server, dict[str, str]]) -> None:
    server, settings = stack
    engine = MisbehavingEngine(Path(settings["GGML_MISBEHAVE_DIR"]))
    restarts = server.health()["model_server"]["restarts"]
    with send_request(server, CHAT, _body(_evil("left"))):
        wait_for(lambda: server.slots_busy() == 1, "a busy slot")
        asked = engine.probes()
        wait_for(lambda: engine.probes() > asked, "a look of the supervisor at it")
    _wait_ready(server, restarts + 1)
    assert _ask(server, _evil("left")).json()["error"]["code"] == "constraint_quarantined"


@pytest.mark.slow
def test_hang_without_constraints_counts_and_the_server_is_tried_again_later(tmp_path: Any) -> None:
    with temporary_data_dir() as data_dir:
        engine = install_misbehaving_engine(tmp_path / "engine")
        settings = engine.settings("hangs-on-evil") | {"HANG_SECONDS": "1", "THREADS": "2", "MAX_RESTARTS": "1"}
        with running_server(data_dir, **settings) as server:
            for _ in range(2):
                body = {"messages": [{"role": "user", "content": "evil"}]}
                requests.post(server.url + CHAT, json=body, timeout=60)
            status = wait_for(lambda: _fatal(server), "a model server that is given up", 30)
            assert "Given up for 5 minutes after 1 restarts" in status.last_error
            assert server.process.poll() is None
            refused = _ask(server, FINE)
    assert refused.status_code == 503
    assert_error_shape(refused.json(), code="model_unavailable")


def _fatal(server: Server) -> Any:
    status = read_status(server.data_dir)
    return status if status is not None and status.state is State.FATAL else None


@pytest.mark.slow
def test_quarantine_survives_a_restart_of_everything_and_is_cleared_by_a_command() -> None:
    with temporary_data_dir() as data_dir:
        engine = install_misbehaving_engine(data_dir.parent / f"{data_dir.name}-engine")
        settings = engine.settings("hangs-on-evil") | {"HANG_SECONDS": "1", "THREADS": "2"}
        with running_server(data_dir, **settings) as server:
            first = _ask(server, _evil("kept"))
            _wait_ready(server, 1)
        with running_server(data_dir, **settings) as server:
            assert _ask(server, _evil("kept")).json()["error"]["code"] == "constraint_quarantined"
            (digest,) = read_quarantine(data_dir).until
            events = [event for event in read_events(data_dir) if event["event"] == "constraint_quarantined"]
            # The first one was refused too where it went over a connection that had been used, and so was tried again.
            refused = 1 + (first.status_code == 400)
            assert [event.get("by") for event in events] == ["supervisor", *[None] * refused]
            assert events[0]["subject"] == digest
            assert digest in _command(data_dir, "list")
            assert _command(data_dir, "clear", digest[:8]) == "1 freed.\n"
            assert _command(data_dir, "list") == "Nothing is quarantined.\n"
            restarts = server.health()["model_server"]["restarts"]
            _ask(server, _evil("kept"))
            _wait_ready(server, restarts + 1)


def _command(data_dir: Path, *words: str) -> str:
    command = [str(Path(sys.executable).parent / "mistral-api"), "constraints", *words]
    environment = clean_environment(DATA_DIR=str(data_dir))
    return run_command(command, 30, env=environment).stdout
